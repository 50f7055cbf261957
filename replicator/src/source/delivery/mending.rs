//! A stream that broke under a cycle: dialled again while the capture may be kept, and the cycle's fate is asked for.

use std::time::Duration;

use farshore_proto::v1;
use farshore_transfer::{PendingCycle, PointHead, ResumePlan, plan_resume};
use tokio::time::Instant;

use super::{Delivery, DeliveryError, PATIENCE, chain};
use crate::{
    pauses::Pauses,
    source::link::{Link, LinkError},
};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The capture costs the guest something while it waits, so that nobody waits for long with the target back.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a cut stream was mended.
pub(super) enum Mended {
    /// The cycle goes on.
    GoesOn,
    /// Its seal had arrived.
    Sealed(PointHead),
}

impl Delivery<'_> {
    /// Dials again after the stream broke, and finds out what became of the cycle.
    pub(super) async fn mend(&mut self, mut error: LinkError) -> Result<Mended, DeliveryError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pauses = Pauses::between(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            error = match final_refusal(self.take_reason(error).await) {
                Ok(fatal) => return Err(fatal),
                Err(cut) => cut,
            };
            tracing::warn!(vm = self.lane.assignment.machine.vm, error = %chain(&error), "stream cut");
            if Instant::now() >= deadline {
                return Err(DeliveryError::TargetAway(Box::new(error)));
            }
            let stop = self.lane.stop.clone();
            let pause = pauses.next();
            let opened = tokio::select! {
                () = stop.cancelled() => return Err(DeliveryError::Stopped),
                opened = async {
                    tokio::time::sleep(pause).await;
                    Link::open(&self.lane.assignment, &self.lane.reach).await
                } => opened,
            };
            match opened {
                Ok(link) => {
                    self.lane.link = link;
                    self.lane.width.lost(Instant::now());
                }
                Err(again) => {
                    error = again;
                    continue;
                }
            }
            match plan_resume(&self.pending(), &self.lane.link.welcome.head()) {
                ResumePlan::WasSealed(point) => return Ok(Mended::Sealed(point)),
                ResumePlan::Lost => {
                    return Err(DeliveryError::Lost("the target no longer holds it".to_owned()));
                }
                ResumePlan::Resume { .. } | ResumePlan::BeginAgain => match self.say_begin().await {
                    Ok(()) => return Ok(Mended::GoesOn),
                    Err(again) => error = again,
                },
            }
        }
    }

    fn pending(&self) -> PendingCycle {
        PendingCycle {
            cycle: self.outbound.cycle(),
            base: self.base,
            acknowledged_through: self.outbound.durable_through(),
            seal_sent: self.seal_sent,
        }
    }
}

/// Once a seal was sent, an end without an answer leaves its outcome to be asked for.
pub(super) fn unknown(error: DeliveryError) -> DeliveryError {
    match error {
        DeliveryError::TargetAway(_) | DeliveryError::Stopped => {
            DeliveryError::OutcomeUnknown(Box::new(error))
        }
        DeliveryError::Fenced(_)
        | DeliveryError::Lost(_)
        | DeliveryError::OutcomeUnknown(_)
        | DeliveryError::Source(_)
        | DeliveryError::Comparison(_)
        | DeliveryError::Frame(_) => error,
    }
}

/// A refusal that dialling again cannot change; anything else is given back.
fn final_refusal(error: LinkError) -> Result<DeliveryError, LinkError> {
    match error {
        LinkError::Refused {
            reason: v1::RefusalReason::Fenced,
            message,
        } => Ok(DeliveryError::Fenced(message)),
        LinkError::Refused {
            reason: v1::RefusalReason::Busy | v1::RefusalReason::SeedDiffers,
            ..
        } => Err(error),
        LinkError::Refused { reason, message } => Ok(DeliveryError::Lost(format!(
            "{}: {message}",
            reason.as_str_name()
        ))),
        // Whoever breaks the protocol once does so again: nobody's capture is held for that.
        broken @ (LinkError::Acknowledgement(_)
        | LinkError::Malformed(_)
        | LinkError::Version(_)
        | LinkError::Unexpected { .. }) => Ok(DeliveryError::Lost(chain(&broken))),
        cut @ (LinkError::Unreachable { .. }
        | LinkError::TimedOut(_)
        | LinkError::Ended
        | LinkError::Failed(_)) => Err(cut),
    }
}

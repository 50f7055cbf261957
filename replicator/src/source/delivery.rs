//! One cycle on its way to the target: begin, ship, seal, across as many cut streams as it takes while its capture
//! lives.

mod mending;
mod seeded;
mod shipping;
mod telling;
mod widening;

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{ByteCount, Digest, Sequence, clock::WallTime, point_digest};
use farshore_proto::v1::{self, source_message::Body, target_message};
use farshore_provider::{CapturedVolume, SourceError};
use farshore_transfer::{HeldCycle, Outbound, PointHead, Share, Shares};
use tokio_util::sync::CancellationToken;

use super::{
    comparison::ComparisonError,
    link::{self, Link, LinkError, OpenCycle},
    link_pace::LinkPace,
    pace::Pace,
    packing::Packers,
    reach::Reach,
    tuning::Tuning,
    volumes::ChainVolumes,
    width::Width,
};
use crate::{assignment::Assignment, convert, metrics::Metrics};
use mending::{Mended, unknown};

/// How long a capture is kept alive for a target that went away. It costs the guest copies before writes and
/// scratch space, and what it holds can always be captured again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a cycle did not become a point.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("this source is fenced: {0}")]
    Fenced(String),
    #[error("the cycle was lost: {0}")]
    Lost(String),
    #[error("the target was away for more than {PATIENCE:?}")]
    TargetAway(#[source] Box<LinkError>),
    #[error("the cycle's seal was sent and nobody knows what became of it")]
    OutcomeUnknown(#[source] Box<DeliveryError>),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the disks cannot be compared with what the target holds")]
    Comparison(#[from] ComparisonError),
    #[error("frames could not be made")]
    Frame(#[from] farshore_blocks::FrameError),
    #[error("replication was stopped")]
    Stopped,
}

/// What every delivery of one protected VM shares.
pub(crate) struct Lane {
    pub(crate) assignment: Assignment,
    pub(crate) link: Link,
    pub(crate) reach: Reach,
    pub(crate) pace: Pace,
    /// Of the link that other VMs share; none if that is not limited.
    pub(crate) link_pace: Option<LinkPace>,
    pub(crate) packers: Packers,
    pub(crate) tuning: Tuning,
    pub(crate) width: Width,
    /// What all VMs together may have under way.
    pub(crate) windows: Shares,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) volumes: ChainVolumes,
}

/// A cycle under way.
pub(crate) struct Delivery<'a> {
    lane: &'a mut Lane,
    outbound: Outbound,
    share: Share,
    /// How much the target takes.
    window: ByteCount,
    kind: v1::CycleKind,
    base: Option<PointHead>,
    /// Of the point that it becomes, as the target was told.
    volumes: Vec<v1::Volume>,
    seal_sent: Option<Digest>,
    /// How often the target found a seed to be other than it was.
    seed_refusals: u32,
    /// How long the sender waited for the capture's bytes so far.
    reading: Duration,
}

/// What the seal says beside the digests.
#[derive(Debug, Clone)]
pub(crate) struct SealFacts {
    pub(crate) captured_at: WallTime,
    pub(crate) kind: v1::PointKind,
    pub(crate) machine: Bytes,
}

impl<'a> Delivery<'a> {
    /// Begins a new cycle on top of `base`, of what was captured or, where nothing is yet, of the disks as they are known.
    pub(crate) async fn begin(
        lane: &'a mut Lane,
        kind: v1::CycleKind,
        base: Option<PointHead>,
        captured: &[CapturedVolume],
    ) -> Result<Self, DeliveryError> {
        let cycle = random_number().map_err(|error| DeliveryError::Lost(error.to_string()))?;
        Self::begin_numbered(lane, (cycle, kind), base, captured).await
    }

    /// Begins a new cycle of this number on top of `base`.
    pub(crate) async fn begin_numbered(
        lane: &'a mut Lane,
        (cycle, kind): (u64, v1::CycleKind),
        base: Option<PointHead>,
        captured: &[CapturedVolume],
    ) -> Result<Self, DeliveryError> {
        let outbound = Outbound::new(cycle, lane.volumes.count(), lane.link.welcome.window);
        let mut delivery = Self {
            volumes: lane.volumes.told(captured),
            share: lane.windows.join(),
            window: lane.link.welcome.window,
            lane,
            outbound,
            kind,
            base,
            seal_sent: None,
            seed_refusals: 0,
            reading: Duration::ZERO,
        };
        if let Err(error) = delivery.say_begin().await {
            delivery.mend(error).await?;
        }
        Ok(delivery)
    }

    /// Goes on with the scan that the target holds open.
    pub(crate) async fn resume(lane: &'a mut Lane, open: &OpenCycle) -> Result<Self, DeliveryError> {
        let base = lane.link.welcome.newest;
        let kind = if base.is_some() {
            v1::CycleKind::Resync
        } else {
            v1::CycleKind::Base
        };
        let window = lane.link.welcome.window;
        let mut outbound = Outbound::resume(open.cycle, open.durable_through, &open.changes, window);
        outbound.know_volumes(lane.volumes.count());
        let mut delivery = Self {
            volumes: lane.volumes.told(&[]),
            share: lane.windows.join(),
            window,
            lane,
            outbound,
            kind,
            base,
            seal_sent: None,
            seed_refusals: 0,
            reading: Duration::ZERO,
        };
        if let Err(error) = delivery.say_begin().await {
            delivery.mend(error).await?;
        }
        Ok(delivery)
    }

    /// What the target has acknowledged of the cycle.
    pub(crate) fn held_by_target(&self) -> HeldCycle {
        HeldCycle {
            cycle: self.outbound.cycle(),
            durable_through: self.outbound.durable_through(),
        }
    }

    /// How long it waited for the capture's bytes so far, in all of the cycle; while it sends, reading costs it no time.
    pub(crate) fn reading(&self) -> Duration {
        self.reading
    }

    /// Seals the cycle as the point on top of its base.
    pub(crate) async fn seal(&mut self, facts: SealFacts) -> Result<PointHead, DeliveryError> {
        let changes = self.outbound.changes();
        let digest = point_digest(&link::parent_digest(self.base), &facts.machine, &changes);
        let sequence = self.base.map_or(Sequence(0), |base| base.sequence).next();
        let clock = self.lane.link.welcome.clock;
        let seal = v1::Seal {
            cycle: self.outbound.cycle(),
            sequence: sequence.0,
            messages: self.outbound.messages(),
            parent_digest: link::parent_digest(self.base).as_bytes().to_vec().into(),
            changes: changes.into_iter().map(convert::change_out).collect(),
            captured_at: Some(convert::time_out(facts.captured_at)),
            clock_offset_nanoseconds: clock.offset_nanoseconds,
            clock_uncertainty_nanoseconds: u64::try_from(clock.uncertainty.as_nanos()).unwrap_or(u64::MAX),
            kind: facts.kind.into(),
            machine: facts.machine,
        };
        loop {
            self.seal_sent = Some(digest);
            let sealed = match self.try_seal(seal.clone()).await {
                Ok(point) => point,
                Err(error) => match self.mend(error).await.map_err(unknown)? {
                    Mended::GoesOn => continue,
                    Mended::Sealed(point) => point,
                },
            };
            let ours = PointHead { sequence, digest };
            if sealed != ours {
                return Err(DeliveryError::Lost(format!(
                    "the target sealed {sealed:?}, not {ours:?}"
                )));
            }
            return Ok(sealed);
        }
    }

    /// How much the target takes from now on, if it says so.
    fn told_window(&mut self, bytes: u64) {
        if bytes > 0 {
            self.window = ByteCount(bytes);
        }
        self.outbound.set_window(self.window.min(self.share.bytes()));
    }

    async fn try_seal(&mut self, seal: v1::Seal) -> Result<PointHead, LinkError> {
        self.lane.link.send(Body::Seal(seal)).await?;
        loop {
            let answer = self.lane.link.answer().await?;
            match answer {
                target_message::Body::Sealed(sealed) => return link::sealed_point(&sealed),
                target_message::Body::Acknowledged(acknowledged) => self.acknowledged(&acknowledged)?,
                other @ (target_message::Body::Welcome(_)
                | target_message::Body::Begun(_)
                | target_message::Body::Refused(_)
                | target_message::Body::Abandoned(_)) => {
                    return Err(link::unexpected(&other, "a sealed point"));
                }
            }
        }
    }

    /// Begins, or joins again, this cycle in the present stream, and sends again what the target does not hold.
    async fn say_begin(&mut self) -> Result<(), LinkError> {
        let begin = v1::BeginCycle {
            cycle: self.outbound.cycle(),
            kind: self.kind.into(),
            base: link::base_out(self.base),
            volumes: self.volumes.clone(),
        };
        self.lane.link.send(Body::Begin(begin)).await?;
        let answer = self.lane.link.answer().await?;
        let target_message::Body::Begun(v1::CycleBegun {
            open: Some(open),
            window_bytes,
        }) = answer
        else {
            return Err(link::unexpected(&answer, "a begun cycle"));
        };
        self.window = self.lane.link.welcome.window;
        self.told_window(window_bytes);
        for message in self.outbound.send_again(open.durable_through_message)? {
            self.send_message(message).await?;
        }
        Ok(())
    }
}

pub(crate) fn random_number() -> std::io::Result<u64> {
    let nonce = farshore_blocks::HolderNonce::random()?;
    let half = nonce.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    Ok(u64::from_le_bytes(half).max(1))
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

//! One cycle on its way to the target: begin, ship, seal, across as many cut streams as it takes while its capture
//! lives.

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{ByteCount, Digest, Frame, Sequence, clock::WallTime, point_digest};
use farshore_proto::v1::{self, source_message::Body, target_message};
use farshore_provider::{Capture, SourceError, StateOfBytes};
use farshore_transfer::{
    HeldCycle, Message, Outbound, PendingCycle, PointHead, ResumePlan, Watermark, plan_resume,
};
use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    comparison::{Comparison, ComparisonError},
    link::{self, Link, LinkError, OpenCycle},
    pace::Pace,
    reading::{read, read_differing},
    worklist::{Piece, Worklist},
};
use crate::{assignment::Assignment, convert, metrics::Metrics};

/// How long a capture is kept alive for a target that went away. It costs the guest copies before writes and
/// scratch space, and what it holds can always be captured again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many batches in which nothing differs pass before the target hears how far the scan has come: 64 MiB of data.
const EQUAL_BATCHES_A_MARK: u32 = 64;
const DIAL_PAUSE: Duration = Duration::from_millis(200);

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
    #[error("the disks cannot be compared with the target's point")]
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
    pub(crate) pace: Pace,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Metrics,
}

/// A cycle under way.
pub(crate) struct Delivery<'a> {
    lane: &'a mut Lane,
    outbound: Outbound,
    kind: v1::CycleKind,
    base: Option<PointHead>,
    seal_sent: Option<Digest>,
    /// How long reading the capture took so far.
    reading: Duration,
}

/// What the seal says beside the digests.
#[derive(Debug, Clone)]
pub(crate) struct SealFacts {
    pub(crate) captured_at: WallTime,
    pub(crate) kind: v1::PointKind,
    pub(crate) machine: Bytes,
}

/// How a cut stream was mended.
enum Mended {
    /// The cycle goes on.
    GoesOn,
    /// Its seal had arrived.
    Sealed(PointHead),
}

impl<'a> Delivery<'a> {
    /// Begins a new cycle on top of `base`.
    pub(crate) async fn begin(
        lane: &'a mut Lane,
        kind: v1::CycleKind,
        base: Option<PointHead>,
    ) -> Result<Self, DeliveryError> {
        let cycle = random_number().map_err(|error| DeliveryError::Lost(error.to_string()))?;
        let outbound = Outbound::new(cycle, lane.assignment.volumes.len(), lane.link.welcome.window);
        let mut delivery = Self {
            lane,
            outbound,
            kind,
            base,
            seal_sent: None,
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
        let outbound = Outbound::resume(open.cycle, open.durable_through, &open.changes, window);
        let mut delivery = Self {
            lane,
            outbound,
            kind,
            base,
            seal_sent: None,
            reading: Duration::ZERO,
        };
        if let Err(error) = delivery.say_begin().await {
            delivery.mend(error).await?;
        }
        Ok(delivery)
    }

    /// Sends all of `work`, read from `capture`, and waits until it is durable at the target. `progress` hears of
    /// every message's data bytes.
    pub(crate) async fn ship<C: Capture>(
        &mut self,
        capture: &C,
        work: &mut Worklist,
        mut progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        while let Some(batch) = work.next_batch() {
            let began = Instant::now();
            let frames = self.or_stopped(read(capture, &batch)).await??;
            self.reading += began.elapsed();
            self.push(frames, batch.watermarks).await?;
            progress(data_bytes(&batch.pieces));
        }
        self.drain().await
    }

    /// As [`Delivery::ship`], but of what `base` holds already nothing travels.
    pub(crate) async fn ship_differing<C: Capture>(
        &mut self,
        (capture, base): (&C, &mut Comparison),
        work: &mut Worklist,
        mut progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        let mut equal = 0_u32;
        let mut marks = Vec::new();
        while let Some(batch) = work.next_batch() {
            let began = Instant::now();
            let frames = self.or_stopped(read_differing(capture, &batch, base)).await??;
            self.reading += began.elapsed();
            equal = equal.saturating_add(1);
            marks = batch.watermarks;
            if !frames.is_empty() || equal == EQUAL_BATCHES_A_MARK {
                self.push(frames, std::mem::take(&mut marks)).await?;
                equal = 0;
            }
            progress(data_bytes(&batch.pieces));
        }
        if !marks.is_empty() {
            self.push(Vec::new(), marks).await?;
        }
        self.drain().await
    }

    /// Sends one message, as fast as the limits allow.
    async fn push(&mut self, frames: Vec<Frame>, watermarks: Vec<Watermark>) -> Result<(), DeliveryError> {
        let bytes = payload_bytes(&frames);
        let stop = self.lane.stop.clone();
        tokio::select! {
            () = stop.cancelled() => return Err(DeliveryError::Stopped),
            () = self.lane.pace.take(bytes) => {}
        }
        let message = self.outbound.push(frames, watermarks);
        self.count(&message);
        if let Err(error) = self.send_one(message).await {
            self.mend(error).await?;
        }
        Ok(())
    }

    /// Waits until all that was sent is durable at the target.
    async fn drain(&mut self) -> Result<(), DeliveryError> {
        while !self.outbound.is_drained() {
            if let Err(error) = self.take_acknowledgement().await {
                self.mend(error).await?;
            }
        }
        Ok(())
    }

    /// What the target has acknowledged of the cycle.
    pub(crate) fn held_by_target(&self) -> HeldCycle {
        HeldCycle {
            cycle: self.outbound.cycle(),
            durable_through: self.outbound.durable_through(),
        }
    }

    /// How long reading the capture took so far, in all of the cycle.
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

    /// Sends when the window has room, and takes in what acknowledgements have come.
    async fn send_one(&mut self, message: Message) -> Result<(), LinkError> {
        while let Some(answer) = self.lane.link.receive().now_or_never() {
            self.take(answer?)?;
        }
        while !self.outbound.has_room() && self.outbound.durable_through() < message.number.saturating_sub(1)
        {
            let answer = self.lane.link.answer().await?;
            self.take(answer)?;
        }
        self.send_message(message).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), LinkError> {
        let changes = v1::Changes {
            cycle: self.outbound.cycle(),
            message: message.number,
            frames: message.frames.iter().map(convert::frame_out).collect(),
            watermarks: message
                .watermarks
                .into_iter()
                .map(convert::watermark_out)
                .collect(),
        };
        self.lane.link.send(Body::Changes(changes)).await
    }

    async fn take_acknowledgement(&mut self) -> Result<(), LinkError> {
        let answer = self.lane.link.answer().await?;
        self.take(answer)
    }

    fn take(&mut self, answer: target_message::Body) -> Result<(), LinkError> {
        match answer {
            target_message::Body::Acknowledged(acknowledged) => self.acknowledged(&acknowledged),
            other @ (target_message::Body::Welcome(_)
            | target_message::Body::Begun(_)
            | target_message::Body::Sealed(_)
            | target_message::Body::Refused(_)
            | target_message::Body::Abandoned(_)) => Err(link::unexpected(&other, "an acknowledgement")),
        }
    }

    fn acknowledged(&mut self, acknowledged: &v1::Acknowledged) -> Result<(), LinkError> {
        if acknowledged.cycle != self.outbound.cycle() {
            return Err(LinkError::Unexpected {
                got: "another cycle's acknowledgement",
                expected: "ours",
            });
        }
        Ok(self.outbound.acknowledge(acknowledged.durable_through_message)?)
    }

    /// Begins, or joins again, this cycle in the present stream, and sends again what the target does not hold.
    async fn say_begin(&mut self) -> Result<(), LinkError> {
        let begin = v1::BeginCycle {
            cycle: self.outbound.cycle(),
            kind: self.kind.into(),
            base: link::base_out(self.base),
        };
        self.lane.link.send(Body::Begin(begin)).await?;
        let answer = self.lane.link.answer().await?;
        let target_message::Body::Begun(v1::CycleBegun { open: Some(open) }) = answer else {
            return Err(link::unexpected(&answer, "a begun cycle"));
        };
        for message in self.outbound.send_again(open.durable_through_message)? {
            self.send_message(message).await?;
        }
        Ok(())
    }

    /// Dials again after the stream broke, and finds out what became of the cycle.
    async fn mend(&mut self, mut error: LinkError) -> Result<Mended, DeliveryError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            error = match final_refusal(error) {
                Ok(fatal) => return Err(fatal),
                Err(cut) => cut,
            };
            tracing::warn!(vm = self.lane.assignment.machine.vm, error = %chain(&error), "stream cut");
            if Instant::now() >= deadline {
                return Err(DeliveryError::TargetAway(Box::new(error)));
            }
            let stop = self.lane.stop.clone();
            let opened = tokio::select! {
                () = stop.cancelled() => return Err(DeliveryError::Stopped),
                opened = async {
                    tokio::time::sleep(DIAL_PAUSE).await;
                    Link::open(&self.lane.assignment).await
                } => opened,
            };
            match opened {
                Ok(link) => self.lane.link = link,
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

    async fn or_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, DeliveryError> {
        tokio::select! {
            () = self.lane.stop.cancelled() => Err(DeliveryError::Stopped),
            done = work => Ok(done),
        }
    }

    fn count(&self, message: &Message) {
        for frame in &message.frames {
            self.lane.metrics.replicated(
                &self.lane.assignment.machine.vm,
                frame.encoding(),
                frame.raw_length(),
                frame.payload().len(),
            );
        }
    }
}

/// Once a seal was sent, an end without an answer leaves its outcome to be asked for.
fn unknown(error: DeliveryError) -> DeliveryError {
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
            reason: v1::RefusalReason::Busy,
            ..
        } => Err(error),
        LinkError::Refused { reason, message } => Ok(DeliveryError::Lost(format!(
            "{}: {message}",
            reason.as_str_name()
        ))),
        LinkError::Acknowledgement(violation) => Ok(DeliveryError::Lost(violation.to_string())),
        other @ (LinkError::Unreachable { .. }
        | LinkError::TimedOut(_)
        | LinkError::Ended
        | LinkError::Failed(_)
        | LinkError::Malformed(_)
        | LinkError::Unexpected { .. }) => Err(other),
    }
}

fn payload_bytes(frames: &[Frame]) -> ByteCount {
    let sum = frames.iter().map(|frame| frame.payload().len()).sum::<usize>();
    ByteCount(u64::try_from(sum).unwrap_or(u64::MAX))
}

fn data_bytes(pieces: &[Piece]) -> ByteCount {
    let data = pieces.iter().filter(|piece| piece.state == StateOfBytes::Data);
    ByteCount(
        data.map(|piece| piece.extent.length().0)
            .fold(0, u64::saturating_add),
    )
}

fn random_number() -> std::io::Result<u64> {
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

//! The life of one protected VM's replication: connect, scan if tracking is not good enough, then cycle after cycle.
//!
//! First run, retry and restart are one path: say hello, let the provider clean up by what the target holds, and go
//! on from there. Whatever fails ends the session with the capture settled; the next session begins after a pause.

use std::time::Duration;

use backon::BackoffBuilder;
use bytes::Bytes;
use farshore_blocks::{ByteCount, Sequence, clock::WallTime};
use farshore_proto::v1::{self, source_message::Body, target_message};
use farshore_provider::{
    Capture, CaptureKind, Outcome, ReplicaState, ScanState, Source, SourceError, Tracking, TrackingIdentity,
};
use farshore_transfer::{HeldCycle, PointHead, Watermark};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    comparison::{Comparison, Proof},
    delivery::{Delivery, DeliveryError, Lane, SealFacts, chain},
    link::{self, Link, LinkError, OpenCycle},
    pace::Pace,
    state::{SourcePhase, SourceState},
    worklist::{Purpose, Worklist},
};
use crate::{
    assignment::Assignment,
    convert,
    metrics::{CyclePhase, CycleResult, Metrics},
};

/// When a live round leaves less than this behind, the next cycle can take the rest at one instant. The disks of tests
/// are small.
const LITTLE_LEFT: ByteCount = ByteCount(if cfg!(test) { 256 * 1024 } else { 8 * 1024 * 1024 });
/// A guest that writes faster than the link carries never gets little left: then the instant must take it all.
const MOST_ROUNDS: u32 = 6;
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error("the machine's specification cannot be written down")]
    Machine(#[from] serde_json::Error),
}

/// How the engine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// The target refuses this epoch for good.
    Fenced,
}

/// Replicates one VM until it is stopped or fenced.
pub(crate) struct Engine<S: Source> {
    pub(crate) assignment: Assignment,
    pub(crate) source: S,
    pub(crate) state: watch::Sender<SourceState>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    /// What the target acknowledged of the last scan: what came with its rounds is not tracked any more.
    pub(crate) scan_acknowledged: Option<HeldCycle>,
}

impl<S: Source> Engine<S> {
    /// Runs; gives the source back so that it can be detached.
    pub(crate) async fn run(mut self) -> (Ended, S) {
        let mut pauses = pauses();
        loop {
            let began = Instant::now();
            let error = match self.session().await {
                Ok(()) => return (Ended::Stopped, self.source),
                Err(error) => error,
            };
            if matches!(error, SessionError::Delivery(DeliveryError::Stopped)) || self.stop.is_cancelled() {
                return (Ended::Stopped, self.source);
            }
            let shown = chain(&error);
            if is_fenced(&error) {
                tracing::error!(vm = self.vm(), error = shown, "fenced: this source stops");
                self.show(|state| {
                    state.phase = SourcePhase::Fenced;
                    state.detail = shown;
                });
                return (Ended::Fenced, self.source);
            }
            tracing::warn!(vm = self.vm(), error = shown, "replication was interrupted");
            self.show(|state| {
                state.phase = SourcePhase::Connecting;
                state.detail = shown;
            });
            if began.elapsed() > LONGEST_PAUSE {
                pauses = self::pauses();
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            tokio::select! {
                () = self.stop.cancelled() => return (Ended::Stopped, self.source),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn vm(&self) -> &str {
        &self.assignment.machine.vm
    }

    fn show(&self, change: impl FnOnce(&mut SourceState)) {
        self.state.send_modify(change);
    }

    /// One stream's worth, or more while captures survive cuts.
    async fn session(&mut self) -> Result<(), SessionError> {
        let stop = self.stop.clone();
        let link = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            link = Link::open(&self.assignment) => link?,
        };
        let mut lane = Lane {
            assignment: self.assignment.clone(),
            link,
            pace: Pace::new(self.assignment.bandwidth),
            stop,
            metrics: self.metrics.clone(),
        };
        let welcome = lane.link.welcome.clone();
        let open_scan = welcome
            .open
            .clone()
            .filter(|open| open.is_scan && follows(open, welcome.newest))
            .filter(|open| {
                !self
                    .scan_acknowledged
                    .is_some_and(|known| open.held().lacks(&known))
            });
        let identity = TrackingIdentity {
            vault: welcome.vault,
            chain: self.assignment.chain,
        };
        let replica = ReplicaState {
            newest: welcome.newest.map_or(Sequence(0), |point| point.sequence),
            scan: if open_scan.is_some() {
                ScanState::Open
            } else {
                ScanState::None
            },
        };
        self.show(|state| state.newest = welcome.newest);
        match self.source.attach(identity, replica).await? {
            Tracking::SincePoint => abandon(&mut lane).await?,
            Tracking::SinceScan => self.scan(&mut lane, open_scan.as_ref()).await?,
            Tracking::Lost { why } => {
                tracing::info!(vm = self.vm(), why, "the disks are scanned");
                self.show(|state| state.detail.clone_from(&why));
                abandon(&mut lane).await?;
                self.source.begin_scan(replica.newest.next()).await?;
                self.scan(&mut lane, None).await?;
            }
        }
        self.cycles(&mut lane).await
    }

    async fn cycles(&mut self, lane: &mut Lane) -> Result<(), SessionError> {
        loop {
            let began = Instant::now();
            self.show(|state| {
                state.phase = SourcePhase::Replicating;
                state.detail.clear();
            });
            let asked_at = WallTime::now();
            let backlog = self.source.backlog().await?;
            self.show(|state| state.backlog = backlog);
            if backlog == ByteCount(0) {
                still_valid(lane, asked_at).await?;
            } else {
                self.cycle(lane).await?;
                let took = began.elapsed();
                self.show(|state| {
                    state.last_cycle = Some(took);
                    state.backlog = ByteCount(0);
                });
            }
            if wait_until(lane, began + self.assignment.interval).await? == Waited::Stopped {
                return Ok(());
            }
        }
    }

    /// One ordinary cycle: what changed since the newest point, at one instant.
    async fn cycle(&mut self, lane: &mut Lane) -> Result<(), SessionError> {
        let base = self.state.borrow().newest;
        let next = base.map_or(Sequence(0), |point| point.sequence).next();
        let capture = self.source.begin(CaptureKind::Instant, next).await?;
        let delivered = match Delivery::begin(lane, v1::CycleKind::Delta, base).await {
            Ok(mut delivery) => self.deliver_instant(&mut delivery, &capture).await,
            Err(error) => Err(error.into()),
        };
        self.settle(capture, delivered).await
    }

    /// A whole-disk scan: live, then rounds while much is left, then the rest at one instant, sealed.
    async fn scan(&mut self, lane: &mut Lane, open: Option<&OpenCycle>) -> Result<(), SessionError> {
        let base = lane.link.welcome.newest;
        let next = base.map_or(Sequence(0), |point| point.sequence).next();
        let (phase, kind) = match base {
            None => (SourcePhase::InitialSync, v1::CycleKind::Base),
            Some(_) => (SourcePhase::Resynchronizing, v1::CycleKind::Resync),
        };
        self.show(|state| state.phase = phase);
        let mut delivery = match open {
            Some(open) => Delivery::resume(lane, open).await?,
            None => Delivery::begin(lane, kind, base).await?,
        };
        let starts = open.map(|open| open.watermarks.clone()).unwrap_or_default();
        let scanned = self.scan_live(&mut delivery, base, &starts).await;
        self.scan_acknowledged = Some(delivery.held_by_target());
        scanned?;
        self.show(|state| {
            state.phase = if base.is_none() {
                SourcePhase::AwaitingPoint
            } else {
                phase
            }
        });
        let capture = self.source.begin(CaptureKind::Instant, next).await?;
        let delivered = self.deliver_instant(&mut delivery, &capture).await;
        drop(delivery);
        self.settle(capture, delivered).await
    }

    /// Ships the live disks, as far as they differ from `base`, then in rounds what got dirty meanwhile, until little is left.
    async fn scan_live(
        &mut self,
        delivery: &mut Delivery<'_>,
        base: Option<PointHead>,
        starts: &[Watermark],
    ) -> Result<(), SessionError> {
        let next = base.map_or(Sequence(0), |point| point.sequence).next();
        let purpose = match base {
            None => Purpose::BaseScan,
            Some(_) => Purpose::ResyncScan,
        };
        let capture = self.source.begin(CaptureKind::Scan, next).await?;
        let total = Worklist::new(purpose, capture.volumes(), &[]).data_left();
        let mut work = Worklist::new(purpose, capture.volumes(), starts);
        let already = ByteCount(total.0.saturating_sub(work.data_left().0));
        self.show(|state| {
            state.sync_total = total;
            state.sync_done = already;
        });
        let progress = self.progress(Instant::now(), already);
        let shipped = match base {
            None => delivery.ship(&capture, &mut work, progress).await,
            Some(base) => match Comparison::with(&self.assignment, base.sequence, Proof::Noted) {
                Ok(mut base) => {
                    delivery
                        .ship_differing((&capture, &mut base), &mut work, progress)
                        .await
                }
                Err(error) => Err(error.into()),
            },
        };
        self.finish(capture, &shipped).await?;
        shipped?;
        for _ in 0..MOST_ROUNDS {
            if self.source.backlog().await? <= LITTLE_LEFT {
                break;
            }
            self.round(delivery, next).await?;
        }
        Ok(())
    }

    async fn round(&mut self, delivery: &mut Delivery<'_>, next: Sequence) -> Result<(), SessionError> {
        let capture = self.source.begin(CaptureKind::Round, next).await?;
        let mut work = Worklist::new(Purpose::Changes, capture.volumes(), &[]);
        let shipped = delivery.ship(&capture, &mut work, |_| {}).await;
        self.finish(capture, &shipped).await?;
        Ok(shipped?)
    }

    /// Ships and seals what the capture holds.
    async fn deliver_instant(
        &self,
        delivery: &mut Delivery<'_>,
        capture: &S::Capture,
    ) -> Result<PointHead, SessionError> {
        let held = capture.held();
        self.show(|state| state.last_hold = Some(held));
        self.metrics.cycle_phase(CyclePhase::Pause, held);
        self.metrics.guest_pause(held);
        let mut work = Worklist::new(Purpose::Changes, capture.volumes(), &[]);
        let (shipping, read_before) = (Instant::now(), delivery.reading());
        delivery.ship(capture, &mut work, |_| {}).await?;
        let read = delivery.reading().saturating_sub(read_before);
        self.metrics.cycle_phase(CyclePhase::Read, read);
        self.metrics
            .cycle_phase(CyclePhase::Send, shipping.elapsed().saturating_sub(read));
        let machine = Bytes::from(serde_json::to_vec(&self.assignment.machine)?);
        let sealing = Instant::now();
        let point = delivery
            .seal(SealFacts {
                captured_at: capture.captured_at(),
                machine,
            })
            .await?;
        self.metrics.cycle_phase(CyclePhase::Seal, sealing.elapsed());
        Ok(point)
    }

    /// Ends the capture by what became of its delivery.
    async fn settle(
        &mut self,
        capture: S::Capture,
        delivered: Result<PointHead, SessionError>,
    ) -> Result<(), SessionError> {
        if matches!(
            delivered,
            Err(SessionError::Delivery(DeliveryError::OutcomeUnknown(_)))
        ) {
            // Neither outcome may be assumed: left as by a crash, the capture is settled by what the target will say.
            drop(capture);
        } else {
            self.finish(capture, &delivered).await?;
        }
        let result = if delivered.is_ok() {
            CycleResult::Sealed
        } else {
            CycleResult::Failed
        };
        self.metrics.cycle_ended(self.vm(), result);
        let point = delivered?;
        self.show(|state| state.newest = Some(point));
        Ok(())
    }

    async fn finish<T, E>(
        &mut self,
        capture: S::Capture,
        delivered: &Result<T, E>,
    ) -> Result<(), SessionError> {
        let outcome = if delivered.is_ok() {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        match self.source.finish(capture, outcome).await {
            Ok(()) => Ok(()),
            // The delivery's own failure says more; the next session cleans up what is left.
            Err(error) if delivered.is_err() => {
                tracing::warn!(
                    vm = self.vm(),
                    error = chain(&error),
                    "a capture was not ended cleanly"
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn progress(&self, began: Instant, already: ByteCount) -> impl FnMut(ByteCount) + Send + use<S> {
        let state = self.state.clone();
        let mut done = 0u64;
        move |bytes| {
            done = done.saturating_add(bytes.0);
            let seconds = began.elapsed().as_secs_f64().max(0.001);
            state.send_modify(|state| {
                state.sync_done = ByteCount(already.0.saturating_add(done));
                state.sync_bytes_per_second = bytes_as_f64(done) / seconds;
            });
        }
    }
}

fn follows(open: &OpenCycle, newest: Option<PointHead>) -> bool {
    open.sequence == newest.map_or(Sequence(0), |point| point.sequence).next()
}

/// Ends the cycle that the target holds open, if it holds one: its capture is gone.
async fn abandon(lane: &mut Lane) -> Result<(), SessionError> {
    let Some(open) = lane.link.welcome.open.take() else {
        return Ok(());
    };
    lane.link
        .send(Body::Abandon(v1::Abandon { cycle: open.cycle }))
        .await?;
    let answer = lane.link.answer().await?;
    match answer {
        target_message::Body::Abandoned(_) => Ok(()),
        other @ (target_message::Body::Welcome(_)
        | target_message::Body::Begun(_)
        | target_message::Body::Acknowledged(_)
        | target_message::Body::Sealed(_)
        | target_message::Body::Refused(_)) => Err(link::unexpected(&other, "an abandoned cycle").into()),
    }
}

/// Tells the target that nothing had changed at `valid_through`.
async fn still_valid(lane: &Lane, valid_through: WallTime) -> Result<(), SessionError> {
    let clock = lane.link.welcome.clock;
    let message = v1::StillValid {
        point: None,
        valid_through: Some(convert::time_out(valid_through)),
        clock_offset_nanoseconds: clock.offset_nanoseconds,
        clock_uncertainty_nanoseconds: u64::try_from(clock.uncertainty.as_nanos()).unwrap_or(u64::MAX),
    };
    Ok(lane.link.send(Body::StillValid(message)).await?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Through,
    Stopped,
}

/// Waits for the next cycle; a stream that ends meanwhile, or a fence, is noticed at once.
async fn wait_until(lane: &mut Lane, when: Instant) -> Result<Waited, SessionError> {
    tokio::select! {
        () = lane.stop.cancelled() => Ok(Waited::Stopped),
        () = tokio::time::sleep_until(when) => Ok(Waited::Through),
        body = lane.link.receive() => Err(link::unexpected(&body?, "silence").into()),
    }
}

fn is_fenced(error: &SessionError) -> bool {
    match error {
        SessionError::Delivery(DeliveryError::Fenced(_)) => true,
        SessionError::Link(LinkError::Refused { reason, .. }) => *reason == v1::RefusalReason::Fenced,
        SessionError::Link(_)
        | SessionError::Source(_)
        | SessionError::Delivery(_)
        | SessionError::Machine(_) => false,
    }
}

fn pauses() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people: 53 bits are enough")]
fn bytes_as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;

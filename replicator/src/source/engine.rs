//! The life of one protected VM's replication: connect, scan if tracking is not good enough, then cycle after cycle.
//!
//! First run, retry and restart are one path: say hello, let the provider clean up by what the target holds, and go
//! on from there. Whatever fails ends the session with the capture settled; the next session begins after a pause.

mod cycles;
mod group;
mod joining;
mod scan;

use std::time::Duration;

use farshore_blocks::{Sequence, clock::WallTime};
use farshore_proto::v1::{self, source_message::Body, target_message};
use farshore_provider::{ReplicaState, ScanState, Source, SourceError, Tracking, TrackingIdentity};
use farshore_transfer::{HeldCycle, PointHead, Shares};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    application::ApplicationPoints,
    audit::Audit,
    comparison::Comparison,
    delivery::{DeliveryError, Lane, chain},
    gathering::Place,
    link::{self, Link, LinkError, OpenCycle},
    link_pace::LinkPaces,
    pace::Pace,
    packing::Packers,
    placed::PlacedSource,
    reach::Reach,
    state::{SourcePhase, SourceState, TrackingLost},
    tuning::Tuning,
    volumes::{ChainVolumes, OpenCycleFits},
    width::{self, Width},
};
use crate::{assignment::Assignment, metrics::Metrics, pauses::Pauses};

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
    pub(crate) source: PlacedSource<S>,
    pub(crate) reach: Reach,
    pub(crate) state: watch::Sender<SourceState>,
    pub(crate) metrics: Metrics,
    pub(crate) packers: Packers,
    pub(crate) links: LinkPaces,
    pub(crate) windows: Shares,
    pub(crate) stop: CancellationToken,
    pub(crate) audit: Audit,
    pub(crate) application_points: ApplicationPoints,
    /// Where its consistency group gathers, if it is in one.
    pub(crate) place: Option<Place>,
    /// Whom the audit asks; none before its first question.
    pub(crate) replica: Option<Comparison>,
    /// What the target acknowledged of the last scan: what came with its rounds is not tracked any more.
    pub(crate) scan_acknowledged: Option<HeldCycle>,
}

impl<S: Source> Engine<S> {
    /// Runs; gives the source back so that it can be detached.
    pub(crate) async fn run(mut self) -> (Ended, S) {
        let mut pauses = Pauses::between(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let began = Instant::now();
            let error = match self.session().await {
                Ok(()) => return (Ended::Stopped, self.source.into_inner()),
                Err(error) => error,
            };
            if matches!(error, SessionError::Delivery(DeliveryError::Stopped)) || self.stop.is_cancelled() {
                return (Ended::Stopped, self.source.into_inner());
            }
            let shown = chain(&error);
            if is_fenced(&error) {
                tracing::error!(vm = self.vm(), error = shown, "fenced: this source stops");
                self.show(|state| {
                    state.phase = SourcePhase::Fenced;
                    state.detail = shown;
                });
                return (Ended::Fenced, self.source.into_inner());
            }
            tracing::warn!(vm = self.vm(), error = shown, "replication was interrupted");
            self.show(|state| {
                state.phase = SourcePhase::Connecting;
                state.detail = shown;
            });
            if began.elapsed() > LONGEST_PAUSE {
                pauses.start_over();
            }
            let pause = pauses.next();
            tokio::select! {
                () = self.stop.cancelled() => return (Ended::Stopped, self.source.into_inner()),
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

    fn show_scan(&self, why: String, newest: Option<PointHead>) {
        tracing::info!(vm = self.vm(), why, "the disks are scanned");
        self.show(|state| {
            state.detail.clone_from(&why);
            if newest.is_some() {
                let at = WallTime::now();
                state.tracking_lost = Some(TrackingLost { at, why });
            }
        });
    }

    /// One stream's worth, or more while captures survive cuts.
    async fn session(&mut self) -> Result<(), SessionError> {
        let stop = self.stop.clone();
        let link = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            link = Link::open(&self.assignment, &self.reach) => link?,
        };
        let tuning = Tuning::new(link.welcome.clock.round_trip());
        let width = Width::new(width::MOST, link.welcome.clock.round_trip(), Instant::now());
        let welcome = link.welcome.clone();
        let volumes = ChainVolumes::of(&welcome, &self.assignment.volumes);
        self.source.place(volumes.of_disks());
        let fits = volumes.open_cycle_fits();
        let mut lane = Lane {
            assignment: self.assignment.clone(),
            volumes,
            link,
            reach: self.reach.clone(),
            pace: Pace::new(self.assignment.bandwidth),
            link_pace: self.assignment.link.as_ref().map(|limit| self.links.by(limit)),
            packers: self.packers.clone(),
            tuning,
            width,
            windows: self.windows.clone(),
            stop,
            metrics: self.metrics.clone(),
        };
        let open_scan = welcome
            .open
            .clone()
            .filter(|open| open.is_scan && follows(open, welcome.newest) && fits == OpenCycleFits::Yes)
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
            sizes: lane.volumes.sealed_sizes(),
            scan: if open_scan.is_some() {
                ScanState::Open
            } else {
                ScanState::None
            },
        };
        let next = replica.newest.next();
        self.show(|state| {
            state.newest = welcome.newest;
            state.volumes = lane.volumes.shown();
        });
        match self.source.attach(identity, replica).await? {
            Tracking::SincePoint => {
                abandon(&mut lane).await?;
                self.join(&mut lane).await?;
            }
            Tracking::SinceScan => self.scan(&mut lane, open_scan.as_ref()).await?,
            Tracking::Lost { why } => {
                self.show_scan(why, welcome.newest);
                abandon(&mut lane).await?;
                self.source.begin_scan(next).await?;
                self.scan(&mut lane, None).await?;
            }
        }
        self.cycles(&mut lane).await
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

#[cfg(test)]
mod tests;

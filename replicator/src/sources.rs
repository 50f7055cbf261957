//! The protected VMs that this replicator replicates: assigned, enabled, removed; each has an engine of its own.

mod any;
mod disks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::{ByteCount, ChainId};
use farshore_provider::{Check, CheckOutcome, MachineSpecification, Source, SourceError};
use farshore_provider_qemu::{GuestAgentConfig, WatchdogConfig};
use farshore_transfer::{Bounds, Shares};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    assignment::{
        self, Assignment, AssignmentFiles, Dialler, Membership, SourcePlace, SourcePolicy, Standing,
    },
    chain_files::ChainFileError,
    configuration::{Plaintext, is_loopback},
    metrics::Metrics,
    source::{
        ApplicationPoints, Audit, AuditFiles, Ended, Engine, GroupState, Groups, LinkPaces, Offers, Packers,
        PlacedSource, Reach, SourcePhase, SourceState,
    },
};
use any::{AnySource, Beside};

/// What is under way is kept in memory until it is acknowledged: this much of all VMs, and no less of each than two messages.
const WINDOWS: Bounds = Bounds {
    total: ByteCount(256 * 1024 * 1024),
    least: ByteCount(2 * 1024 * 1024),
    most: ByteCount(32 * 1024 * 1024),
};
/// The verb of the `farshore` binary that holds a guest frozen.
pub(crate) const FREEZER_VERB: &str = "hold-freeze";
/// The verb that watches over a stopped guest.
pub(crate) const WATCHDOG_VERB: &str = "watch-stop";

/// All sources of this replicator; cheap to clone.
#[derive(Clone)]
pub(crate) struct Sources {
    store: AssignmentFiles,
    audits: AuditFiles,
    /// The `farshore` binary, which is started again to hold a guest frozen.
    executable: PathBuf,
    scratch: PathBuf,
    plaintext: Plaintext,
    offers: Offers,
    metrics: Metrics,
    packers: Packers,
    links: LinkPaces,
    windows: Shares,
    groups: Groups,
    /// One change at a time: an engine is ended before its successor begins.
    seats: Arc<Mutex<BTreeMap<ChainId, Seat>>>,
}

struct Seat {
    assignment: Assignment,
    state: watch::Sender<SourceState>,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<AnySource>,
}

/// Why an operation on a source failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourcesError {
    #[error(transparent)]
    State(#[from] ChainFileError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("no chain {0} is assigned here")]
    NotAssigned(ChainId),
    #[error("chain {0} is fenced here: it can be removed, or installed again with a newer epoch")]
    Fenced(ChainId),
    #[error(
        "the target {0} is beyond loopback and traffic is not encrypted: say `insecure: true` in this \
         replicator's configuration if that is what you want"
    )]
    PlaintextBeyondLoopback(String),
    #[error("VM `{vm}` does not meet its prerequisites: {failed}")]
    Prerequisites { vm: String, failed: String },
    #[error("only the disks of VM `{vm}` can become others while it is protected")]
    OtherMachine { vm: String },
    #[error("the engine of VM `{vm}` ended unexpectedly")]
    EngineLost { vm: String },
}

/// What a look at a VM found.
pub(crate) struct Examined {
    pub(crate) checks: Vec<Check>,
    /// In the machine's order; `None` where a prerequisite in the way failed.
    pub(crate) sizes: Option<Vec<ByteCount>>,
}

/// What sources need of other replicators.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Whether they may be spoken to in the clear.
    pub(crate) plaintext: Plaintext,
    /// The connections of targets that dial.
    pub(crate) offers: Offers,
    /// Where members of groups meet.
    pub(crate) groups: Groups,
}

impl Sources {
    /// Takes up every assignment that is on disk.
    pub(crate) async fn open(
        state_directory: &Path,
        (scratch, executable): (PathBuf, PathBuf),
        peers: Peers,
        metrics: Metrics,
    ) -> Result<Self, SourcesError> {
        let Peers {
            plaintext,
            offers,
            groups,
        } = peers;
        let store = assignment::open(state_directory)?;
        let sources = Self {
            store,
            executable,
            audits: AuditFiles::open(state_directory.join("audits"))?,
            scratch,
            plaintext,
            offers,
            metrics,
            packers: Packers::new(),
            links: LinkPaces::default(),
            windows: Shares::within(WINDOWS),
            groups,
            seats: Arc::new(Mutex::new(BTreeMap::new())),
        };
        let mut seats = sources.seats.lock().await;
        for (chain, assignment) in sources.store.load()? {
            seats.insert(chain, sources.seat(assignment));
        }
        drop(seats);
        Ok(sources)
    }

    /// Looks at a VM that may become protected.
    pub(crate) async fn examine(
        &self,
        machine: &MachineSpecification,
        place: &SourcePlace,
        watchdog_monitor: Option<PathBuf>,
    ) -> Examined {
        let mut source = self.source(
            machine,
            place,
            Beside {
                guest_agent: None,
                watchdog: self.watchdog(watchdog_monitor),
            },
        );
        let checks = source.checks().await;
        let failed = checks.iter().any(|check| check.outcome == CheckOutcome::Failed);
        let sizes = if failed { None } else { source.sizes().await.ok() };
        Examined { checks, sizes }
    }

    /// Assigns a VM; again with the same words changes nothing, with a newer epoch it replaces what was there.
    pub(crate) async fn install(&self, assignment: Assignment) -> Result<(), SourcesError> {
        let endpoint = &assignment.target_endpoint;
        if self.plaintext == Plaintext::LoopbackOnly
            && assignment.dialler() == Dialler::Source
            && !is_loopback(endpoint)
        {
            return Err(SourcesError::PlaintextBeyondLoopback(endpoint.clone()));
        }
        let mut seats = self.seats.lock().await;
        if let Some(seat) = seats.get(&assignment.chain)
            && seat.assignment.epoch == assignment.epoch
        {
            return Ok(());
        }
        let membership = assignment.membership.as_ref();
        let watchdog = membership.and_then(|membership| membership.watchdog_monitor.clone());
        let examined = self
            .examine(&assignment.machine, &assignment.place, watchdog)
            .await;
        let failed: Vec<_> = examined
            .checks
            .iter()
            .filter(|check| check.outcome == CheckOutcome::Failed)
            .collect();
        if !failed.is_empty() {
            let failed = failed
                .iter()
                .map(|check| check.found.as_str())
                .collect::<Vec<_>>()
                .join("; ");
            return Err(SourcesError::Prerequisites {
                vm: assignment.machine.vm,
                failed,
            });
        }
        if let Some(mut old) = seats.remove(&assignment.chain) {
            self.end(&mut old).await?;
        }
        self.store.keep(assignment.chain, &assignment)?;
        seats.insert(assignment.chain, self.seat(assignment));
        Ok(())
    }

    /// Lets replication run.
    pub(crate) async fn enable(&self, chain: ChainId) -> Result<(), SourcesError> {
        let mut seats = self.seats.lock().await;
        let seat = seats.get_mut(&chain).ok_or(SourcesError::NotAssigned(chain))?;
        match seat.assignment.standing {
            // A removal that failed has ended its engine.
            Standing::Enabled if seat.running.is_none() => {
                self.start(seat);
                return Ok(());
            }
            Standing::Enabled => return Ok(()),
            Standing::Fenced => return Err(SourcesError::Fenced(chain)),
            Standing::Installed => {}
        }
        seat.assignment.standing = Standing::Enabled;
        self.store.keep(chain, &seat.assignment)?;
        self.start(seat);
        Ok(())
    }

    /// Lets a source go on by another policy, or with another group, from its next cycle on. The engine is ended and begins anew: a cycle that is under
    /// way is settled as by any restart.
    pub(crate) async fn set_policy(
        &self,
        chain: ChainId,
        policy: SourcePolicy,
        membership: Option<Membership>,
    ) -> Result<(), SourcesError> {
        let mut seats = self.seats.lock().await;
        let seat = seats.get_mut(&chain).ok_or(SourcesError::NotAssigned(chain))?;
        if seat.assignment.policy() == policy && seat.assignment.membership == membership {
            return Ok(());
        }
        let other_group = match (&seat.assignment.membership, &membership) {
            (Some(before), Some(after)) => !before.is_same_but_led(after),
            (before, after) => before != after,
        };
        if let Some(membership) = &membership {
            self.groups.led_as(membership);
        }
        let changed = Assignment {
            membership,
            ..seat.assignment.clone().by(policy)
        };
        self.store.keep(chain, &changed)?;
        let before = std::mem::replace(&mut seat.assignment, changed);
        if let Some(limit) = &seat.assignment.link {
            self.links.by(limit);
        }
        let goes_on = !other_group
            && (before.policy() == seat.assignment.policy()
                || differ_in_their_links_limit(&before, &seat.assignment));
        if seat.running.is_none() || goes_on {
            return Ok(());
        }
        if let Err(error) = self.end(seat).await {
            tracing::warn!(%error, "an engine did not end cleanly and begins anew");
        }
        if other_group {
            // What became of instants with another group is no news of this one.
            seat.state
                .send_modify(|state| state.group = GroupState::default());
        }
        self.begin_anew(seat)
    }

    /// Lets an engine that was ended begin again with what is assigned now, unless it was fenced meanwhile.
    fn begin_anew(&self, seat: &mut Seat) -> Result<(), SourcesError> {
        if seat.state.borrow().phase == SourcePhase::Fenced {
            // Its engine wrote that down, but with what was assigned before.
            seat.assignment.standing = Standing::Fenced;
            return Ok(self.store.keep(seat.assignment.chain, &seat.assignment)?);
        }
        self.start(seat);
        Ok(())
    }

    /// Ends replication, takes everything away that was put beside the VM, and forgets it.
    pub(crate) async fn remove(&self, chain: ChainId) -> Result<(), SourcesError> {
        let mut seats = self.seats.lock().await;
        let Some(seat) = seats.get_mut(&chain) else {
            return Ok(());
        };
        let vm = seat.assignment.machine.vm.clone();
        let mut source = match self.end(seat).await? {
            Some(source) => source,
            None => self.source_of(&seat.assignment),
        };
        // Should the rest fail: nothing replicates any more, and nothing else may be told.
        seat.state.send_if_modified(|state| {
            let replicated = state.phase != SourcePhase::Fenced;
            if replicated {
                state.phase = SourcePhase::Installed;
            }
            replicated
        });
        source.detach().await?;
        self.store.forget(chain)?;
        self.audits.forget(chain)?;
        self.metrics.forget(&vm);
        self.offers.forget(chain);
        seats.remove(&chain);
        Ok(())
    }

    /// What every source shows now.
    pub(crate) async fn states(&self) -> Vec<(Assignment, SourceState)> {
        let seats = self.seats.lock().await;
        seats
            .values()
            .map(|seat| (seat.assignment.clone(), seat.state.borrow().clone()))
            .collect()
    }

    /// Ends every engine with its capture settled; assignments stay.
    pub(crate) async fn shut_down(&self) {
        let mut seats = self.seats.lock().await;
        for seat in seats.values_mut() {
            if let Err(error) = self.end(seat).await {
                tracing::warn!(%error, "an engine did not end cleanly");
            }
        }
    }

    fn seat(&self, assignment: Assignment) -> Seat {
        match assignment.dialler() {
            Dialler::Source => self.offers.forget(assignment.chain),
            Dialler::Target => self.offers.expect(assignment.chain, assignment.epoch),
        }
        let phase = match assignment.standing {
            Standing::Installed => SourcePhase::Installed,
            Standing::Enabled => SourcePhase::Connecting,
            Standing::Fenced => SourcePhase::Fenced,
        };
        let mut shown = SourceState::new(phase);
        if phase == SourcePhase::Fenced {
            shown.detail = format!("the target refused epoch {} for good", assignment.epoch);
        }
        let (state, _) = watch::channel(shown);
        let mut seat = Seat {
            assignment,
            state,
            running: None,
        };
        if seat.assignment.standing == Standing::Enabled {
            self.start(&mut seat);
        }
        seat
    }

    fn start(&self, seat: &mut Seat) {
        let stop = CancellationToken::new();
        let assignment = seat.assignment.clone();
        let membership = assignment.membership.as_ref().filter(|group| group.has_others());
        let place = membership.map(|membership| self.groups.place(membership, &assignment.machine.vm));
        let engine = Engine {
            source: PlacedSource::new(self.source_of(&assignment)),
            reach: Reach::of(&assignment, &self.offers),
            assignment: assignment.clone(),
            state: seat.state.clone(),
            metrics: self.metrics.clone(),
            packers: self.packers.clone(),
            links: self.links.clone(),
            windows: self.windows.clone(),
            stop: stop.clone(),
            audit: Audit::going_on(assignment.audit_rate, &self.audits, assignment.chain),
            application_points: ApplicationPoints::new(assignment.app_consistency),
            place,
            replica: None,
            scan_acknowledged: None,
        };
        let store = self.store.clone();
        let task = tokio::spawn(async move {
            let (ended, source) = Box::pin(engine.run()).await;
            if ended == Ended::Fenced {
                let fenced = Assignment {
                    standing: Standing::Fenced,
                    ..assignment
                };
                // Not remembering it costs one more refusal after the next start, nothing else.
                if let Err(error) = store.keep(fenced.chain, &fenced) {
                    tracing::error!(%error, "that this source is fenced could not be written down");
                }
            }
            source
        });
        seat.running = Some(Running { stop, task });
    }

    async fn end(&self, seat: &mut Seat) -> Result<Option<AnySource>, SourcesError> {
        let Some(running) = seat.running.take() else {
            return Ok(None);
        };
        running.stop.cancel();
        let vm = seat.assignment.machine.vm.clone();
        running
            .task
            .await
            .map(Some)
            .map_err(|_| SourcesError::EngineLost { vm })
    }

    fn source_of(&self, assignment: &Assignment) -> AnySource {
        let wanted = assignment.app_consistency.zip(assignment.guest_agent.clone());
        let agent = wanted.map(|(wanted, channel)| GuestAgentConfig {
            channel,
            freezer: self.executable.clone(),
            leading_arguments: vec![FREEZER_VERB.into()],
            limit: wanted.freeze_limit,
        });
        let membership = assignment.membership.as_ref();
        let monitor = membership.and_then(|membership| membership.watchdog_monitor.clone());
        let beside = Beside {
            guest_agent: agent,
            watchdog: self.watchdog(monitor),
        };
        self.source(&assignment.machine, &assignment.place, beside)
    }

    fn watchdog(&self, monitor: Option<PathBuf>) -> Option<WatchdogConfig> {
        monitor.map(|monitor| WatchdogConfig {
            monitor,
            program: self.executable.clone(),
            leading_arguments: vec![WATCHDOG_VERB.into()],
        })
    }

    fn source(&self, machine: &MachineSpecification, place: &SourcePlace, beside: Beside) -> AnySource {
        AnySource::at(place, machine, &self.scratch.join(&machine.vm), beside)
    }
}

/// Whether one differs from the other only by how much of the same link may be taken: who runs learns that from the link's pace.
fn differ_in_their_links_limit(one: &Assignment, other: &Assignment) -> bool {
    let end = |assignment: &Assignment| assignment.link.as_ref().map(|limit| limit.to.clone());
    let without = |assignment: &Assignment| SourcePolicy {
        link: None,
        ..assignment.policy()
    };
    end(one).is_some() && end(one) == end(other) && without(one) == without(other)
}

#[cfg(test)]
mod tests;

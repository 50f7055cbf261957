//! Carries out the steps: each is a few commands to replicators, or a look at what they report.
//!
//! A command's identifier is made of the job, the step, the part of the step, the round of retries by a user
//! and the number of failures that were answered. So an attempt whose outcome is unknown sends the same
//! command again, and an attempt after an answered failure a new one.

mod disable;
mod enable;
mod failover;
mod test;

use std::time::Duration;

use farshore_blocks::{ChainId, Epoch, HolderNonce, Sequence, clock::WallTime};
use farshore_domain::{
    declaration::ProtectedVm,
    job::{Job, JobKind, StepKind, Undo},
    point_choice::{Candidate, Consistency, PointChoice},
};
use farshore_proto::v1::{self, command, command_result::Outcome};

pub(crate) use enable::sight;

use super::{Engine, bookkeeping::Facts};
use crate::{
    fleet::{self, FleetError},
    records::{self, Started, TestRecord, VmRecord},
    replicators::{self, Duty, Order},
    store::StoreError,
};

/// For commands that look or note something down.
const SHORT: Duration = Duration::from_secs(30);
/// For commands that start or stop processes.
const LONG: Duration = Duration::from_secs(120);

/// What a step achieved.
pub(super) struct Achieved {
    pub(super) facts: Facts,
    /// For people.
    pub(super) detail: String,
}

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may pass, or its outcome is unknown.
    TryAgain { reason: String, answered: bool },
    /// Only a person can change it. What was found is kept nevertheless.
    GiveUp { reason: String, facts: Option<Facts> },
    /// The store cannot be used.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<FleetError> for Trouble {
    fn from(error: FleetError) -> Self {
        match &error {
            FleetError::Ambiguous { .. } => Self::give_up(error.to_string()),
            FleetError::Unreachable { .. }
            | FleetError::NamedUnreachable { .. }
            | FleetError::NoAnswer { .. }
            | FleetError::InFlight { .. }
            | FleetError::Closing => Self::TryAgain {
                reason: error.to_string(),
                answered: false,
            },
            FleetError::WrongAnswer { .. } => Self::TryAgain {
                reason: error.to_string(),
                answered: true,
            },
        }
    }
}

impl Achieved {
    fn nothing_to_keep(detail: impl Into<String>) -> Self {
        Self::found(Facts::Nothing, detail)
    }

    fn found(facts: Facts, detail: impl Into<String>) -> Self {
        Self {
            facts,
            detail: detail.into(),
        }
    }
}

impl Trouble {
    fn give_up(reason: impl Into<String>) -> Self {
        Self::GiveUp {
            reason: reason.into(),
            facts: None,
        }
    }
}

/// A step of a job: what its commands are named after.
#[derive(Clone, Copy)]
struct Place<'a> {
    job: &'a Job,
    index: usize,
}

impl Place<'_> {
    fn command_id(self, part: &str) -> String {
        let refusals = self.job.steps.get(self.index).map_or(0, |step| step.refusals);
        format!(
            "{}/{}/{part}-{}.{refusals}",
            self.job.id, self.index, self.job.round
        )
    }
}

impl Engine {
    /// Carries a step out.
    pub(super) async fn act(&self, job: &Job, index: usize, kind: StepKind) -> Result<Achieved, Trouble> {
        let place = Place { job, index };
        match kind {
            StepKind::CheckPrerequisites => self.check_prerequisites(place).await,
            StepKind::InstallAndPrepare => self.install_and_prepare(place).await,
            StepKind::EnableReplication => self.enable_replication(place).await,
            StepKind::StartInitialReplication => self.await_initial_replication(place).await,
            StepKind::UpdateProviderStates => self.update_provider_states(place),
            StepKind::ChoosePoint => self.choose_point(place).await,
            StepKind::StartTestVm => self.start_test_vm(place).await,
            StepKind::CheckIsolation => self.check_isolation(place),
            StepKind::RemoveTestVm => self.remove_test_vm(place).await,
            StepKind::CheckLeaks => self.check_leaks(place),
            StepKind::FenceSource => self.fence_source(place).await,
            StepKind::StartRecoveredVm => self.start_recovered_vm(place).await,
            StepKind::RemoveMobility => self.remove_mobility(place).await,
        }
    }

    /// Takes a step's effect back.
    pub(super) async fn undo(&self, job: &Job, index: usize, kind: StepKind) -> Result<(), Trouble> {
        let place = Place { job, index };
        match kind.undo() {
            Undo::Nothing => Ok(()),
            Undo::RemoveSource => self.remove_source(place, "undo").await,
            Undo::DiscardRecovery => self.discard_recovery(place, "undo").await.map(|_leaks| ()),
        }
    }

    fn update_provider_states(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        match place.job.kind {
            JobKind::EnableProtection => self.see_source(place),
            // What these change is written with the end of the job.
            JobKind::DisableProtection
            | JobKind::UnplannedFailover
            | JobKind::TestFailover
            | JobKind::TestFailoverCleanup => Ok(Achieved::nothing_to_keep("")),
        }
    }

    async fn choose_point(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let (site, chain, choice) = match place.job.kind {
            JobKind::TestFailover | JobKind::TestFailoverCleanup => {
                let test = self.test(place.job)?;
                (test.site, test.chain, test.choice)
            }
            JobKind::UnplannedFailover | JobKind::EnableProtection | JobKind::DisableProtection => {
                let vm = self.vm(place.job)?;
                let recovery = vm
                    .recovery
                    .ok_or_else(|| Trouble::give_up("no failover was ordered"))?;
                let site = self.declared(place.job)?.target().site.to_string();
                (site, vm.chain, recovery.choice)
            }
        };
        let body = command::Body::ListPoints(list_points(chain));
        let outcome = self
            .command_vault(place, "list-points", (&site, body), SHORT)
            .await?;
        let Outcome::PointsListed(listed) = outcome else {
            return Err(unexpected(&outcome));
        };
        let sequence = choose(choice, &listed.points).map_err(Trouble::give_up)?;
        Ok(Achieved::found(
            Facts::PointChosen(sequence),
            format!("point {sequence}"),
        ))
    }

    /// Orders something of the replicator that has the vault of a site.
    async fn command_vault(
        &self,
        place: Place<'_>,
        part: &str,
        (site, body): (&str, command::Body),
        deadline: Duration,
    ) -> Result<Outcome, Trouble> {
        self.command(place, part, (site, Duty::Vault, body), deadline)
            .await
    }

    /// Orders something of the replicator of the source of a VM.
    async fn command_source(
        &self,
        place: Place<'_>,
        part: &str,
        declared: &ProtectedVm,
        body: command::Body,
    ) -> Result<Outcome, Trouble> {
        let site = declared.source().site.as_str();
        let duty = Duty::Source(self.source_replicator(place, declared)?);
        self.command(place, part, (site, duty, body), SHORT).await
    }

    /// Whose VM it is, or would be if all replicators are now as they will be: absent while several could be meant.
    fn source_replicator(&self, place: Place<'_>, declared: &ProtectedVm) -> Result<Option<String>, Trouble> {
        let vm = self.vm(place.job)?;
        let view = self.replicators.reports().borrow().clone();
        Ok(replicators::source_replicator(&view, declared, &vm))
    }

    async fn command(
        &self,
        place: Place<'_>,
        part: &str,
        (site, duty, body): (&str, Duty, command::Body),
        deadline: Duration,
    ) -> Result<Outcome, Trouble> {
        let order = Order {
            site: site.to_owned(),
            duty,
            id: place.command_id(part),
            body,
            deadline,
        };
        let outcome = self.replicators.command(order).await?;
        let Outcome::Failure(failure) = outcome else {
            return Ok(outcome);
        };
        let reason = format!("{} ({})", failure.message, failure.reason);
        match failure.retryable {
            true => Err(Trouble::TryAgain {
                reason,
                answered: true,
            }),
            false => Err(Trouble::give_up(reason)),
        }
    }

    fn vm(&self, job: &Job) -> Result<VmRecord, Trouble> {
        let found = records::read::<VmRecord>(&*self.store, &job.vm)?;
        found.ok_or_else(|| Trouble::give_up(format!("the VM {} is not protected any more", job.vm)))
    }

    fn declared(&self, job: &Job) -> Result<ProtectedVm, Trouble> {
        let found = records::declared_vm(&*self.store, &job.vm)?;
        found.ok_or_else(|| Trouble::give_up(format!("the VM {} is not declared any more", job.vm)))
    }

    fn test(&self, job: &Job) -> Result<TestRecord, Trouble> {
        let name = job.test.clone().unwrap_or_default();
        let found = records::read::<TestRecord>(&*self.store, &name)?;
        found.ok_or_else(|| Trouble::give_up(format!("there is no test failover {name}")))
    }
}

fn unexpected(outcome: &Outcome) -> Trouble {
    Trouble::TryAgain {
        reason: format!("the replicator answered something else: {outcome:?}"),
        answered: true,
    }
}

pub(crate) fn list_points(chain: ChainId) -> v1::ListPoints {
    v1::ListPoints {
        chain: chain.as_bytes().to_vec().into(),
        limit: 0,
    }
}

/// The point that a user means, of those that a vault has.
pub(crate) fn choose(choice: PointChoice, points: &[v1::RecoveryPoint]) -> Result<Sequence, String> {
    let candidates: Vec<Candidate> = points
        .iter()
        .map(|point| Candidate {
            sequence: Sequence(point.sequence),
            captured_at: point
                .captured_at
                .as_ref()
                .and_then(fleet::wall_time)
                .unwrap_or(WallTime(u64::MAX)),
            consistency: match point.kind() {
                v1::PointKind::AppConsistent => Consistency::Application,
                v1::PointKind::CrashConsistent | v1::PointKind::Unspecified => Consistency::Crash,
            },
        })
        .collect();
    choice.choose(&candidates).map_err(|none| none.to_string())
}

fn epoch_to_wire(epoch: Epoch) -> v1::Epoch {
    v1::Epoch {
        number: epoch.number,
        holder: epoch.holder.as_bytes().to_vec().into(),
    }
}

fn epoch_from_wire(epoch: Option<&v1::Epoch>) -> Result<Epoch, Trouble> {
    let malformed = || Trouble::give_up("the target granted no valid epoch");
    let epoch = epoch.ok_or_else(malformed)?;
    let holder = HolderNonce::try_from(epoch.holder.as_ref()).map_err(|_| malformed())?;
    Ok(Epoch {
        number: epoch.number,
        holder,
    })
}

fn started_from_wire(started: &v1::RecoveryStarted) -> Started {
    let order_to_running = started.order_to_running.as_ref();
    Started {
        pid: started.pid,
        monitor: started.monitor.clone(),
        namespace: started.namespace.clone(),
        ways_out: started.ways_out.clone(),
        order_to_running: order_to_running.and_then(fleet::duration).unwrap_or_default(),
    }
}

//! Decides how the records of VMs and tests follow their jobs: when a step begins, when it has found something,
//! and when the job has ended.

use farshore_blocks::{Epoch, Sequence, clock::WallTime};
use farshore_domain::{
    declaration::Kind,
    failover,
    job::{Job, JobKind, JobState, StepKind},
    protection, test_failover,
};

use crate::{
    records::{
        self, CheckRecord, EventRecord, LeakRecord, Severity, Started, Tenure, TestRecord, VmRecord,
        VolumeRecord, Work,
    },
    store::StoreError,
};

/// What a step has found, to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Facts {
    /// Nothing that is kept.
    Nothing,
    /// The prerequisites.
    Checked {
        checks: Vec<CheckRecord>,
        volumes: Vec<VolumeRecord>,
    },
    /// The target granted an epoch to the source.
    Granted {
        tenure: Tenure,
        source_replicator: Option<String>,
    },
    /// The source's replicator reports this.
    Seen(protection::Sight),
    /// The old source is refused from this epoch on.
    Fenced(Epoch),
    /// The point to recover from.
    PointChosen(Sequence),
    /// The recovered VM runs.
    Started(Started),
    /// What a cleanup left behind.
    Leaks(Vec<LeakRecord>),
}

/// Why records cannot follow.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The store cannot be used.
    Store(StoreError),
    /// The VM or test is not in a state for it.
    State(String),
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A step begins.
pub(super) fn at_begin(work: &mut Work<'_>, job: &Job, step: StepKind, now: WallTime) -> Result<(), Unfit> {
    let event = match (job.kind, step) {
        (JobKind::EnableProtection, StepKind::CheckPrerequisites) => protection::Event::BeginChecking,
        (JobKind::EnableProtection, StepKind::InstallAndPrepare) => protection::Event::BeginInstalling,
        (JobKind::EnableProtection, StepKind::EnableReplication) => protection::Event::BeginEnabling,
        (JobKind::DisableProtection, StepKind::RemoveMobility) => protection::Event::Disable,
        (
            JobKind::EnableProtection
            | JobKind::DisableProtection
            | JobKind::TestFailover
            | JobKind::TestFailoverCleanup
            | JobKind::UnplannedFailover,
            _,
        ) => return Ok(()),
    };
    let mut vm = vm_of(work, job)?;
    if vm.latest_job != job.id {
        return Err(Unfit::State(
            "a later order for this VM took its place".to_owned(),
        ));
    }
    protect(work, &mut vm, event, now)?;
    work.put(&vm)?;
    Ok(())
}

/// A step has found something.
pub(super) fn take_in(work: &mut Work<'_>, job: &Job, facts: &Facts, now: WallTime) -> Result<(), Unfit> {
    if *facts == Facts::Nothing {
        return Ok(());
    }
    if let Some(name) = &job.test {
        let mut test = test_of(work, name)?;
        follow_test(&mut test, facts);
        work.put(&test)?;
        return Ok(());
    }
    let mut vm = vm_of(work, job)?;
    match facts {
        Facts::Nothing | Facts::Leaks(_) => {}
        Facts::Checked { checks, volumes } => {
            vm.checks.clone_from(checks);
            vm.volumes.clone_from(volumes);
        }
        Facts::Granted {
            tenure,
            source_replicator,
        } => {
            protect(work, &mut vm, protection::Event::BeginPreparing, now)?;
            vm.tenure = Some(*tenure);
            vm.source_replicator.clone_from(source_replicator);
        }
        Facts::Seen(sight) => protect(work, &mut vm, protection::Event::See(sight.clone()), now)?,
        Facts::Fenced(epoch) => {
            if let Some(recovery) = &mut vm.recovery {
                recovery.epoch = Some(*epoch);
            }
        }
        Facts::PointChosen(sequence) => {
            if let Some(recovery) = &mut vm.recovery {
                recovery.point = Some(*sequence);
            }
        }
        Facts::Started(started) => {
            if let Some(recovery) = &mut vm.recovery {
                recovery.started = Some(started.clone());
            }
        }
    }
    work.put(&vm)?;
    Ok(())
}

fn follow_test(test: &mut TestRecord, facts: &Facts) {
    match facts {
        Facts::PointChosen(sequence) => test.point = Some(*sequence),
        Facts::Started(started) => test.started = Some(started.clone()),
        Facts::Leaks(leaks) => test.leaks.clone_from(leaks),
        Facts::Nothing
        | Facts::Checked { .. }
        | Facts::Granted { .. }
        | Facts::Seen(_)
        | Facts::Fenced(_) => {}
    }
}

/// A job has ended. A record that does not fit any more (a later order took over) is left as it is.
pub(super) fn at_end(work: &mut Work<'_>, job: &Job, now: WallTime) -> Result<(), StoreError> {
    tell_end(work, job, now)?;
    let followed = match job.kind {
        JobKind::EnableProtection => end_of_enable(work, job, now),
        JobKind::DisableProtection => end_of_disable(work, job, now),
        JobKind::TestFailover => {
            end_of_test_job(work, job, now, test_failover::Event::Started, "the test failover")
        }
        JobKind::TestFailoverCleanup => {
            end_of_test_job(work, job, now, test_failover::Event::Cleaned, "the cleanup")
        }
        JobKind::UnplannedFailover => end_of_failover(work, job, now),
    };
    match followed {
        Ok(()) => Ok(()),
        Err(Unfit::Store(error)) => Err(error),
        Err(Unfit::State(reason)) => {
            tracing::debug!(job = %job.id, %reason, "a record does not follow the end of this job");
            Ok(())
        }
    }
}

fn tell_end(work: &mut Work<'_>, job: &Job, now: WallTime) -> Result<(), StoreError> {
    let (severity, code, message) = match &job.state {
        JobState::Failed { reason } => (
            Severity::Critical,
            "job-failed",
            format!("the job {} ({}) failed: {reason}", job.id, job.kind.name()),
        ),
        JobState::Cancelled { reason } => (
            Severity::Warning,
            "job-cancelled",
            format!("the job {} ({}) was cancelled: {reason}", job.id, job.kind.name()),
        ),
        JobState::Succeeded => (
            Severity::Information,
            "job-succeeded",
            format!("the job {} ({}) is done", job.id, job.kind.name()),
        ),
        JobState::Queued | JobState::Running | JobState::Unwinding { .. } => return Ok(()),
    };
    work.tell(&EventRecord::new(severity, code, message, &job.subject(), now))
}

fn end_of_enable(work: &mut Work<'_>, job: &Job, now: WallTime) -> Result<(), Unfit> {
    let Some(reason) = failure(job) else { return Ok(()) };
    let mut vm = vm_of(work, job)?;
    if vm.latest_job == job.id {
        protect(work, &mut vm, protection::Event::Fail { reason }, now)?;
        work.put(&vm)?;
    }
    Ok(())
}

fn end_of_disable(work: &mut Work<'_>, job: &Job, now: WallTime) -> Result<(), Unfit> {
    let mut vm = vm_of(work, job)?;
    if vm.latest_job != job.id {
        return Ok(());
    }
    if let Some(reason) = failure(job) {
        protect(work, &mut vm, protection::Event::Fail { reason }, now)?;
        work.put(&vm)?;
        return Ok(());
    }
    let message = format!(
        "protection was removed; its chain {} stays in the vault",
        vm.chain
    );
    let event = EventRecord::new(Severity::Information, "disabled", message, &vm.subject(), now);
    work.tell(&event)?;
    work.remove::<VmRecord>(&vm.name);
    records::undeclare(work, Kind::ProtectedVm, &vm.name)?;
    Ok(())
}

fn end_of_test_job(
    work: &mut Work<'_>,
    job: &Job,
    now: WallTime,
    success: test_failover::Event,
    what: &str,
) -> Result<(), Unfit> {
    let name = job.test.clone().unwrap_or_default();
    let mut test = test_of(work, &name)?;
    if test.job != job.id {
        return Ok(());
    }
    let event = match failure(job) {
        Some(reason) => test_failover::Event::Fail {
            reason: format!("{what}: {reason}"),
        },
        None => success,
    };
    let (state, effects) =
        test_failover::step(&test.state, event).map_err(|refused| Unfit::State(refused.to_string()))?;
    match state {
        test_failover::TestFailover::Running => test.succeeded_at = Some(now),
        test_failover::TestFailover::Cleaned => test.ended_at = Some(now),
        test_failover::TestFailover::Starting
        | test_failover::TestFailover::CleaningUp
        | test_failover::TestFailover::Failed { .. } => {}
    }
    test.state = state;
    for effect in &effects {
        work.tell(&EventRecord::of_test(effect, &test.subject(), now))?;
    }
    work.put(&test)?;
    Ok(())
}

fn end_of_failover(work: &mut Work<'_>, job: &Job, now: WallTime) -> Result<(), Unfit> {
    let mut vm = vm_of(work, job)?;
    if vm.recovery.as_ref().map(|recovery| &recovery.job) != Some(&job.id) {
        return Ok(());
    }
    let event = match &job.state {
        JobState::Cancelled { .. } => failover::Event::Cancel,
        JobState::Succeeded => failover::Event::Recovered,
        JobState::Failed { reason } => failover::Event::Fail {
            reason: reason.clone(),
        },
        JobState::Queued | JobState::Running | JobState::Unwinding { .. } => return Ok(()),
    };
    let (state, effects) =
        failover::step(&vm.failover, event).map_err(|refused| Unfit::State(refused.to_string()))?;
    vm.failover = state;
    for effect in &effects {
        work.tell(&EventRecord::of_failover(effect, &vm.subject(), now))?;
    }
    work.put(&vm)?;
    Ok(())
}

fn failure(job: &Job) -> Option<String> {
    match &job.state {
        JobState::Failed { reason } => Some(reason.clone()),
        JobState::Cancelled { reason } => Some(format!("cancelled: {reason}")),
        JobState::Queued | JobState::Running | JobState::Unwinding { .. } | JobState::Succeeded => None,
    }
}

fn protect(
    work: &mut Work<'_>,
    vm: &mut VmRecord,
    event: protection::Event,
    now: WallTime,
) -> Result<(), Unfit> {
    let effects = vm
        .protect(event)
        .map_err(|refused| Unfit::State(refused.to_string()))?;
    for effect in &effects {
        work.tell(&EventRecord::of_protection(effect, &vm.subject(), now))?;
    }
    Ok(())
}

fn vm_of(work: &mut Work<'_>, job: &Job) -> Result<VmRecord, Unfit> {
    let found = work.get::<VmRecord>(&job.vm)?;
    found.ok_or_else(|| Unfit::State(format!("the VM {} is not protected any more", job.vm)))
}

fn test_of(work: &mut Work<'_>, name: &str) -> Result<TestRecord, Unfit> {
    let found = work.get::<TestRecord>(name)?;
    found.ok_or_else(|| Unfit::State(format!("there is no test failover {name}")))
}

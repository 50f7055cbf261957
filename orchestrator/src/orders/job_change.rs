//! Decides what retrying or cancelling a job does.

use farshore_blocks::clock::WallTime;
use farshore_domain::{
    failover,
    job::{Job, JobKind},
    protection, test_failover,
};

use super::{Refusal, test::protected_vm};
use crate::records::{EventRecord, TestRecord, Work};

/// Puts a failed job back into its lane.
///
/// # Errors
/// When it does not exist, did not fail, or a later order took its place.
pub fn retry(work: &mut Work<'_>, id: &str, now: WallTime) -> Result<(), Refusal> {
    let mut job = find(work, id)?;
    job.retry().map_err(|reason| Refusal::NotRetryable {
        job: id.to_owned(),
        reason,
    })?;
    match job.kind {
        JobKind::EnableProtection => {
            let vm = protected_vm(work, &job.vm)?;
            if vm.latest_job != job.id || vm.failover != failover::Failover::None {
                return Err(superseded(id));
            }
        }
        JobKind::DisableProtection => {
            let mut vm = protected_vm(work, &job.vm)?;
            if vm.latest_job != job.id {
                return Err(superseded(id));
            }
            vm.protect(protection::Event::Disable)?;
            work.put(&vm)?;
        }
        JobKind::TestFailover => retry_test(work, &job, &test_failover::Event::Start)?,
        JobKind::TestFailoverCleanup => retry_test(work, &job, &test_failover::Event::CleanUp)?,
        JobKind::UnplannedFailover => {
            let mut vm = protected_vm(work, &job.vm)?;
            if vm.recovery.as_ref().map(|recovery| &recovery.job) != Some(&job.id) {
                return Err(superseded(id));
            }
            let (state, effects) = failover::step(&vm.failover, failover::Event::Order)?;
            vm.failover = state;
            for effect in &effects {
                work.tell(&EventRecord::of_failover(effect, &vm.subject(), now))?;
            }
            work.put(&vm)?;
        }
    }
    work.put(&job)?;
    Ok(())
}

/// Asks a job to stop and undo what it did.
///
/// # Errors
/// When it does not exist, has ended, or is past its point of no return.
pub fn cancel(work: &mut Work<'_>, id: &str) -> Result<(), Refusal> {
    let mut job = find(work, id)?;
    job.request_cancellation("a user asked for it")
        .map_err(|reason| Refusal::NotCancellable {
            job: id.to_owned(),
            reason,
        })?;
    work.put(&job)?;
    Ok(())
}

fn retry_test(work: &mut Work<'_>, job: &Job, event: &test_failover::Event) -> Result<(), Refusal> {
    let name = job.test.clone().unwrap_or_default();
    let mut test = work.get::<TestRecord>(&name)?.ok_or(Refusal::NotFound {
        what: "test failover",
        name,
    })?;
    if test.job != job.id {
        return Err(superseded(&job.id.0));
    }
    test.state = test_failover::step(&test.state, event.clone())?.0;
    work.put(&test)?;
    Ok(())
}

fn superseded(id: &str) -> Refusal {
    Refusal::Superseded { job: id.to_owned() }
}

fn find(work: &mut Work<'_>, id: &str) -> Result<Job, Refusal> {
    work.get::<Job>(id)?.ok_or_else(|| Refusal::NotFound {
        what: "job",
        name: id.to_owned(),
    })
}

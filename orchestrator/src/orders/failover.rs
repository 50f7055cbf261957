//! Decides what ordering an unplanned failover does: it stops everything of the VM that can still be stopped.

use farshore_blocks::clock::WallTime;
use farshore_domain::{
    allowed_operations::Operation,
    failover,
    job::{Job, JobId, JobKind, preempted_by},
    point_choice::PointChoice,
};

use super::{
    Fresh, Refusal,
    test::{check_allowed, protected_vm},
};
use crate::records::{EventRecord, Recovery, Work};

/// Plans an unplanned failover and stops what is in its way.
///
/// # Errors
/// When the VM does not exist or its state does not allow it.
pub fn start_unplanned(
    work: &mut Work<'_>,
    vm: &str,
    choice: PointChoice,
    fresh: &Fresh,
    now: WallTime,
) -> Result<JobId, Refusal> {
    let mut vm = protected_vm(work, vm)?;
    check_allowed(&vm, Operation::UnplannedFailover)?;
    let (state, effects) = failover::step(&vm.failover, failover::Event::Order)?;
    vm.failover = state;
    for effect in &effects {
        work.tell(&EventRecord::of_failover(effect, &vm.subject(), now))?;
    }
    vm.failovers = vm.failovers.saturating_add(1);
    vm.recovery = Some(Recovery {
        id: format!("{}-f{}", vm.name, vm.failovers),
        job: fresh.job.clone(),
        holder: fresh.holder,
        choice,
        epoch: None,
        point: None,
        started: None,
    });
    preempt(work, &vm.name)?;
    let job = Job::plan(fresh.job.clone(), JobKind::UnplannedFailover, &vm.name, None, now);
    work.put(&job)?;
    work.put(&vm)?;
    Ok(job.id)
}

fn preempt(work: &mut Work<'_>, vm: &str) -> Result<(), Refusal> {
    let jobs = work.list::<Job>()?;
    for id in preempted_by(vm, &jobs) {
        if let Some(mut job) = work.get::<Job>(&id.0)?
            && job
                .request_cancellation("an unplanned failover took its place")
                .is_ok()
        {
            work.put(&job)?;
        }
    }
    Ok(())
}

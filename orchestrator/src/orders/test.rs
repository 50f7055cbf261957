//! Decides what ordering a test failover, or its cleanup, does.

use farshore_blocks::clock::WallTime;
use farshore_domain::{
    allowed_operations::{Operation, Points, allowed_operations, is_allowed},
    job::{Job, JobKind},
    point_choice::PointChoice,
    test_failover::{self, TestFailover},
};

use super::{Fresh, Refusal};
use crate::records::{Leftovers, TestRecord, VmRecord, Work};

/// Plans a test failover. Its name.
///
/// # Errors
/// When the VM does not exist or its state does not allow it.
pub fn start_test(
    work: &mut Work<'_>,
    vm: &str,
    choice: PointChoice,
    fresh: &Fresh,
    now: WallTime,
) -> Result<String, Refusal> {
    let mut vm = protected_vm(work, vm)?;
    check_allowed(&vm, Operation::TestFailover)?;
    let declared = work.declared_vm(&vm.name)?.ok_or_else(|| Refusal::NotFound {
        what: "protected VM",
        name: vm.name.clone(),
    })?;
    vm.tests = vm.tests.saturating_add(1);
    let name = format!("{}-t{}", vm.name, vm.tests);
    let job = Job::plan(
        fresh.job.clone(),
        JobKind::TestFailover,
        &vm.name,
        Some(&name),
        now,
    );
    let test = TestRecord {
        name: name.clone(),
        vm: vm.name.clone(),
        site: declared.target().site.to_string(),
        chain: vm.chain,
        state: TestFailover::Starting,
        choice,
        point: None,
        started: None,
        job: job.id.clone(),
        notes: String::new(),
        leftovers: Leftovers::Refuse,
        leaks: Vec::new(),
        started_at: now,
        succeeded_at: None,
        ended_at: None,
    };
    work.put(&job)?;
    work.put(&test)?;
    work.put(&vm)?;
    Ok(name)
}

/// Plans the cleanup of a test failover.
///
/// # Errors
/// When it does not exist or its state does not allow it.
pub fn clean_up(
    work: &mut Work<'_>,
    name: &str,
    notes: &str,
    leftovers: Leftovers,
    fresh: &Fresh,
    now: WallTime,
) -> Result<(), Refusal> {
    let mut test = work.get::<TestRecord>(name)?.ok_or_else(|| Refusal::NotFound {
        what: "test failover",
        name: name.to_owned(),
    })?;
    if test.state == TestFailover::CleaningUp {
        return Err(Refusal::InvalidState {
            what: format!("test failover {name}"),
            state: test.state.name(),
            accepted: "wait for its cleanup to end",
        });
    }
    test.state = test_failover::step(&test.state, test_failover::Event::CleanUp)?.0;
    test.leftovers = leftovers;
    if !notes.is_empty() {
        notes.clone_into(&mut test.notes);
    }
    test.job = fresh.job.clone();
    let job = Job::plan(
        fresh.job.clone(),
        JobKind::TestFailoverCleanup,
        &test.vm,
        Some(name),
        now,
    );
    work.put(&job)?;
    work.put(&test)?;
    Ok(())
}

pub(super) fn protected_vm(work: &mut Work<'_>, name: &str) -> Result<VmRecord, Refusal> {
    work.get::<VmRecord>(name)?.ok_or_else(|| Refusal::NotFound {
        what: "protected VM",
        name: name.to_owned(),
    })
}

pub(super) fn check_allowed(vm: &VmRecord, operation: Operation) -> Result<(), Refusal> {
    let points = vm.known_points();
    if is_allowed(operation, &vm.protection, &vm.failover, points) {
        return Ok(());
    }
    if points == Points::NoneKnown && is_allowed(operation, &vm.protection, &vm.failover, Points::Some) {
        return Err(Refusal::NoPoint { vm: vm.name.clone() });
    }
    Err(Refusal::NotAllowed {
        vm: vm.name.clone(),
        operation,
        protection: vm.protection.name(),
        failover: vm.failover.name(),
        allowed: allowed_operations(&vm.protection, &vm.failover, points),
    })
}

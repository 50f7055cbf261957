//! Decides what the gauges show: the records and the reports at one moment.

use std::collections::BTreeMap;

use farshore_blocks::{ByteCount, clock::WallTime};
use farshore_domain::job::Job;
use farshore_proto::v1;

use crate::{
    api::{VmView, VmViews, job_state},
    control::Control,
    fleet,
    metrics::{ControlSnapshot, SyncProgress, VmSnapshot},
    records::{self, TestRecord, VmRecord},
    store::StoreError,
};

/// What is true now.
///
/// # Errors
/// When a record cannot be read.
pub(crate) fn snapshot(control: &Control) -> Result<ControlSnapshot, StoreError> {
    let store = &*control.store;
    let mut snapshot = ControlSnapshot::of_fleet(&control.view());
    for job in records::list::<Job>(store)? {
        snapshot.count_job(job_state(&job));
    }
    let tests = last_successful_tests(&records::list::<TestRecord>(store)?);
    let views = VmViews::look(control)?;
    for record in records::list::<VmRecord>(store)? {
        if let Some(view) = views.vm(&record) {
            snapshot.vms.push(of_vm(&view, tests.get(&record.name).copied()));
        }
    }
    Ok(snapshot)
}

fn of_vm(view: &VmView<'_>, last_successful_test: Option<WallTime>) -> VmSnapshot {
    let message = view.message();
    let newest = view.target.and_then(|target| target.newest.as_ref());
    let newest_points = newest.and_then(|newest| {
        let captured_at = fleet::wall_time(newest.captured_at.as_ref()?)?;
        Some((newest.kind(), captured_at))
    });
    let has_sync = view.source.filter(|source| source.sync_total_bytes > 0);
    VmSnapshot {
        name: message.name.clone(),
        state: message.state(),
        health: message.health(),
        rpo: view.rpo,
        rpo_target: view.rpo_target,
        newest_points: newest_points.into_iter().collect(),
        recovery_points: view.target.map(|target| target.points),
        initial_sync: has_sync.map(|source| SyncProgress {
            done: ByteCount(source.sync_done_bytes),
            total: ByteCount(source.sync_total_bytes),
        }),
        last_cycle: view
            .source
            .and_then(|source: &v1::SourceStatus| source.last_cycle.as_ref())
            .and_then(fleet::duration),
        backlog: view.source.map(|source| ByteCount(source.backlog_bytes)),
        last_successful_test,
    }
}

fn last_successful_tests(tests: &[TestRecord]) -> BTreeMap<String, WallTime> {
    let mut last = BTreeMap::new();
    for test in tests {
        if let Some(succeeded_at) = test.succeeded_at {
            let known = last.entry(test.vm.clone()).or_insert(succeeded_at);
            *known = succeeded_at.max(*known);
        }
    }
    last
}

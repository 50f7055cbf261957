//! Has sources go on with the disks as they are declared now.

use farshore_blocks::clock::WallTime;
use farshore_domain::declaration::ProtectedVm;
use farshore_proto::v1::{self, command::Body};

use super::policies::{Listener, Owed};
use crate::{
    fleet::FleetView,
    machine,
    records::{EventRecord, Severity, VmRecord, transact},
    replicators::{self, Duty},
    store::{Store, StoreError},
};

/// What the source of a VM is yet to be told of its disks. One that does not say which it has is told nothing.
pub(super) fn to_source(view: &FleetView, vm: &VmRecord, declared: &ProtectedVm) -> Option<Owed> {
    let site = declared.source().site.as_str();
    let (replicator, status) = replicators::source_status(view, site, vm.chain)?;
    let (machine, disk_paths) = (machine::to_wire(declared), machine::disk_paths(declared));
    let owed = replicator.up && !status.disks.is_empty() && !follows(status, declared);
    owed.then(|| Owed {
        listener: Listener::SourceDisks(vm.name.clone()),
        site: site.to_owned(),
        duty: Duty::Source(Some(replicator.register.name.clone())),
        body: Body::SetDisks(v1::SetDisks {
            chain: vm.chain.as_bytes().to_vec().into(),
            machine: Some(machine),
            disk_paths,
        }),
    })
}

/// Whether a source has the disks that are declared.
fn follows(status: &v1::SourceStatus, declared: &ProtectedVm) -> bool {
    status.disks == machine::to_wire(declared).disks && status.disk_paths == machine::disk_paths(declared)
}

/// Whether a source that refused the declared disks has them now, or others are not declared any more.
pub(super) fn are_settled(view: &FleetView, declared: &ProtectedVm, vm: &VmRecord) -> bool {
    let site = declared.source().site.as_str();
    !vm.disks_refused.is_empty()
        && replicators::source_status(view, site, vm.chain)
            .is_some_and(|(_, status)| follows(status, declared))
}

/// Writes down that a source refused the declared disks, and tells it once.
pub(super) async fn note_refused(
    store: &dyn Store,
    (name, why): (&str, &str),
    now: WallTime,
) -> Result<(), StoreError> {
    transact(store, |work| {
        let Some(mut vm) = work.get::<VmRecord>(name)? else {
            return Ok(());
        };
        if vm.disks_refused == why {
            return Ok(());
        }
        why.clone_into(&mut vm.disks_refused);
        let message = format!(
            "replication goes on with the disks that it had, not with those that are declared: {why}"
        );
        work.tell(&EventRecord::new(
            Severity::Warning,
            "disks-refused",
            message,
            &vm.subject(),
            now,
        ))?;
        work.put(&vm)
    })
    .await
}

//! Has sources go on with the disks as they are declared now.

use farshore_domain::declaration::ProtectedVm;
use farshore_proto::v1::{self, command::Body};

use super::policies::{Listener, Owed};
use crate::{fleet::FleetView, machine, records::VmRecord, replicators};

/// What the source of a VM is yet to be told of its disks. One that does not say which it has is told nothing.
pub(super) fn to_source(view: &FleetView, vm: &VmRecord, declared: &ProtectedVm) -> Option<Owed> {
    let site = declared.source().site.as_str();
    let (replicator, status) = replicators::source_status(view, site, vm.chain)?;
    let machine = machine::to_wire(declared);
    let disk_paths = machine::disk_paths(declared);
    let follows = status.disks == machine.disks && status.disk_paths == disk_paths;
    let owed = replicator.up && !status.disks.is_empty() && !follows;
    owed.then(|| Owed {
        listener: Listener::Source(vm.name.clone()),
        site: site.to_owned(),
        body: Body::SetDisks(v1::SetDisks {
            chain: vm.chain.as_bytes().to_vec().into(),
            machine: Some(machine),
            disk_paths,
        }),
    })
}

//! Whether a consistency group can take its instants: its members exist, are of no other group, run at one site and go to one,
//! by one policy, and can be stopped safely.

use super::{
    super::{
        ConsistencyGroup, Kind, ProtectedVm,
        refusal::{Misfit, Refusal},
        set::DeclarationSet,
    },
    SourcePlace,
};

/// Every reason why it cannot.
pub(super) fn check_group(all: &DeclarationSet, group: &ConsistencyGroup) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut members = Vec::new();
    for name in group.members() {
        match all.vm(name) {
            Some(vm) => members.push(vm),
            None => refusals.push(Refusal::MissingMember {
                group: group.name().clone(),
                vm: name.clone(),
                meant: all.nearest(Kind::ProtectedVm, name),
            }),
        }
        let others = all.groups().filter(|other| other.name() != group.name());
        if let Some(other) = others.into_iter().find(|other| other.members().contains(name)) {
            refusals.push(Refusal::MemberClaimed {
                group: group.name().clone(),
                vm: name.clone(),
                other: other.name().clone(),
            });
        }
    }
    if let Some((first, rest)) = members.split_first()
        && group.stops_guests()
    {
        let misfits = rest.iter().flat_map(|vm| differences(first, vm));
        let stopping = members.iter().filter_map(|vm| cannot_be_stopped(vm));
        refusals.extend(misfits.chain(stopping).map(|(vm, misfit)| Refusal::MemberUnfit {
            group: group.name().clone(),
            vm: vm.name().clone(),
            misfit: Box::new(misfit),
        }));
    }
    refusals
}

/// The group of a VM, if it is in one.
pub(super) fn group_of<'a>(all: &'a DeclarationSet, vm: &ProtectedVm) -> Option<&'a ConsistencyGroup> {
    all.groups().find(|group| group.members().contains(vm.name()))
}

fn differences<'a>(first: &ProtectedVm, vm: &'a ProtectedVm) -> Vec<(&'a ProtectedVm, Misfit)> {
    let mut found = Vec::new();
    for (what, theirs, its) in [
        ("source site", &first.source().site, &vm.source().site),
        ("target site", &first.target().site, &vm.target().site),
        ("policy", first.policy(), vm.policy()),
    ] {
        if theirs != its {
            let misfit = Misfit::Differs {
                what: what.to_owned(),
                its: its.clone(),
                other: first.name().clone(),
                theirs: theirs.clone(),
            };
            found.push((vm, misfit));
        }
    }
    found
}

fn cannot_be_stopped<'a>(vm: &&'a ProtectedVm) -> Option<(&'a ProtectedVm, Misfit)> {
    let misfit = match (&vm.source().place, &vm.source().watchdog_monitor) {
        (SourcePlace::Disks(_), _) => Misfit::NoHypervisor,
        (SourcePlace::Monitor(_), None) => Misfit::NoWatchdogMonitor,
        (SourcePlace::Monitor(_), Some(_)) => return None,
    };
    Some((*vm, misfit))
}

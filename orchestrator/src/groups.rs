//! Decides what sources are told of their consistency groups, and what is shown of a group by what they report.

use std::collections::BTreeMap;

use farshore_domain::declaration::{ConsistencyGroup, DeclarationSet, Name, ProtectedVm};
use farshore_proto::v1;

use crate::{
    fleet::{self, FleetView},
    machine,
    records::VmRecord,
    replicators::source_status,
};

/// Every group, by the names of its members: a VM is in one at most.
#[must_use]
pub fn by_member(declared: &DeclarationSet) -> BTreeMap<&Name, &ConsistencyGroup> {
    declared
        .groups()
        .flat_map(|group| group.members().iter().map(move |member| (member, group)))
        .collect()
}

/// What the source of a member is told of its group.
#[must_use]
pub fn membership(group: &ConsistencyGroup, member: &ProtectedVm) -> v1::Membership {
    v1::Membership {
        group: group.name().to_string(),
        members: group.members().iter().map(ToString::to_string).collect(),
        hold_limit: Some(machine::duration(group.hold_limit())),
        watchdog_monitor: watchdog_monitor(member),
    }
}

/// What the source of this VM is told; absent if it is in no group.
#[must_use]
pub fn membership_of(declared: &DeclarationSet, vm: &ProtectedVm) -> Option<v1::Membership> {
    let group = by_member(declared).get(vm.name()).copied()?;
    Some(membership(group, vm))
}

/// Where the VM's second monitor is; empty if none is declared.
#[must_use]
pub fn watchdog_monitor(declared: &ProtectedVm) -> String {
    let monitor = declared.source().watchdog_monitor.as_ref();
    monitor.map(ToString::to_string).unwrap_or_default()
}

/// A group as users see it, by what its members' sources report. `records` are of all VMs.
#[must_use]
pub fn message(
    group: &ConsistencyGroup,
    declared: &DeclarationSet,
    records: &BTreeMap<String, VmRecord>,
    view: &FleetView,
) -> v1::Group {
    let reports: Vec<_> = group
        .members()
        .iter()
        .map(|member| (member, report_of(member, group, (declared, records), view)))
        .collect();
    let statuses: Vec<_> = reports
        .iter()
        .map(|(member, report)| (*member, report.as_ref().map(|(_, status)| status.clone())))
        .collect();
    let replicator = reports
        .iter()
        .find_map(|(_, report)| report.as_ref())
        .map(|(name, _)| name);
    let instants: Vec<_> = statuses
        .iter()
        .map(|(_, status)| {
            status
                .as_ref()
                .map_or((0, None), |status| (status.instant, status.instant_at))
        })
        .collect();
    // They all know of the same one, or have not all reported yet: the older is certain then.
    let newest_common = instants.iter().copied().min_by_key(|(instant, at)| {
        let at = at.as_ref().and_then(fleet::wall_time);
        (at.map_or(0, |at| at.0), *instant)
    });
    let (instant, instant_at) = newest_common.unwrap_or((0, None));
    let held = |status: &Option<v1::GroupStatus>| status.as_ref()?.longest_hold;
    let longest_hold = statuses.iter().filter_map(|(_, status)| held(status));
    v1::Group {
        name: group.name().to_string(),
        hold_limit: Some(machine::duration(group.hold_limit())),
        instant,
        instant_at,
        longest_hold: longest_hold.max_by_key(|held| (held.seconds, held.nanos)),
        members: statuses
            .iter()
            .zip(&reports)
            .map(|((member, status), (_, report))| v1::GroupMember {
                vm: member.to_string(),
                missed: missed(report.as_ref(), replicator),
                longest_hold: held(status),
                instants: status.as_ref().map_or(0, |status| status.instants),
            })
            .collect(),
    }
}

/// What a member's source reports of this group, and the name of its replicator.
fn report_of(
    member: &Name,
    group: &ConsistencyGroup,
    (declared, records): (&DeclarationSet, &BTreeMap<String, VmRecord>),
    view: &FleetView,
) -> Option<(String, v1::GroupStatus)> {
    let site = declared.vm(member)?.source().site.as_str();
    let (replicator, status) = source_status(view, site, records.get(member.as_str())?.chain)?;
    let membership = status.membership.as_ref()?;
    (replicator.up && membership.group == group.name().as_str())
        .then(|| Some((replicator.register.name.clone(), status.group.clone()?)))?
}

/// Why a member has no instant with the others. `replicator` is of one of them.
fn missed(report: Option<&(String, v1::GroupStatus)>, replicator: Option<&String>) -> String {
    match report {
        None => "its source does not report that it is in this group".to_owned(),
        Some((name, _)) if Some(name) != replicator => format!(
            "its source is at the replicator {name}, and others are at {}: a group's sources are at one",
            replicator.map_or("none", String::as_str)
        ),
        Some((_, status)) => status.missed.clone(),
    }
}

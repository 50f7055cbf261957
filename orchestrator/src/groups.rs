//! Decides what sources are told of their consistency groups, and what is shown of a group by what they report.

mod leader;

use std::collections::{BTreeMap, BTreeSet};

use farshore_domain::declaration::{ConsistencyGroup, DeclarationSet, Name, ProtectedVm};
use farshore_proto::v1;

use crate::{
    fleet::{self, FleetView},
    machine,
    records::{self, VmRecord},
    replicators::{self, source_status},
    store::{Store, StoreError},
};

/// Every group, by the names of its members: a VM is in one at most.
#[must_use]
pub fn by_member(declared: &DeclarationSet) -> BTreeMap<&Name, &ConsistencyGroup> {
    declared
        .groups()
        .flat_map(|group| group.members().iter().map(move |member| (member, group)))
        .collect()
}

/// What the sources of all members of groups are to be told, by the VM's name.
///
/// # Errors
/// When the store cannot be read.
pub fn memberships(
    store: &dyn Store,
    view: &FleetView,
) -> Result<BTreeMap<Name, v1::Membership>, StoreError> {
    let declared = records::declared(store)?;
    let records = records::list::<VmRecord>(store)?;
    let records: BTreeMap<_, _> = records.iter().map(|vm| (vm.name.as_str(), vm)).collect();
    let mut memberships = BTreeMap::new();
    for group in declared.groups() {
        let members = group.members().iter().filter_map(|name| declared.vm(name));
        let members: Vec<_> = members.collect();
        let leader = leader::choose(&sources_of(group, (&members, &records), view), view);
        for member in members {
            let membership = membership(group, member, leader.clone());
            memberships.insert(member.name().clone(), membership);
        }
    }
    Ok(memberships)
}

/// Where the sources of these members are, and where they meet now.
fn sources_of(
    group: &ConsistencyGroup,
    (members, records): (&[&ProtectedVm], &BTreeMap<&str, &VmRecord>),
    view: &FleetView,
) -> leader::Sources {
    let mut sources = leader::Sources::default();
    for member in members {
        let Some(record) = records.get(member.name().as_str()) else {
            continue;
        };
        sources
            .replicators
            .extend(replicators::source_replicator(view, member, record));
        let status = source_status(view, member.source().site.as_str(), record.chain);
        let told = status.and_then(|(_, status)| status.membership.as_ref());
        let told = told.filter(|told| told.group == group.name().as_str());
        if let Some(leader) = told.and_then(|told| told.leader.clone()) {
            sources.told.insert(leader.replicator.clone(), leader);
        }
    }
    sources
}

fn membership(
    group: &ConsistencyGroup,
    member: &ProtectedVm,
    leader: Option<v1::GroupLeader>,
) -> v1::Membership {
    v1::Membership {
        group: group.name().to_string(),
        members: group.members().iter().map(ToString::to_string).collect(),
        hold_limit: Some(machine::duration(group.hold_limit())),
        watchdog_monitor: watchdog_monitor(member),
        leader,
    }
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
    let known = || reports.iter().filter_map(|(_, report)| report.as_ref());
    let replicators = known().map(|report| report.replicator.as_str()).collect();
    // They all know of the same one, or have not all reported yet: the older is certain then.
    let instants = reports.iter().map(|(_, report)| match report {
        Some(report) => (report.status.instant, report.status.instant_at),
        None => (0, None),
    });
    let newest_common = instants.min_by_key(|(instant, at)| {
        let at = at.as_ref().and_then(fleet::wall_time);
        (at.map_or(0, |at| at.0), *instant)
    });
    let (instant, instant_at) = newest_common.unwrap_or((0, None));
    let longest_hold = known().filter_map(|report| report.status.longest_hold);
    v1::Group {
        name: group.name().to_string(),
        hold_limit: Some(machine::duration(group.hold_limit())),
        instant,
        instant_at,
        longest_hold: longest_hold.max_by_key(|held| (held.seconds, held.nanos)),
        leader: known()
            .find_map(|report| report.leader.clone())
            .unwrap_or_default(),
        members: reports
            .iter()
            .map(|(member, report)| v1::GroupMember {
                vm: member.to_string(),
                missed: missed(report.as_ref(), &replicators),
                longest_hold: report.as_ref().and_then(|report| report.status.longest_hold),
                instants: report.as_ref().map_or(0, |report| report.status.instants),
                replicator: report
                    .as_ref()
                    .map_or_else(String::new, |report| report.replicator.clone()),
            })
            .collect(),
    }
}

/// What a member's source says.
struct Reported {
    replicator: String,
    leader: Option<String>,
    status: v1::GroupStatus,
}

/// What a member's source reports of this group.
fn report_of(
    member: &Name,
    group: &ConsistencyGroup,
    (declared, records): (&DeclarationSet, &BTreeMap<String, VmRecord>),
    view: &FleetView,
) -> Option<Reported> {
    let site = declared.vm(member)?.source().site.as_str();
    let (replicator, status) = source_status(view, site, records.get(member.as_str())?.chain)?;
    let membership = status.membership.as_ref()?;
    if !replicator.up || membership.group != group.name().as_str() {
        return None;
    }
    Some(Reported {
        replicator: replicator.register.name.clone(),
        leader: membership.leader.as_ref().map(|leader| leader.replicator.clone()),
        status: status.group.clone()?,
    })
}

/// Why a member has no instant with the others. `replicators` are those of all members.
fn missed(report: Option<&Reported>, replicators: &BTreeSet<&str>) -> String {
    match report {
        None => "its source does not report that it is in this group".to_owned(),
        Some(report) if replicators.len() > 1 && report.leader.is_none() => format!(
            "its source is at the replicator {}, and others are not; for a common instant at least one of {} must be told in its \
             configuration where the others reach it (`siteListen`)",
            report.replicator,
            replicators.iter().copied().collect::<Vec<_>>().join(", ")
        ),
        Some(report) => report.status.missed.clone(),
    }
}

//! Whether declarations fit together: that what they refer to exists, that nobody else holds what they claim, and
//! that nothing is taken away that another still uses. Pure: what exists and what is applied in, a plan out.

mod groups;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Declaration, DeclarationKey, Kind, Link, ProtectedVm, Site,
    refusal::{Refusal, SiteRole},
    set::{self, DeclarationSet, key, nearest_name},
    source::SourcePlace,
    text::MonitorPath,
};
use groups::{check_group, group_of};

/// What an Apply would do, document by document, in their order. It is done as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyPlan {
    /// One for each applied declaration.
    pub outcomes: Vec<Outcome>,
}

/// What an Apply would do with one declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub key: DeclarationKey,
    /// What.
    pub effect: Effect,
}

/// What becomes of an applied declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// There was none of this kind and name.
    Created,
    /// It differs from what was there.
    Changed {
        /// The parts that differ, like `spec.policy`.
        parts: Vec<String>,
    },
    /// It is what was there.
    Unchanged,
    /// It does not fit, and so the whole Apply does not.
    Refused(Vec<Refusal>),
}

impl ApplyPlan {
    /// Every reason why it cannot be done; none if it can.
    pub fn refusals(&self) -> impl Iterator<Item = (&DeclarationKey, &Refusal)> {
        self.outcomes.iter().flat_map(|outcome| {
            let refusals = match &outcome.effect {
                Effect::Refused(refusals) => refusals.as_slice(),
                Effect::Created | Effect::Changed { .. } | Effect::Unchanged => &[],
            };
            refusals.iter().map(|refusal| (&outcome.key, refusal))
        })
    }
}

/// Plans an Apply. Applied declarations may refer to each other in any order.
#[must_use]
pub fn check_apply(existing: &DeclarationSet, applied: &[Declaration]) -> ApplyPlan {
    let mut merged = existing.clone();
    for declaration in applied {
        merged.insert(declaration.clone());
    }
    let applied_keys: BTreeSet<_> = applied.iter().map(Declaration::key).collect();
    let mut seen = BTreeSet::new();
    let outcomes = applied
        .iter()
        .map(|declaration| {
            let key = declaration.key();
            let mut refusals = match declaration {
                Declaration::Site(site) => check_site(existing, &merged, &applied_keys, site),
                Declaration::ReplicationPolicy(_) => Vec::new(),
                Declaration::ProtectedVm(vm) => {
                    let mut refusals = check_vm(&merged, vm);
                    // A group of the same Apply is told itself.
                    let group = group_of(&merged, vm);
                    let others = group.filter(|group| {
                        !applied_keys.contains(&set::key(Kind::ConsistencyGroup, group.name()))
                    });
                    refusals.extend(others.into_iter().flat_map(|group| check_group(&merged, group)));
                    refusals
                }
                Declaration::ConsistencyGroup(group) => check_group(&merged, group),
            };
            if !seen.insert(key.clone()) {
                refusals.push(Refusal::DeclaredTwice { key: key.clone() });
            }
            let effect = if refusals.is_empty() {
                effect_of(existing.get(&key), declaration)
            } else {
                Effect::Refused(refusals)
            };
            Outcome { key, effect }
        })
        .collect();
    ApplyPlan { outcomes }
}

/// Whether a declaration may be deleted.
///
/// # Errors
/// When it is not there or others refer to it.
pub fn check_delete(existing: &DeclarationSet, key: &DeclarationKey) -> Result<(), Refusal> {
    if existing.get(key).is_none() {
        return Err(Refusal::NotFound {
            key: key.clone(),
            meant: existing.nearest(key.kind, &key.name),
        });
    }
    let uses = |vm: &&ProtectedVm| match key.kind {
        Kind::Site => vm.source().site == key.name || vm.target().site == key.name,
        Kind::ReplicationPolicy => *vm.policy() == key.name,
        Kind::ProtectedVm | Kind::ConsistencyGroup => false,
    };
    let groups = existing
        .groups()
        .filter(|group| key.kind == Kind::ProtectedVm && group.members().contains(&key.name));
    let groups = groups.map(|group| group.name().clone());
    let vms: Vec<_> = existing
        .vms()
        .filter(uses)
        .map(ProtectedVm::name)
        .cloned()
        .chain(groups)
        .collect();
    if !vms.is_empty() {
        return Err(Refusal::InUse {
            key: key.clone(),
            vms,
        });
    }
    let leads_here = |site: &&Site| key.kind == Kind::Site && site.link(&key.name).is_some();
    let sites: Vec<_> = existing
        .sites()
        .filter(leads_here)
        .map(Site::name)
        .filter(|site| **site != key.name)
        .cloned()
        .collect();
    if sites.is_empty() {
        return Ok(());
    }
    Err(Refusal::Linked {
        key: key.clone(),
        sites,
    })
}

fn check_vm(all: &DeclarationSet, vm: &ProtectedVm) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let name = vm.name();
    if all.policy(vm.policy()).is_none() {
        refusals.push(Refusal::MissingPolicy {
            vm: name.clone(),
            policy: vm.policy().clone(),
            meant: all.nearest(Kind::ReplicationPolicy, vm.policy()),
        });
    }
    for (role, site) in [
        (SiteRole::Source, &vm.source().site),
        (SiteRole::Target, &vm.target().site),
    ] {
        if all.site(site).is_none() {
            refusals.push(Refusal::MissingSite {
                vm: name.clone(),
                role,
                site: site.clone(),
                meant: all.nearest(Kind::Site, site),
            });
        }
    }
    refusals.extend(check_network(all, vm));
    refusals.extend(check_dialling(all, vm));
    refusals.extend(check_claims(all, vm));
    refusals
}

/// A monitor, or a disk, is of one VM.
fn check_claims(all: &DeclarationSet, vm: &ProtectedVm) -> Option<Refusal> {
    let site = &vm.source().site;
    let others = || {
        let others = all.vms();
        others.filter(|other| other.name() != vm.name() && may_be_of_one_host(vm, other))
    };
    if let Some(monitor) = &vm.source().watchdog_monitor
        && let Some(other) = others().find(|other| has_monitor(other, monitor))
    {
        return Some(Refusal::MonitorClaimed {
            vm: vm.name().clone(),
            site: site.clone(),
            monitor: monitor.clone(),
            other: other.name().clone(),
        });
    }
    match &vm.source().place {
        SourcePlace::Monitor(monitor) => {
            let other = others().find(|other| has_monitor(other, monitor))?;
            Some(Refusal::MonitorClaimed {
                vm: vm.name().clone(),
                site: site.clone(),
                monitor: monitor.clone(),
                other: other.name().clone(),
            })
        }
        SourcePlace::Disks(disks) => others().find_map(|other| {
            let theirs = other.source().disks();
            let shared = disks
                .iter()
                .find(|disk| theirs.iter().any(|their| their.path == disk.path))?;
            Some(Refusal::DiskClaimed {
                vm: vm.name().clone(),
                site: site.clone(),
                disk: shared.path.clone(),
                other: other.name().clone(),
            })
        }),
    }
}

/// Paths of two replicators of a site may be of two hosts.
fn may_be_of_one_host(vm: &ProtectedVm, other: &ProtectedVm) -> bool {
    let (one, another) = (vm.source(), other.source());
    let named = one.replicator.as_ref().zip(another.replicator.as_ref());
    one.site == another.site && named.is_none_or(|(one, another)| one == another)
}

fn has_monitor(vm: &ProtectedVm, monitor: &MonitorPath) -> bool {
    let source = vm.source();
    source.place == SourcePlace::Monitor(monitor.clone()) || source.watchdog_monitor.as_ref() == Some(monitor)
}

fn check_network(all: &DeclarationSet, vm: &ProtectedVm) -> Option<Refusal> {
    let network = vm.target().network.as_ref()?;
    let site = all.site(&vm.target().site)?;
    if site.network(network).is_some() {
        return None;
    }
    Some(Refusal::MissingNetwork {
        vm: vm.name().clone(),
        site: site.name().clone(),
        network: network.clone(),
        meant: nearest_name(network, site.networks().iter().map(|network| &network.name)),
    })
}

fn check_dialling(all: &DeclarationSet, vm: &ProtectedVm) -> Option<Refusal> {
    let from = all.site(&vm.source().site)?;
    let to = all.site(&vm.target().site)?;
    if from.dialler(to).is_some() {
        return None;
    }
    Some(Refusal::NobodyDials {
        vm: vm.name().clone(),
        from: from.name().clone(),
        to: to.name().clone(),
    })
}

fn check_site(
    existing: &DeclarationSet,
    merged: &DeclarationSet,
    applied: &BTreeSet<DeclarationKey>,
    site: &Site,
) -> Vec<Refusal> {
    let before = existing.site(site.name()).map_or(&[][..], Site::networks);
    let lost = before
        .iter()
        .filter(|network| site.network(&network.name).is_none());
    let in_use = lost.filter_map(|network| {
        // VMs of the same Apply are told of their missing network themselves.
        let uses = |vm: &&ProtectedVm| {
            vm.target().site == *site.name()
                && vm.target().network.as_ref() == Some(&network.name)
                && !applied.contains(&key(Kind::ProtectedVm, vm.name()))
        };
        let vms: Vec<_> = merged
            .vms()
            .filter(uses)
            .map(ProtectedVm::name)
            .cloned()
            .collect();
        (!vms.is_empty()).then(|| Refusal::NetworkInUse {
            site: site.name().clone(),
            network: network.name.clone(),
            vms,
        })
    });
    let ends = site.links().iter().map(Link::to);
    let missing = ends.filter(|to| merged.site(to).is_none());
    let missing = missing.map(|to| Refusal::MissingLinkEnd {
        site: site.name().clone(),
        to: to.clone(),
        meant: merged.nearest(Kind::Site, to),
    });
    let told_themselves = |vm: &&ProtectedVm| !applied.contains(&key(Kind::ProtectedVm, vm.name()));
    let cut_off = merged
        .vms()
        .filter(told_themselves)
        .filter(|vm| vm.source().site == *site.name() || vm.target().site == *site.name())
        .filter_map(|vm| check_dialling(merged, vm));
    in_use.chain(missing).chain(cut_off).collect()
}

fn effect_of(existing: Option<&Declaration>, applied: &Declaration) -> Effect {
    match existing {
        None => Effect::Created,
        Some(existing) if existing == applied => Effect::Unchanged,
        Some(existing) => Effect::Changed {
            parts: differing_parts(existing, applied),
        },
    }
}

fn differing_parts(left: &Declaration, right: &Declaration) -> Vec<String> {
    let specification = |declaration: &Declaration| {
        let value = serde_json::to_value(declaration).ok()?;
        value.get("spec")?.as_object().cloned()
    };
    let left = specification(left).unwrap_or_default();
    let right = specification(right).unwrap_or_default();
    let parts: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let value = |of: &serde_json::Map<String, Value>, part: &str| of.get(part).cloned();
    parts
        .into_iter()
        .filter(|part| value(&left, part) != value(&right, part))
        .map(|part| format!("spec.{part}"))
        .collect()
}

#[cfg(test)]
mod tests;

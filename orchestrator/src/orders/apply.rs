//! Decides what applying documents changes: all of them or nothing.

use farshore_blocks::clock::WallTime;
use farshore_domain::{
    allowed_operations::{Operation, Points, is_allowed},
    declaration::{
        Declaration, DeclarationKey, DeclarationSet, Effect, Kind, ProtectedVm, Source, check_apply,
    },
    job::{Job, JobKind},
    protection::Protection,
};

use super::{Fresh, Refusal};
use crate::records::{self, Applied, AppliedEffect, EventRecord, PointsSeen, Severity, VmRecord, Work};

/// The documents of one apply, with fresh identities for each.
pub struct Applying {
    documents: Vec<(Declaration, Fresh)>,
}

impl Applying {
    /// These documents.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(documents: Vec<Declaration>) -> Result<Self, Refusal> {
        if documents.is_empty() {
            return Err(Refusal::EmptyManifest);
        }
        let with_identities = documents
            .into_iter()
            .map(|document| Ok((document, Fresh::make()?)))
            .collect::<Result<_, Refusal>>()?;
        Ok(Self {
            documents: with_identities,
        })
    }
}

/// Declares the documents and plans the jobs that follow.
///
/// # Errors
/// When any of them does not fit.
pub fn apply(work: &mut Work<'_>, applying: &Applying, now: WallTime) -> Result<Vec<Applied>, Refusal> {
    let existing = records::all_declared(work)?;
    let documents: Vec<Declaration> = applying
        .documents
        .iter()
        .map(|(document, _)| document.clone())
        .collect();
    let plan = check_apply(&existing, &documents);
    let refusals: Vec<_> = plan
        .refusals()
        .map(|(key, refusal)| (key.clone(), refusal.clone()))
        .collect();
    if !refusals.is_empty() {
        return Err(Refusal::Declarations(refusals));
    }
    let mut applied = Vec::new();
    for ((document, fresh), outcome) in applying.documents.iter().zip(&plan.outcomes) {
        let effect = match &outcome.effect {
            Effect::Created => AppliedEffect::Created,
            Effect::Changed { .. } => {
                check_change(work, &existing, document)?;
                AppliedEffect::Changed
            }
            Effect::Unchanged | Effect::Refused(_) => AppliedEffect::Unchanged,
        };
        if effect != AppliedEffect::Unchanged {
            records::declare(work, document)?;
            tell(work, &outcome.key, effect, now)?;
        }
        let job = match document {
            Declaration::ProtectedVm(vm) => enable(work, vm, fresh, now)?.then(|| fresh.job.clone()),
            Declaration::Site(_) | Declaration::ReplicationPolicy(_) | Declaration::ConsistencyGroup(_) => {
                None
            }
        };
        applied.push(Applied {
            kind: outcome.key.kind,
            name: outcome.key.name.to_string(),
            effect,
            job,
        });
    }
    Ok(applied)
}

/// Plans the job that protects the VM, if it is not protected and no job is at it. Whether it did.
fn enable(work: &mut Work<'_>, vm: &ProtectedVm, fresh: &Fresh, now: WallTime) -> Result<bool, Refusal> {
    let name = vm.name().as_str();
    let record = match work.get::<VmRecord>(name)? {
        None => VmRecord::new(name, fresh.chain, fresh.holder, fresh.job.clone()),
        Some(record) if record.protection == Protection::Disabling => {
            return Err(Refusal::InUse {
                key: key_of(vm),
                message: "its protection is being removed; apply it when that job has ended".to_owned(),
            });
        }
        Some(mut record) => {
            let allowed = is_allowed(
                Operation::Enable,
                &record.protection,
                &record.failover,
                Points::NoneKnown,
            );
            if !allowed || is_under_way(work, &record)? {
                return Ok(false);
            }
            record.latest_job = fresh.job.clone();
            record
        }
    };
    work.put(&Job::plan(
        fresh.job.clone(),
        JobKind::EnableProtection,
        name,
        None,
        now,
    ))?;
    work.put(&record)?;
    Ok(true)
}

fn is_under_way(work: &mut Work<'_>, record: &VmRecord) -> Result<bool, Refusal> {
    let job = work.get::<Job>(&record.latest_job.0)?;
    Ok(job.is_some_and(|job| !job.state.has_ended()))
}

/// What a change may touch while something depends on it.
fn check_change(
    work: &mut Work<'_>,
    existing: &DeclarationSet,
    document: &Declaration,
) -> Result<(), Refusal> {
    match document {
        // What may be taken from a site was checked with its references; policies and groups are followed by the reconciler.
        Declaration::Site(_) | Declaration::ReplicationPolicy(_) | Declaration::ConsistencyGroup(_) => Ok(()),
        Declaration::ProtectedVm(vm) => check_vm_change(work, existing, vm),
    }
}

fn check_vm_change(work: &mut Work<'_>, existing: &DeclarationSet, vm: &ProtectedVm) -> Result<(), Refusal> {
    let Some(before) = existing.vm(vm.name()) else {
        return Ok(());
    };
    // A VM joins a group while it is protected, and may need a second monitor for that.
    let source = Source {
        watchdog_monitor: before.source().watchdog_monitor.clone(),
        ..vm.source().clone()
    };
    let only_followed = before.source().is_same_but_disks(&source)
        && before.machine().is_same_but_disks(vm.machine())
        && before.target().site == vm.target().site;
    let disks_stay = *before.source() == source && before.machine() == vm.machine();
    if only_followed && !disks_stay && is_job_at_work(work, vm.name().as_str())? {
        return Err(Refusal::InUse {
            key: key_of(vm),
            message: "a job is at work on it; change its disks when that has ended".to_owned(),
        });
    }
    let seed_stays = before.target().seed == vm.target().seed || is_seed_used_up(work, vm)?;
    if only_followed && seed_stays || !is_assigned(work, vm.name().as_str())? {
        return Ok(());
    }
    Err(Refusal::InUse {
        key: key_of(vm),
        message: "its target was prepared for what was declared before; only spec.policy, \
                  spec.source.watchdogMonitor, spec.target.network and the list of disks can be changed, and spec.target.seed be left out \
                  once there is a recovery point, or delete it and apply it again"
            .to_owned(),
    })
}

fn is_job_at_work(work: &mut Work<'_>, name: &str) -> Result<bool, Refusal> {
    match work.get::<VmRecord>(name)? {
        Some(record) => is_under_way(work, &record),
        None => Ok(false),
    }
}

/// Whether the seed is left out, and there is a recovery point, so that there is no more use for one.
fn is_seed_used_up(work: &mut Work<'_>, vm: &ProtectedVm) -> Result<bool, Refusal> {
    let record = work.get::<VmRecord>(vm.name().as_str())?;
    let has_point = record.is_some_and(|record| record.points == PointsSeen::Some);
    Ok(has_point && vm.target().seed.is_empty())
}

/// Whether a job may be at work on the VM, or the target was prepared for it.
fn is_assigned(work: &mut Work<'_>, name: &str) -> Result<bool, Refusal> {
    let Some(record) = work.get::<VmRecord>(name)? else {
        return Ok(false);
    };
    Ok(record.tenure.is_some() || is_under_way(work, &record)?)
}

fn key_of(vm: &ProtectedVm) -> DeclarationKey {
    DeclarationKey {
        kind: Kind::ProtectedVm,
        name: vm.name().clone(),
    }
}

fn tell(
    work: &mut Work<'_>,
    key: &DeclarationKey,
    effect: AppliedEffect,
    now: WallTime,
) -> Result<(), Refusal> {
    let what = match effect {
        AppliedEffect::Created => "declared",
        AppliedEffect::Changed => "changed",
        AppliedEffect::Unchanged => return Ok(()),
    };
    let event = EventRecord::new(
        Severity::Information,
        what,
        format!("{key} was {what}"),
        &subject(key),
        now,
    );
    Ok(work.tell(&event)?)
}

/// What a declaration is in events, like `vm/shop-db`.
pub(super) fn subject(key: &DeclarationKey) -> String {
    let kind = match key.kind {
        Kind::Site => "site",
        Kind::ReplicationPolicy => "policy",
        Kind::ProtectedVm => "vm",
        Kind::ConsistencyGroup => "group",
    };
    format!("{kind}/{}", key.name)
}

//! Decides what is shown of a protected VM: its record, its declaration, what the replicators report, and what
//! follows from these. Everything shown is derived anew each time; nothing shown is stored.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use farshore_blocks::{Sequence, clock::WallTime};
use farshore_domain::{
    allowed_operations::{Operation, allowed_operations},
    declaration::{DeclarationSet, Name, ProtectedVm, ReplicationPolicy},
    failover::Failover,
    health::{
        Attachment, AuditFinding, CycleTimes, Fencing, Health, KnownInstant, NewestPoint, Observation,
        Reason, VaultDamage, health, recovery_point_age,
    },
    job::{Job, JobId, Lane},
    protection::Protection,
};
use farshore_proto::v1::{self, SourcePhase};

use super::messages;
use crate::{
    control::Control,
    fleet::{self, FleetView, ReplicatorView},
    groups, machine,
    records::{self, VmRecord},
    replicators::{
        has_source_attached, has_vault_attached, recovered_condition, source_status, target_status,
    },
    store::StoreError,
};

#[cfg(test)]
mod tests;

/// One look at all VMs: what is durable and what is reported at one moment.
pub struct VmViews {
    declared: DeclarationSet,
    active_jobs: BTreeMap<String, JobId>,
    /// The names of the groups, by their members.
    groups: BTreeMap<String, String>,
    fleet: Arc<FleetView>,
    now: WallTime,
}

/// One look at one VM.
pub struct VmView<'a> {
    /// Its record.
    pub record: &'a VmRecord,
    /// What is declared of it.
    pub declared: &'a ProtectedVm,
    /// The declared seconds of data that may be at stake.
    pub rpo_target: Duration,
    /// What its source last reported.
    pub source: Option<&'a v1::SourceStatus>,
    /// What its target last reported.
    pub target: Option<&'a v1::TargetStatus>,
    /// The seconds of data that would be lost now; absent while there is no point or after a failover.
    pub rpo: Option<Duration>,
    /// How well replication does.
    pub health: Health,
    /// Why.
    pub reasons: Vec<Reason>,
    active_job: Option<&'a JobId>,
    group: &'a str,
    source_replicator: Attachment,
    fleet: &'a FleetView,
}

impl VmViews {
    /// A look at what is now.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn look(control: &Control) -> Result<Self, StoreError> {
        let store = &*control.store;
        let declared = records::declared(store)?;
        let groups = groups::by_member(&declared).into_iter();
        let groups = groups.map(|(member, group)| (member.to_string(), group.name().to_string()));
        Ok(Self {
            groups: groups.collect(),
            declared,
            active_jobs: active_jobs(&records::list::<Job>(store)?),
            fleet: control.view(),
            now: control.clock.now(),
        })
    }

    /// The VM of this record; absent while its declaration is missing, which is only between two transactions.
    #[must_use]
    pub fn vm<'a>(&'a self, record: &'a VmRecord) -> Option<VmView<'a>> {
        let name: Name = record.name.parse().ok()?;
        let declared = self.declared.vm(&name)?;
        let rpo_target = self
            .declared
            .policy(declared.policy())
            .map_or(Duration::MAX, ReplicationPolicy::rpo_target);
        let fleet = &*self.fleet;
        let source = source_status(fleet, declared.source().site.as_str(), record.chain);
        let target = target_status(fleet, declared.target().site.as_str(), record.chain);
        let rpo = target
            .filter(|_| record.failover == Failover::None)
            .and_then(|(replicator, target)| rpo(replicator, target, self.now));
        let source = source.map(|(_, status)| status);
        let source_replicator = attachment(has_source_attached(fleet, declared, record));
        let (health, reasons) = health(&Observation {
            protection: &record.protection,
            failover: &record.failover,
            source: source_replicator,
            target: attachment(has_vault_attached(fleet, declared.target().site.as_str())),
            source_detail: source.map_or("", |source| source.detail.as_str()),
            fencing: match source.map(v1::SourceStatus::phase) {
                Some(SourcePhase::Fenced) => Fencing::Fenced,
                Some(_) | None => Fencing::NotFenced,
            },
            rpo,
            rpo_target,
            damage: target.and_then(|(_, status)| damage(status)),
            audit: source.and_then(audit_finding),
            last_cycle: source.and_then(cycle_times),
            app_consistency_missed: source.map_or("", |source| source.app_consistency_missed.as_str()),
            disks_refused: &record.disks_refused,
            group_instant_missed: source
                .and_then(|source| source.group.as_ref())
                .map_or("", |group| group.missed.as_str()),
        });
        Some(VmView {
            record,
            declared,
            rpo_target,
            source,
            target: target.map(|(_, status)| status),
            rpo,
            health,
            reasons,
            active_job: self.active_jobs.get(&record.name),
            group: self.groups.get(&record.name).map_or("", String::as_str),
            source_replicator,
            fleet,
        })
    }
}

impl VmView<'_> {
    /// As users see it.
    #[must_use]
    pub fn message(&self) -> v1::Vm {
        let record = self.record;
        let source = self.source.cloned().unwrap_or_default();
        let (state, state_detail) = self.state();
        // What a replicator said before it went away is no news of what its source does now.
        let (source_phase, source_detail) = match self.source_replicator {
            Attachment::Attached => (source.phase(), source.detail),
            Attachment::Lost => (
                SourcePhase::Unspecified,
                "the source's replicator is not attached".to_owned(),
            ),
        };
        v1::Vm {
            name: record.name.clone(),
            policy: self.declared.policy().to_string(),
            source_site: self.declared.source().site.to_string(),
            target_site: self.declared.target().site.to_string(),
            machine: Some(machine::to_wire(self.declared)),
            state: state.into(),
            state_detail,
            failover: failover(&record.failover).into(),
            health: self.health_message().into(),
            health_reasons: self.reasons.iter().map(reason).collect(),
            rpo: self.rpo.map(machine::duration),
            rpo_target: Some(machine::duration(self.rpo_target)),
            sync_done_bytes: source.sync_done_bytes,
            sync_total_bytes: source.sync_total_bytes,
            sync_bytes_per_second: source.sync_bytes_per_second,
            backlog_bytes: source.backlog_bytes,
            points: self.target.map_or(0, |target| target.points),
            newest: self.target.and_then(|target| target.newest.clone()),
            allowed_operations: self.allowed_operations(),
            checks: record.checks.iter().map(messages::check).collect(),
            volumes: machine::volumes_to_wire(&record.volumes),
            source_phase: source_phase.into(),
            source_detail,
            active_job: self.active_job.map(ToString::to_string).unwrap_or_default(),
            recovered: self.recovered(),
            last_cycle: source.last_cycle,
            last_hold: source.last_hold,
            last_cycle_times: source.last_cycle_times,
            audit: source.audit,
            group: self.group.to_owned(),
        }
    }

    fn state(&self) -> (v1::ProtectionState, String) {
        let none = String::new();
        match &self.record.protection {
            Protection::Pending => (v1::ProtectionState::Pending, none),
            Protection::CheckingPrerequisites => (v1::ProtectionState::CheckingPrerequisites, none),
            Protection::InstallingMobility => (v1::ProtectionState::InstallingMobility, none),
            Protection::PreparingTarget => (v1::ProtectionState::PreparingTarget, none),
            Protection::EnablingReplication => (v1::ProtectionState::EnablingReplication, none),
            Protection::InitialSync => (v1::ProtectionState::InitialSync, none),
            Protection::AwaitingRecoveryPoint => (v1::ProtectionState::AwaitingRecoveryPoint, none),
            Protection::Protected => (v1::ProtectionState::Protected, none),
            Protection::Resynchronizing { why } => {
                let reported = self
                    .source
                    .map(|source| &source.detail)
                    .filter(|detail| !detail.is_empty());
                (
                    v1::ProtectionState::Resynchronizing,
                    reported.unwrap_or(why).clone(),
                )
            }
            Protection::Paused => (v1::ProtectionState::Paused, none),
            Protection::Disabling => (v1::ProtectionState::Disabling, none),
            Protection::Failed { at, reason } => {
                (v1::ProtectionState::Failed, format!("at {at:?}: {reason}"))
            }
        }
    }

    fn health_message(&self) -> v1::ReplicationHealth {
        match self.health {
            Health::Normal => v1::ReplicationHealth::Normal,
            Health::Warning => v1::ReplicationHealth::Warning,
            Health::Critical => v1::ReplicationHealth::Critical,
        }
    }

    fn allowed_operations(&self) -> Vec<String> {
        let record = self.record;
        allowed_operations(&record.protection, &record.failover, record.known_points())
            .into_iter()
            .map(|operation: Operation| operation.name().to_owned())
            .collect()
    }

    fn recovered(&self) -> Option<v1::RecoveredVm> {
        let recovery = self.record.recovery.as_ref()?;
        let started = recovery.started.as_ref()?;
        let point = recovery.point.map_or(0, |point| point.0);
        let condition = recovered_condition(self.fleet, self.declared.target().site.as_str(), &recovery.id);
        Some(messages::recovered(started, &recovery.id, point, condition))
    }
}

fn failover(failover: &Failover) -> v1::FailoverState {
    match failover {
        Failover::None => v1::FailoverState::None,
        Failover::FailingOver => v1::FailoverState::FailingOver,
        Failover::FailedOver => v1::FailoverState::FailedOver,
        Failover::Failed { .. } => v1::FailoverState::Failed,
    }
}

fn reason(reason: &Reason) -> v1::HealthReason {
    v1::HealthReason {
        code: reason.code.to_owned(),
        what: reason.what.clone(),
        possible_cause: reason.possible_cause.to_owned(),
        what_to_do: reason.what_to_do.to_owned(),
    }
}

fn attachment(is_attached: bool) -> Attachment {
    match is_attached {
        true => Attachment::Attached,
        false => Attachment::Lost,
    }
}

/// What the source's audit found, until it compared everything again without a difference.
fn audit_finding(status: &v1::SourceStatus) -> Option<AuditFinding> {
    let audit = status.audit.as_ref().filter(|audit| audit.suspect)?;
    Some(AuditFinding {
        blocks: audit.mismatches,
        point: Sequence(audit.last_mismatch.as_ref()?.point),
    })
}

/// Where the time of the last cycle went, by the policy that the source says it has.
fn cycle_times(status: &v1::SourceStatus) -> Option<CycleTimes> {
    let of = |duration: &Option<prost_types::Duration>| duration.as_ref().and_then(fleet::duration);
    let times = status.last_cycle_times.as_ref()?;
    Some(CycleTimes {
        interval: of(&status.policy.as_ref()?.interval)?,
        took: of(&status.last_cycle)?,
        begin: of(&times.begin)?,
        read: of(&times.read)?,
        send: of(&times.send)?,
        seal: of(&times.seal)?,
    })
}

/// What the vault's scrub found, as far as the report lists it.
fn damage(status: &v1::TargetStatus) -> Option<VaultDamage> {
    let newest = match status.damage.iter().any(|damage| damage.newest) {
        true => NewestPoint::Hit,
        false => NewestPoint::Sound,
    };
    Some(VaultDamage {
        places: status.damaged_places,
        first: status
            .damage
            .iter()
            .map(|damage| Sequence(damage.first_point))
            .min()?,
        last: status
            .damage
            .iter()
            .map(|damage| Sequence(damage.last_point))
            .max()?,
        newest,
    })
}

/// The RPO by what the target's replicator last reported, however long ago that was. The report was made after the
/// question that it echoes was asked, and counts as being that old: however long it was under way, the RPO is never
/// better than the truth. A report that echoes nothing tells nothing of its age.
fn rpo(replicator: &ReplicatorView, target: &v1::TargetStatus, now: WallTime) -> Option<Duration> {
    let newest = target.newest.as_ref()?;
    let valid_through = target.valid_through.as_ref().or(newest.sealed_at.as_ref());
    let valid_through = fleet::wall_time(valid_through?)?;
    let report = replicator.report.as_ref()?;
    let reported_at = fleet::wall_time(report.at.as_ref()?)?;
    let asked_at = fleet::wall_time(report.asked_at.as_ref()?)?.min(replicator.reported_at?);
    let offset = i128::from(reported_at.0) - i128::from(asked_at.0);
    let uncertainty = target.clock_uncertainty.as_ref().and_then(fleet::duration);
    let known = KnownInstant {
        valid_through,
        clock_offset_nanoseconds: i64::try_from(offset).ok()?,
        uncertainty: uncertainty.unwrap_or_default(),
    };
    Some(recovery_point_age(now, known))
}

/// The job that works on each VM: the first of its exclusive lane, or else the newest of its shared one.
fn active_jobs(jobs: &[Job]) -> BTreeMap<String, JobId> {
    let mut active = BTreeMap::new();
    let under_way = || jobs.iter().filter(|job: &&Job| !job.state.has_ended());
    for job in under_way().filter(|job| job.kind.lane() == Lane::Shared) {
        active.insert(job.vm.clone(), job.id.clone());
    }
    for job in under_way().rev().filter(|job| job.kind.lane() == Lane::Exclusive) {
        active.insert(job.vm.clone(), job.id.clone());
    }
    active
}

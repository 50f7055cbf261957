//! A protected VM, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{AuditView, CycleTimesView, Listed, MachineView, PointView, RecoveredView, seconds, state};
use crate::output::format;

/// A VM under protection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VmView {
    pub(crate) name: String,
    pub(crate) policy: String,
    /// `null`: it is in no consistency group.
    pub(crate) group: Option<String>,
    pub(crate) source_site: String,
    pub(crate) target_site: String,
    pub(crate) state: String,
    pub(crate) state_detail: String,
    pub(crate) failover: String,
    pub(crate) health: String,
    pub(crate) health_reasons: Vec<HealthReasonView>,
    /// `null`: there is no point yet.
    pub(crate) rpo_seconds: Option<f64>,
    pub(crate) rpo_target_seconds: Option<f64>,
    pub(crate) sync_done_bytes: u64,
    pub(crate) sync_total_bytes: u64,
    pub(crate) sync_bytes_per_second: f64,
    pub(crate) backlog_bytes: u64,
    pub(crate) points: u64,
    pub(crate) newest_point: Option<PointView>,
    pub(crate) allowed_operations: Vec<String>,
    pub(crate) checks: Vec<CheckView>,
    pub(crate) volumes: Vec<VolumeView>,
    pub(crate) machine: Option<MachineView>,
    pub(crate) source_phase: String,
    pub(crate) source_detail: String,
    /// `null`: none works on it.
    pub(crate) active_job: Option<String>,
    pub(crate) recovered: Option<RecoveredView>,
    pub(crate) last_cycle_seconds: Option<f64>,
    pub(crate) last_hold_seconds: Option<f64>,
    /// `null`: no cycle has ended yet.
    pub(crate) last_cycle_times: Option<CycleTimesView>,
    pub(crate) audit: Option<AuditView>,
}

/// Why health is what it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthReasonView {
    pub(crate) code: String,
    pub(crate) what: String,
    pub(crate) possible_cause: String,
    pub(crate) what_to_do: String,
}

/// A prerequisite that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckView {
    pub(crate) code: String,
    pub(crate) outcome: String,
    pub(crate) found: String,
    pub(crate) remedy: String,
}

/// A disk, as replicated.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeView {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
}

impl From<v1::Vm> for VmView {
    fn from(vm: v1::Vm) -> Self {
        Self {
            state: state("PROTECTION_STATE_", vm.state().as_str_name()),
            failover: state("FAILOVER_STATE_", vm.failover().as_str_name()),
            health: state("REPLICATION_HEALTH_", vm.health().as_str_name()),
            source_phase: state("SOURCE_PHASE_", vm.source_phase().as_str_name()),
            name: vm.name,
            policy: vm.policy,
            group: Some(vm.group).filter(|group| !group.is_empty()),
            source_site: vm.source_site,
            target_site: vm.target_site,
            state_detail: vm.state_detail,
            health_reasons: vm
                .health_reasons
                .into_iter()
                .map(HealthReasonView::from)
                .collect(),
            rpo_seconds: seconds(vm.rpo),
            rpo_target_seconds: seconds(vm.rpo_target),
            sync_done_bytes: vm.sync_done_bytes,
            sync_total_bytes: vm.sync_total_bytes,
            sync_bytes_per_second: vm.sync_bytes_per_second,
            backlog_bytes: vm.backlog_bytes,
            points: vm.points,
            newest_point: vm.newest.map(PointView::from),
            allowed_operations: vm.allowed_operations,
            checks: vm.checks.into_iter().map(CheckView::from).collect(),
            volumes: vm.volumes.into_iter().map(VolumeView::from).collect(),
            machine: vm.machine.map(MachineView::from),
            source_detail: vm.source_detail,
            active_job: Some(vm.active_job).filter(|job| !job.is_empty()),
            recovered: vm.recovered.map(RecoveredView::from),
            last_cycle_seconds: seconds(vm.last_cycle),
            last_hold_seconds: seconds(vm.last_hold),
            last_cycle_times: vm.last_cycle_times.map(CycleTimesView::from),
            audit: vm.audit.map(AuditView::from),
        }
    }
}

impl From<v1::HealthReason> for HealthReasonView {
    fn from(reason: v1::HealthReason) -> Self {
        Self {
            code: reason.code,
            what: reason.what,
            possible_cause: reason.possible_cause,
            what_to_do: reason.what_to_do,
        }
    }
}

impl From<v1::Check> for CheckView {
    fn from(check: v1::Check) -> Self {
        Self {
            outcome: state("CHECK_OUTCOME_", check.outcome().as_str_name()),
            code: check.code,
            found: check.found,
            remedy: check.remedy,
        }
    }
}

impl From<v1::Volume> for VolumeView {
    fn from(volume: v1::Volume) -> Self {
        Self {
            name: volume.name,
            size_bytes: volume.size_bytes,
        }
    }
}

impl VmView {
    /// How far the initial sync is, where there is something to say: `120 MiB of 1.2 GiB`.
    pub(crate) fn sync_progress(&self) -> Option<String> {
        let done = format::size(self.sync_done_bytes);
        (self.sync_total_bytes > 0).then(|| format!("{done} of {}", format::size(self.sync_total_bytes)))
    }
}

impl Listed for VmView {
    const HEADINGS: &'static [&'static str] =
        &["name", "state", "health", "failover", "rpo", "points", "sites"];
    const WIDE_HEADINGS: &'static [&'static str] = &[
        "policy",
        "rpo target",
        "synchronized",
        "backlog",
        "last cycle",
        "source",
        "job",
    ];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            self.health.clone(),
            self.failover.clone(),
            format::optional_seconds(self.rpo_seconds),
            self.points.to_string(),
            format!("{} -> {}", self.source_site, self.target_site),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            self.policy.clone(),
            format::optional_seconds(self.rpo_target_seconds),
            self.sync_progress().unwrap_or_else(|| format::NOTHING.to_owned()),
            format::size(self.backlog_bytes),
            format::optional_seconds(self.last_cycle_seconds),
            self.source_phase.clone(),
            format::or_nothing(self.active_job.as_deref().unwrap_or_default()),
        ]
    }
}

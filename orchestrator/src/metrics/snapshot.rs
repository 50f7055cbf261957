//! What the control plane knows at one moment, as far as metrics show it.

use std::{collections::BTreeMap, time::Duration};

use farshore_blocks::{ByteCount, clock::WallTime};
use farshore_proto::v1;

use crate::fleet::FleetView;

/// All that the gauges show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControlSnapshot {
    /// The protected VMs.
    pub vms: Vec<VmSnapshot>,
    /// The vaults.
    pub vaults: Vec<VaultSnapshot>,
    /// The replicators.
    pub replicators: Vec<ReplicatorSnapshot>,
    /// How many jobs are in each state; states that are left out have none.
    pub jobs: BTreeMap<v1::JobState, u64>,
}

/// One protected VM. What is not known, or does not exist yet, is `None` and has no series.
#[derive(Debug, Clone, PartialEq)]
pub struct VmSnapshot {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: v1::ProtectionState,
    /// Its replication health.
    pub health: v1::ReplicationHealth,
    /// The seconds of data that would be lost now; never better than the truth.
    pub rpo: Option<Duration>,
    /// Its policy's target.
    pub rpo_target: Duration,
    /// The instants of the newest crash-consistent and of the newest app-consistent point.
    pub newest_points: Vec<(v1::PointKind, WallTime)>,
    /// How many recovery points it has.
    pub recovery_points: Option<u64>,
    /// How far its initial sync is; also after it is done.
    pub initial_sync: Option<SyncProgress>,
    /// How long its last cycle took.
    pub last_cycle: Option<Duration>,
    /// How much was changed and is not shipped yet.
    pub backlog: Option<ByteCount>,
    /// When a test failover of it last succeeded.
    pub last_successful_test: Option<WallTime>,
}

/// How far a sync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncProgress {
    /// What is at the target.
    pub done: ByteCount,
    /// What there is to bring there.
    pub total: ByteCount,
}

/// One vault, named after its replicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSnapshot {
    /// The replicator that owns it.
    pub name: String,
    /// What it takes.
    pub used: ByteCount,
    /// What its file system has left.
    pub free: ByteCount,
}

/// One replicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicatorSnapshot {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Whether it is attached and reports.
    pub up: bool,
}

impl ControlSnapshot {
    /// A snapshot of the fleet's part: replicators, and the vaults of those that are up.
    #[must_use]
    pub fn of_fleet(view: &FleetView) -> Self {
        let mut snapshot = Self::default();
        for (name, replicator) in &view.replicators {
            snapshot.replicators.push(ReplicatorSnapshot {
                name: name.clone(),
                site: replicator.register.site.clone(),
                up: replicator.up,
            });
            let report = replicator.report.as_ref().filter(|_| replicator.up);
            if let Some(vault) = report.and_then(|report| report.vault.as_ref()) {
                snapshot.vaults.push(VaultSnapshot {
                    name: name.clone(),
                    used: ByteCount(vault.used_bytes),
                    free: ByteCount(vault.free_bytes),
                });
            }
        }
        snapshot
    }

    /// Counts one job more in `state`.
    pub fn count_job(&mut self, state: v1::JobState) {
        let count = self.jobs.entry(state).or_default();
        *count = count.saturating_add(1);
    }
}

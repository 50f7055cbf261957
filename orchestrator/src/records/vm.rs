//! The record of a protected VM: what was done about it and what was found.

use std::time::Duration;

use farshore_blocks::{ChainId, Epoch, HolderNonce, Incarnation, Sequence, clock::WallTime};
use farshore_domain::{
    allowed_operations::Points,
    failover::Failover,
    job::JobId,
    point_choice::PointChoice,
    protection::{self, Protection},
};
use serde::{Deserialize, Serialize};

use super::Record;

/// A protected VM. What is declared of it is a record of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its name.
    pub name: String,
    /// Where its protection is.
    pub protection: Protection,
    /// Where its failover is.
    pub failover: Failover,
    /// Its recovery points' chain, named before anything was done.
    pub chain: ChainId,
    /// Who shall write the chain, named before anything was done.
    pub holder: HolderNonce,
    /// The result of the last prerequisites check.
    pub checks: Vec<CheckRecord>,
    /// Its volumes, as the last check found them.
    pub volumes: Vec<VolumeRecord>,
    /// What the target granted to the source.
    pub tenure: Option<Tenure>,
    /// The name of the source site's replicator that was chosen for it; absent before, and where the site had but one when that was not
    /// written down yet.
    #[serde(default)]
    pub source_replicator: Option<String>,
    /// Whether the vault was ever seen to hold a point.
    pub points: PointsSeen,
    /// The job that was planned last for its protection or failover.
    pub latest_job: JobId,
    /// How many test failovers it has had.
    pub tests: u32,
    /// How many failovers it has had.
    pub failovers: u32,
    /// The failover that was ordered last.
    pub recovery: Option<Recovery>,
    /// What was last told of its vault.
    #[serde(default)]
    pub vault: VaultTold,
    /// Of the last difference that was told: when the source's audit found it, by the source's clock.
    #[serde(default)]
    pub audit_told: Option<WallTime>,
    /// Why its source does not go on with the disks that are declared; empty while it does.
    #[serde(default)]
    pub disks_refused: String,
    /// Of the last loss of tracking that was told: when it was noticed, by the source's clock.
    #[serde(default)]
    pub tracking_lost_told: Option<WallTime>,
    /// What was last told of its source's interruptions.
    #[serde(default)]
    pub interruption: InterruptionTold,
}

/// What was last told of interruptions of replication, so that each is told once, and not too many of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptionTold {
    /// Nothing yet.
    #[default]
    Nothing,
    /// That it is interrupted, since then.
    Interrupted(WallTime),
    /// That it goes on; the interruption before was told then.
    GoesOn(WallTime),
}

/// What was last told of the recovery points in the vault, so that a change is told once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VaultTold {
    /// That they are sound, or nothing yet.
    #[default]
    Sound,
    /// That some are damaged.
    Damaged,
}

/// A check of the prerequisites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// A stable code in kebab case.
    pub code: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckOutcome {
    /// All is well.
    Passed,
    /// It will work, but not well.
    Warning,
    /// It cannot work.
    Failed,
}

/// A volume of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
}

/// What the target granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The life of the vault.
    pub incarnation: Incarnation,
    /// The source's epoch.
    pub epoch: Epoch,
}

/// Whether the vault was ever seen to hold a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointsSeen {
    /// Not yet.
    None,
    /// At least one.
    Some,
}

/// A failover as it was ordered and as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The recovered VM's name.
    pub id: String,
    /// The job that works on it, or did last.
    pub job: JobId,
    /// Who takes the chain over, named before anything was done.
    pub holder: HolderNonce,
    /// Which point was ordered.
    pub choice: PointChoice,
    /// The new epoch: from it on the old source is refused.
    pub epoch: Option<Epoch>,
    /// Which point it became.
    pub point: Option<Sequence>,
    /// The VM as it was started.
    pub started: Option<Started>,
}

/// A recovered VM as it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its process.
    pub pid: u32,
    /// Its monitor's socket.
    pub monitor: String,
    /// Its network namespace; empty on a bridge of the site.
    pub namespace: String,
    /// The ways out of its bubble; empty is isolated.
    pub ways_out: Vec<String>,
    /// From the order to its running.
    pub order_to_running: Duration,
}

impl Record for VmRecord {
    const KIND: &'static str = "vm";

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl VmRecord {
    /// A VM about which nothing was done yet.
    #[must_use]
    pub fn new(name: &str, chain: ChainId, holder: HolderNonce, job: JobId) -> Self {
        Self {
            name: name.to_owned(),
            protection: Protection::Pending,
            failover: Failover::None,
            chain,
            holder,
            checks: Vec::new(),
            volumes: Vec::new(),
            tenure: None,
            source_replicator: None,
            points: PointsSeen::None,
            latest_job: job,
            tests: 0,
            failovers: 0,
            recovery: None,
            vault: VaultTold::Sound,
            audit_told: None,
            disks_refused: String::new(),
            tracking_lost_told: None,
            interruption: InterruptionTold::Nothing,
        }
    }

    /// What it works on in events, like `vm/shop-db`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("vm/{}", self.name)
    }

    /// Whether there is something to recover from.
    #[must_use]
    pub fn known_points(&self) -> Points {
        match self.points {
            PointsSeen::Some => Points::Some,
            PointsSeen::None => Points::NoneKnown,
        }
    }

    /// Takes in an event of its protection.
    ///
    /// # Errors
    /// When it does not fit the state.
    pub fn protect(
        &mut self,
        event: protection::Event,
    ) -> Result<Vec<protection::Effect>, protection::Refused> {
        let (next, effects) = protection::step(&self.protection, event)?;
        if next == Protection::Protected {
            self.points = PointsSeen::Some;
        }
        self.protection = next;
        Ok(effects)
    }
}

//! What this replicator was told to protect, kept on disk so that it goes on without an orchestrator.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use farshore_blocks::{ByteCount, ChainId, Epoch};
use farshore_provider::MachineSpecification;
use serde::{Deserialize, Serialize};

use crate::{
    chain_files::{ChainFileError, ChainFiles},
    source::LinkLimit,
};

/// Whether replication runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Standing {
    /// Assigned; not enabled yet.
    Installed,
    /// Replicating.
    Enabled,
    /// The target has refused this epoch for good.
    Fenced,
}

/// What is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SourcePlace {
    /// A VM that runs, by the socket of its QMP monitor.
    Monitor(PathBuf),
    /// Files or block devices without a hypervisor, in the order of the machine's disks.
    Disks(Vec<PathBuf>),
}

/// Who opens the connections between a source and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialler {
    Source,
    Target,
}

/// One volume, with the size that it had when it was assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AssignedVolume {
    pub(crate) name: String,
    pub(crate) size: ByteCount,
}

/// One protected VM, as its source's replicator must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Assignment {
    pub(crate) chain: ChainId,
    pub(crate) epoch: Epoch,
    pub(crate) standing: Standing,
    pub(crate) machine: MachineSpecification,
    #[serde(flatten)]
    pub(crate) place: SourcePlace,
    /// Empty: the target dials.
    pub(crate) target_endpoint: String,
    pub(crate) interval: Duration,
    /// Bytes a second; `None` is not limited.
    pub(crate) bandwidth: Option<ByteCount>,
    /// Of the link that it shares with other VMs.
    #[serde(default)]
    pub(crate) link: Option<LinkLimit>,
    /// How many bytes a second the audit compares; 0 is none.
    #[serde(default)]
    pub(crate) audit_rate: ByteCount,
    /// In fast mode: for how many hundredths of the time the guest's writes may be held; 0 is no fast mode.
    #[serde(default)]
    pub(crate) guest_cost_limit_percent: u32,
    #[serde(default)]
    pub(crate) app_consistency: Option<AppConsistency>,
    /// The socket of the guest agent's channel.
    #[serde(default)]
    pub(crate) guest_agent: Option<PathBuf>,
    #[serde(default)]
    pub(crate) membership: Option<Membership>,
    pub(crate) volumes: Vec<AssignedVolume>,
}

impl Assignment {
    /// Who opens connections.
    pub(crate) fn dialler(&self) -> Dialler {
        if self.target_endpoint.is_empty() {
            Dialler::Target
        } else {
            Dialler::Source
        }
    }

    /// By what it replicates.
    pub(crate) fn policy(&self) -> SourcePolicy {
        SourcePolicy {
            interval: self.interval,
            bandwidth: self.bandwidth,
            link: self.link.clone(),
            audit_rate: self.audit_rate,
            guest_cost_limit_percent: self.guest_cost_limit_percent,
            app_consistency: self.app_consistency,
        }
    }

    /// It, replicating by `policy`.
    pub(crate) fn by(self, policy: SourcePolicy) -> Self {
        Self {
            interval: policy.interval,
            bandwidth: policy.bandwidth,
            link: policy.link,
            audit_rate: policy.audit_rate,
            guest_cost_limit_percent: policy.guest_cost_limit_percent,
            app_consistency: policy.app_consistency,
            ..self
        }
    }
}

/// A source's place in a consistency group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    pub(crate) group: String,
    /// The names of all its VMs.
    pub(crate) members: Vec<String>,
    /// How long a guest may be stopped for an instant.
    pub(crate) hold_limit: Duration,
    /// The socket of the VM's second monitor.
    pub(crate) watchdog_monitor: Option<PathBuf>,
    /// Where the members meet if their sources are at several replicators; `None`: they are all at this one.
    #[serde(default)]
    pub(crate) leader: Option<GroupLeader>,
}

/// The replicator at which the members of a group meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupLeader {
    /// Its name.
    pub(crate) replicator: String,
    /// Where the other replicators of its site dial it.
    pub(crate) endpoint: String,
}

impl Membership {
    /// Whether nothing but where the members meet tells it from `other`.
    pub(crate) fn is_same_but_led(&self, other: &Self) -> bool {
        let led_as_other = Self {
            leader: other.leader.clone(),
            ..self.clone()
        };
        led_as_other == *other
    }

    /// Whether there is anybody to take an instant with.
    pub(crate) fn has_others(&self) -> bool {
        self.members.len() > 1
    }
}

/// Application-consistent points are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppConsistency {
    /// From one to the next.
    pub(crate) every: Duration,
    /// How long the guest may be frozen, freezing included.
    pub(crate) freeze_limit: Duration,
}

/// What a source is told of its policy, and of its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourcePolicy {
    /// From one cycle's begin to the next one's.
    pub(crate) interval: Duration,
    /// Bytes a second; `None` is not limited.
    pub(crate) bandwidth: Option<ByteCount>,
    /// Of the link that it shares with other VMs; `None` is not limited.
    pub(crate) link: Option<LinkLimit>,
    /// How many bytes a second the audit compares; 0 is none.
    pub(crate) audit_rate: ByteCount,
    /// In fast mode: for how many hundredths of the time the guest's writes may be held; 0 is no fast mode.
    pub(crate) guest_cost_limit_percent: u32,
    pub(crate) app_consistency: Option<AppConsistency>,
}

/// The assignments of this replicator, in `<state directory>/assignments/`.
pub(crate) type AssignmentFiles = ChainFiles<Assignment>;

/// Opens them.
pub(crate) fn open(state_directory: &Path) -> Result<AssignmentFiles, ChainFileError> {
    ChainFiles::open(state_directory.join("assignments"))
}

//! Where recovered VMs run: *prepare, start, probe, stop, discard*.

use std::{fmt, future::Future, path::PathBuf};

use farshore_blocks::ByteCount;
use serde::{Deserialize, Serialize};

use crate::{check::Check, machine::MachineSpecification};

/// The name of one recovered VM: 1 to 32 of `a-z`, `0-9` and `-`, so that it fits names of namespaces and nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecoveryId(String);

impl RecoveryId {
    /// How many bytes one may have: a VM's name of 20, a letter and a running number.
    pub const LONGEST: usize = 32;

    /// The identifier with this text, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= Self::LONGEST
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecoveryId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl TryFrom<String> for RecoveryId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or_else(|| {
            format!(
                "`{text}` is no recovery identifier: 1 to {} of a-z, 0-9 and -",
                Self::LONGEST
            )
        })
    }
}

impl From<RecoveryId> for String {
    fn from(id: RecoveryId) -> Self {
        id.0
    }
}

/// One disk of a recovered VM: an overlay will be put on a read-only export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryDisk {
    /// The volume's name, which is also the export's name.
    pub name: String,
    /// Its size.
    pub size: ByteCount,
    /// The unix socket of the NBD server that exports it.
    pub export_socket: PathBuf,
}

/// Where a recovered VM's network cards are plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkAttachment {
    /// A network of its own, shared by all VMs of the same bubble, without a way out.
    Bubble {
        /// The bubble's name.
        name: RecoveryId,
    },
    /// An existing bridge of the target site.
    Bridge {
        /// Its name.
        bridge: String,
    },
}

/// What is to run, on what, where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryRequest {
    /// Its name.
    pub id: RecoveryId,
    /// The machine to rebuild.
    pub machine: MachineSpecification,
    /// Its disks, in the machine's order.
    pub disks: Vec<RecoveryDisk>,
    /// Its network.
    pub network: NetworkAttachment,
}

/// What a probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VmCondition {
    /// Nothing is known of it.
    Absent,
    /// Prepared, not running.
    Prepared,
    /// Its processors run.
    Running,
    /// It exists, but its processors do not run (an I/O error, an operator's pause).
    Suspended,
    /// It ended.
    Ended,
}

/// A recovered VM that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredVm {
    /// Its name.
    pub id: RecoveryId,
    /// Its process.
    pub pid: u32,
    /// Its monitor.
    pub monitor: PathBuf,
    /// The network namespace that it runs in, if it has one of its own.
    pub namespace: Option<String>,
}

/// What was looked at to say that a bubble has no way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IsolationProof {
    /// The bubble's namespace.
    pub namespace: String,
    /// Every interface in it.
    pub interfaces: Vec<String>,
    /// Whatever could lead out: a link that is no tap, bridge or loopback; a default route. Empty when isolated.
    pub ways_out: Vec<String>,
}

/// Something that should be gone and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leak {
    /// `process`, `namespace`, `interface`, `file` or `socket`.
    pub kind: String,
    /// Which.
    pub name: String,
}

/// Why a recovered VM could not be run or removed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// What was asked for does not fit this site.
    #[error("recovered VM `{id}` cannot run here: {why}")]
    Unfit {
        /// Which VM.
        id: RecoveryId,
        /// What is wrong and what would be accepted.
        why: String,
    },
    /// A tool or the hypervisor failed.
    #[error("{action} for recovered VM `{id}` failed: {output}")]
    Tool {
        /// Which VM.
        id: RecoveryId,
        /// What was attempted.
        action: String,
        /// What the tool printed.
        output: String,
    },
    /// The file system or a process could not be used.
    #[error("{action} for recovered VM `{id}` failed")]
    Io {
        /// Which VM.
        id: RecoveryId,
        /// What was attempted.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing of that name was prepared here.
    #[error("no recovered VM `{0}` is known here")]
    Unknown(RecoveryId),
    /// Its monitor does not answer.
    #[error("the monitor of recovered VM `{id}` cannot be used")]
    Monitor {
        /// Which VM.
        id: RecoveryId,
        /// What happened on the way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A place where recovered VMs run. Every operation may be repeated: what is done already stays done.
pub trait Compute: Send + Sync {
    /// Looks at every prerequisite of running this machine here.
    fn checks(
        &self,
        machine: &MachineSpecification,
        network: &NetworkAttachment,
    ) -> impl Future<Output = Vec<Check>> + Send;

    /// Lays out what the VM needs: directory, overlays, network.
    fn prepare(&self, request: &RecoveryRequest) -> impl Future<Output = Result<(), ComputeError>> + Send;

    /// Starts it; done when its processors run. A VM that runs already is adopted.
    fn start(&self, id: &RecoveryId) -> impl Future<Output = Result<RecoveredVm, ComputeError>> + Send;

    /// What it does now.
    fn probe(&self, id: &RecoveryId) -> impl Future<Output = Result<VmCondition, ComputeError>> + Send;

    /// Looks whether the VM's bubble leads anywhere.
    fn prove_isolation(
        &self,
        id: &RecoveryId,
    ) -> impl Future<Output = Result<IsolationProof, ComputeError>> + Send;

    /// Ends it, at once.
    fn stop(&self, id: &RecoveryId) -> impl Future<Output = Result<(), ComputeError>> + Send;

    /// Ends it and removes everything that was made for it; says what is still there.
    fn discard(&self, id: &RecoveryId) -> impl Future<Output = Result<Vec<Leak>, ComputeError>> + Send;

    /// Every recovered VM that was prepared here, also by a predecessor of this process.
    fn list(&self) -> impl Future<Output = Result<Vec<RecoveryId>, ComputeError>> + Send;
}

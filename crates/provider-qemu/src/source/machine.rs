//! Whether the VM behind the monitor is the one that was declared.

use std::collections::BTreeSet;

use farshore_provider::{MachineSpecification, SourceError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{hypervisor::Hypervisor, survey::property_value};

/// What the hypervisor says of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedMachine {
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    /// Lower-case; all zeroes if it has none.
    pub(crate) uuid: String,
    /// Of the network cards that can be seen.
    pub(crate) macs: BTreeSet<String>,
    pub(crate) running: Running,
}

/// Whether its processors run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Running {
    Yes,
    /// In this status.
    No(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MemorySummary {
    base_memory: u64,
    #[serde(default)]
    plugged_memory: u64,
}

#[derive(Deserialize)]
struct Uuid {
    #[serde(rename = "UUID")]
    uuid: String,
}

/// The answer of `query-status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    running: bool,
    status: String,
}

impl Status {
    /// Whether its processors were stopped because a write failed for want of space.
    pub(crate) fn is_io_error(&self) -> bool {
        self.status == "io-error"
    }

    /// Whether its processors run.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Whether someone stopped them.
    pub(crate) fn is_paused(&self) -> bool {
        self.status == "paused"
    }

    /// Whether the disks are this process's, and why they are not: a migration hands them from one to another.
    pub(crate) fn disks_elsewhere(&self) -> Option<&'static str> {
        match self.status.as_str() {
            "postmigrate" | "finish-migrate" => {
                Some("it has migrated to another hypervisor, and its disks with it; name its monitor there")
            }
            "inmigrate" => Some("it is about to migrate here, and its disks are another hypervisor's still"),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Property {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Asks.
pub(crate) async fn observe(hypervisor: &Hypervisor) -> Result<ObservedMachine, SourceError> {
    let processors: Vec<Value> = hypervisor.query("query-cpus-fast", Value::Null).await?;
    let memory: MemorySummary = hypervisor.query("query-memory-size-summary", Value::Null).await?;
    let uuid: Uuid = hypervisor.query("query-uuid", Value::Null).await?;
    let status: Status = hypervisor.query("query-status", Value::Null).await?;
    Ok(ObservedMachine {
        processors: processors.len(),
        memory_bytes: memory.base_memory.saturating_add(memory.plugged_memory),
        uuid: uuid.uuid.to_lowercase(),
        macs: macs(hypervisor).await?,
        running: if status.running {
            Running::Yes
        } else {
            Running::No(status.status)
        },
    })
}

/// Devices with a name and without; those that the machine brings along are not listed there.
async fn macs(hypervisor: &Hypervisor) -> Result<BTreeSet<String>, SourceError> {
    let mut macs = BTreeSet::new();
    for container in ["/machine/peripheral", "/machine/peripheral-anon"] {
        let devices: Vec<Property> = hypervisor.query("qom-list", json!({"path": container})).await?;
        for device in devices.iter().filter(|device| device.kind.starts_with("child<")) {
            let path = format!("{container}/{}", device.name);
            let mac = property_value(hypervisor, &path, "mac").await?;
            macs.extend(mac.as_ref().and_then(Value::as_str).map(str::to_lowercase));
        }
    }
    Ok(macs)
}

impl ObservedMachine {
    /// In what it is not the declared machine.
    pub(crate) fn mismatches(&self, declared: &MachineSpecification) -> Vec<String> {
        let mut mismatches = Vec::new();
        if u32::try_from(self.processors) != Ok(declared.processors) {
            mismatches.push(format!(
                "the VM has {} processors, {} are declared",
                self.processors, declared.processors
            ));
        }
        if self.memory_bytes != declared.memory.0 {
            mismatches.push(format!(
                "the VM has {} B of memory, {} are declared",
                self.memory_bytes, declared.memory
            ));
        }
        if let Some(uuid) = &declared.uuid
            && uuid.to_lowercase() != self.uuid
        {
            mismatches.push(format!("the VM's UUID is {}, {uuid} is declared", self.uuid));
        }
        mismatches
    }

    /// Declared network cards that were not seen.
    pub(crate) fn unseen_macs(&self, declared: &MachineSpecification) -> Vec<String> {
        let macs = declared.nics.iter().map(|nic| nic.mac.to_lowercase());
        macs.filter(|mac| !self.macs.contains(mac)).collect()
    }
}

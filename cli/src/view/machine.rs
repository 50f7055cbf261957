//! The machine of a protected VM, as shown.

use farshore_proto::v1;
use serde::Serialize;

/// What is rebuilt at the target.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineView {
    /// `null`: not fixed.
    pub(crate) uuid: Option<String>,
    pub(crate) processors: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) firmware: String,
    pub(crate) machine_type: String,
    pub(crate) disks: Vec<DiskView>,
    pub(crate) nics: Vec<NicView>,
}

/// One disk.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskView {
    pub(crate) name: String,
    pub(crate) device: String,
    pub(crate) bus: String,
}

/// One network card.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NicView {
    pub(crate) mac: String,
}

impl From<v1::Machine> for MachineView {
    fn from(machine: v1::Machine) -> Self {
        let disks = machine.disks.into_iter();
        Self {
            uuid: Some(machine.uuid).filter(|uuid| !uuid.is_empty()),
            processors: machine.processors,
            memory_bytes: machine.memory_bytes,
            firmware: machine.firmware,
            machine_type: machine.machine_type,
            disks: disks
                .map(|disk| DiskView {
                    name: disk.name,
                    device: disk.device,
                    bus: disk.bus,
                })
                .collect(),
            nics: machine
                .nics
                .into_iter()
                .map(|nic| NicView { mac: nic.mac })
                .collect(),
        }
    }
}

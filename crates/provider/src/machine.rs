//! The machine of a protected VM, as it is declared, checked at the source and rebuilt at the target. It travels
//! with every recovery point as JSON.

use farshore_blocks::ByteCount;
use serde::{Deserialize, Serialize};

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Firmware {
    /// A PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskBus {
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
}

/// One disk; its place in the list is its volume index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskSpecification {
    /// Its name, unique in the VM.
    pub name: String,
    /// The identifier of its device in the hypervisor (`-device …,id=`).
    pub device: String,
    /// How it is attached.
    pub bus: DiskBus,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicSpecification {
    /// Its MAC address, six pairs of lower-case hexadecimal digits with colons.
    pub mac: String,
}

/// The machine of a protected VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineSpecification {
    /// The protected VM's name.
    pub vm: String,
    /// Its UUID, if it has one that must be kept.
    pub uuid: Option<String>,
    /// How many processors.
    pub processors: u32,
    /// How much memory.
    pub memory: ByteCount,
    /// What starts it.
    pub firmware: Firmware,
    /// The hypervisor's machine type, like `pc` or `q35`.
    pub machine_type: String,
    /// Its disks; the first one boots.
    pub disks: Vec<DiskSpecification>,
    /// Its network cards.
    pub nics: Vec<NicSpecification>,
}

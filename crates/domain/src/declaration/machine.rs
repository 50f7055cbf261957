//! The machine of a protected VM as it is declared: what the source is compared with and the target rebuilds.

use farshore_blocks::ByteCount;
use serde::Serialize;

use super::{
    cursor::Cursor,
    fields::Fields,
    problems::Problems,
    size::{self, format_size},
    text::{DeviceIdentifier, MacAddress, MachineType, MachineUuid, Name},
};

/// How many disks a machine may have.
pub const MAX_DISKS: usize = 64;
/// How many network cards a machine may have.
pub const MAX_NICS: usize = 32;
const MAX_PROCESSORS: u32 = 1024;
const MEBIBYTE: u64 = 1 << 20;
const MOST_MEMORY: ByteCount = ByteCount(16 << 40);

/// A declared machine. It has at least one disk; disk names, devices and MAC addresses are unique in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    processors: u32,
    #[serde(serialize_with = "size::serialize")]
    memory: ByteCount,
    firmware: Firmware,
    machine_type: MachineType,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<MachineUuid>,
    disks: Vec<Disk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nics: Vec<Nic>,
}

/// What starts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Firmware {
    /// A PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskBus {
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
}

/// One disk; its place in the list is its volume's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Its name, unique in the machine.
    pub name: Name,
    /// The identifier of its device in the hypervisor, unique in the machine.
    pub device: DeviceIdentifier,
    /// How it is attached.
    pub bus: DiskBus,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Its address, unique in the machine.
    pub mac: MacAddress,
}

impl Machine {
    /// How many processors it has.
    #[must_use]
    pub fn processors(&self) -> u32 {
        self.processors
    }

    /// How much memory it has: whole MiB.
    #[must_use]
    pub fn memory(&self) -> ByteCount {
        self.memory
    }

    /// What starts it.
    #[must_use]
    pub fn firmware(&self) -> Firmware {
        self.firmware
    }

    /// The hypervisor's machine type.
    #[must_use]
    pub fn machine_type(&self) -> &MachineType {
        &self.machine_type
    }

    /// Its UUID, if it has one that must be kept.
    #[must_use]
    pub fn uuid(&self) -> Option<&MachineUuid> {
        self.uuid.as_ref()
    }

    /// Its disks; the first one boots.
    #[must_use]
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Its network cards.
    #[must_use]
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// Whether nothing but the disks tells it from `other`.
    #[must_use]
    pub fn is_same_but_disks(&self, other: &Self) -> bool {
        let with_others_disks = Self {
            disks: other.disks.clone(),
            ..self.clone()
        };
        with_others_disks == *other
    }

    pub(super) fn read(machine: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let known = [
            "processors",
            "memory",
            "firmware",
            "machineType",
            "uuid",
            "disks",
            "nics",
        ];
        let fields = Fields::open(machine, &known, problems)?;
        let processors = fields.required("processors", problems, |processors, problems| {
            processors.number(1, MAX_PROCESSORS, problems)
        });
        let memory = fields.required("memory", problems, read_memory);
        let firmware = fields.required("firmware", problems, |firmware, problems| {
            firmware.choice("a firmware", &Firmware::NAMES, problems)
        });
        let machine_type = fields.required("machineType", problems, Cursor::parsed);
        let uuid = fields.optional("uuid", problems, Cursor::parsed);
        let disks = fields.required("disks", problems, read_disks);
        let nics = fields.optional("nics", problems, |nics, problems| {
            let read = nics.list(MAX_NICS, problems, Nic::read)?;
            nics.refuse_repeated("mac", read.iter().map(|nic| nic.mac.as_str()), problems)?;
            Some(read)
        });
        Some(Self {
            processors: processors?,
            memory: memory?,
            firmware: firmware?,
            machine_type: machine_type?,
            uuid: uuid?,
            disks: disks?,
            nics: nics?.unwrap_or_default(),
        })
    }
}

fn read_memory(memory: &Cursor<'_>, problems: &mut Problems) -> Option<ByteCount> {
    let read = memory.size(problems)?;
    if read.0 == 0 || read > MOST_MEMORY || !read.0.is_multiple_of(MEBIBYTE) {
        let most = format_size(MOST_MEMORY);
        let found = memory.written();
        let message = format!("`{found}` is not a whole number of MiB, from `1MiB` to `{most}`");
        return memory.refuse(message, problems);
    }
    Some(read)
}

fn read_disks(disks: &Cursor<'_>, problems: &mut Problems) -> Option<Vec<Disk>> {
    let read = disks.list(MAX_DISKS, problems, Disk::read)?;
    if read.is_empty() {
        return disks.refuse(
            "is empty; a protected VM has at least one disk, and the first one boots",
            problems,
        );
    }
    let names = read.iter().map(|disk| disk.name.as_str());
    let names = disks.refuse_repeated("name", names, problems);
    let devices = read.iter().map(|disk| disk.device.as_str());
    let devices = disks.refuse_repeated("device", devices, problems);
    names.and(devices).map(|()| read)
}

impl Firmware {
    const NAMES: [(&'static str, Self); 2] = [("bios", Self::Bios), ("uefi", Self::Uefi)];

    /// Its name in documents and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

impl DiskBus {
    const NAMES: [(&'static str, Self); 2] =
        [("virtioBlk", Self::VirtioBlk), ("virtioScsi", Self::VirtioScsi)];

    /// Its name in documents and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtioBlk",
            Self::VirtioScsi => "virtioScsi",
        }
    }
}

impl Disk {
    fn read(disk: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(disk, &["name", "device", "bus"], problems)?;
        let name = fields.required("name", problems, Cursor::parsed);
        let device = fields.required("device", problems, Cursor::parsed);
        let bus = fields.optional("bus", problems, |bus, problems| {
            bus.choice("a disk bus", &DiskBus::NAMES, problems)
        });
        Some(Self {
            name: name?,
            device: device?,
            bus: bus?.unwrap_or(DiskBus::VirtioBlk),
        })
    }
}

impl Nic {
    fn read(nic: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(nic, &["mac"], problems)?;
        Some(Self {
            mac: fields.required("mac", problems, Cursor::parsed)?,
        })
    }
}

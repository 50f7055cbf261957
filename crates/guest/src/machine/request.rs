//! What is wanted of a virtual machine.

use std::path::{Path, PathBuf};

use super::Tap;
use crate::{accelerator::Accelerator, image::GuestDisks};

/// The format of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// Bytes as they are.
    Raw,
    /// QEMU's own.
    Qcow2,
}

/// How the host caches a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// Not at all: `cache.direct=on`.
    None,
    /// In its page cache; the guest's flushes are honoured.
    Writeback,
}

/// A disk of the virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDisk {
    /// The name of its block node; its device is `vd` and this name.
    pub node: String,
    /// Its file.
    pub path: PathBuf,
    /// The file's format.
    pub format: DiskFormat,
}

/// What runs a disk's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskThreads {
    /// QEMU's main loop.
    MainLoop,
    /// An I/O thread a disk.
    IoThreads,
}

/// The machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineType {
    /// i440FX.
    Pc,
    /// Q35.
    Q35,
}

/// The network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// There is none.
    None,
    /// On a bridge of the host, or of one of its network namespaces.
    Tap(Tap),
}

/// The virtual machine that is wanted.
#[derive(Debug, Clone)]
pub struct SourceVmRequest {
    /// Its name.
    pub name: String,
    /// Its identity, as firmware and product see it; none lets QEMU leave it zero.
    pub uuid: Option<String>,
    /// Its disks; it boots from the first.
    pub disks: Vec<SourceDisk>,
    /// Its memory.
    pub memory_mib: u32,
    /// How many processors.
    pub processors: u32,
    /// The machine type.
    pub machine_type: MachineType,
    /// How the processors run.
    pub accelerator: Accelerator,
    /// How the host caches all disks.
    pub cache: CacheMode,
    /// What runs the disks' requests.
    pub disk_threads: DiskThreads,
    /// The network card.
    pub network: Network,
    /// The unix sockets of its monitors: the product's, a second one, …
    pub monitors: Vec<PathBuf>,
    /// Where QEMU appends what the guest tells the witness.
    pub witness: PathBuf,
    /// Where QEMU appends the serial console.
    pub console: PathBuf,
    /// Where QEMU writes its process number.
    pub pid_file: PathBuf,
    /// Further arguments of QEMU.
    pub extra_arguments: Vec<String>,
}

impl SourceVmRequest {
    /// A small machine with the guest's disks; every socket and file of it is put into `directory`, named after it.
    #[must_use]
    pub fn small(directory: &Path, name: &str, disks: &GuestDisks) -> Self {
        let beside = |ending: &str| directory.join(format!("{name}{ending}"));
        let disk = |node: &str, path: &Path, format| SourceDisk {
            node: node.to_owned(),
            path: path.to_owned(),
            format,
        };
        Self {
            name: name.to_owned(),
            uuid: None,
            disks: vec![
                disk("root", &disks.root, DiskFormat::Qcow2),
                disk("data", &disks.data, DiskFormat::Raw),
            ],
            memory_mib: 256,
            processors: 1,
            machine_type: MachineType::Pc,
            accelerator: Accelerator::Tcg,
            cache: CacheMode::None,
            disk_threads: DiskThreads::MainLoop,
            network: Network::None,
            monitors: vec![beside(".qmp"), beside(".qmp2")],
            witness: beside(".witness"),
            console: beside(".console"),
            pid_file: beside(".pid"),
            extra_arguments: Vec::new(),
        }
    }
}

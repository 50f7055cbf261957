//! In which form a VM's QEMU bears captures.
//!
//! What a version can do is probed (`capabilities.rs`); what makes it abort, guest and all, is not described anywhere and
//! is known by version alone. Before version 10, a disk that an I/O thread serves bears no node that is put above it
//! while it is busy, and no NBD client of its node that vanishes. All disks of a VM take the same form, so that they can
//! be taken at one instant.

use farshore_qmp::Version;

/// The first version whose I/O threads bear a filter and clients that vanish.
const FIRST_MAJOR_WITH_SAFE_IOTHREADS: u32 = 10;

/// How captures are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaptureForm {
    /// A copy-before-write filter below a wrapper; what is read is read through QEMU's own export of the snapshot.
    Filter,
    /// At an instant QEMU's backup job copies what changed to scratch files, which are read by us; live disks are read from
    /// their images. No node of ours is ever put above a disk, and no client of ours reads one through this QEMU.
    Copy,
}

/// Who serves the disks' requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskThreads {
    /// The main loop serves all of them.
    MainLoop,
    /// An I/O thread serves at least one.
    IoThread,
}

impl CaptureForm {
    /// The form that this version bears.
    pub(crate) fn of(version: Version, threads: DiskThreads) -> Self {
        match threads {
            DiskThreads::IoThread if version.major < FIRST_MAJOR_WITH_SAFE_IOTHREADS => Self::Copy,
            DiskThreads::IoThread | DiskThreads::MainLoop => Self::Filter,
        }
    }
}

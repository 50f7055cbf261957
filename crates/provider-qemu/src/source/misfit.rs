//! Why a disk cannot be captured, in words for people.

use farshore_blocks::ByteCount;

/// Why a disk cannot be captured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error("disk `{disk}`: the VM has no block device `{device}`")]
    NoDevice { disk: String, device: String },
    #[error("disk `{disk}`: device `{device}` has no medium")]
    NoMedium { disk: String, device: String },
    #[error("disk `{disk}` is read-only: nothing in it can change")]
    ReadOnly { disk: String },
    #[error(
        "disk `{disk}` is of format `{driver}`; qcow2 and raw, on a file or a host device, can be tracked"
    )]
    Format { disk: String, driver: String },
    #[error(
        "disk `{disk}`: another tool's block job (a backup, a mirror) works below Farshore's node; captures go on when it has ended"
    )]
    Job { disk: String },
    #[error("disk `{disk}` lies on `{protocol}`; only disks on a file or a host device can be tracked")]
    Protocol { disk: String, protocol: String },
    #[error("disk `{disk}`: its size of {size} is no multiple of 512")]
    OddSize { disk: String, size: ByteCount },
    #[error("disk `{disk}`: the nodes of Farshore around it lead nowhere")]
    Tangled { disk: String },
}

impl Misfit {
    /// Whether the declared disk is not there at all.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NoDevice { .. })
    }
}

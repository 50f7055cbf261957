//! What every provider implements: a [`Source`] of captures at the protected site, and [`Compute`] that runs
//! recovered VMs at the target site; and the words that both need.

mod check;
mod compute;
mod disk_file;
mod machine;
mod round;
mod source;

pub use check::{Check, CheckOutcome};
pub use compute::{
    Compute, ComputeError, IsolationProof, Leak, NetworkAttachment, RecoveredVm, RecoveryDisk, RecoveryId,
    RecoveryRequest, VmCondition,
};
pub use disk_file::{Caching, DiskFile};
pub use machine::{DiskBus, DiskSpecification, Firmware, MachineSpecification, NicSpecification};
pub use round::{Accord, InstantId, Participant, Settled, Word, convene, participate};
pub use source::{
    Capture, CaptureKind, CapturedVolume, Consistency, Outcome, ReplicaState, ScanState, Source, SourceError,
    StateOfBytes, StatedExtent, Tracking, TrackingIdentity,
};

//! Recovery points on disk: format, writer, reader, index, retention, compaction and verification.
//!
//! One directory is one vault. Frames go to segments, append-only. A point exists once its record in the journal is
//! durable; the journal tells everything else that happened, too. An index on disk says where any byte of any point
//! lies. The files are described byte by byte in `docs/formats/vault-v1.md`.
//!
//! One process writes ([`Vault`], which holds a lock); any number read ([`VaultReader`], which takes none).
//! Everything here blocks; a shell that is asynchronous calls it from threads of its own.

mod damage;
mod derived;
mod edit;
mod entry;
mod fence;
mod format;
#[cfg(test)]
mod frozen;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod layout;
mod maintenance;
mod memtable;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod read_faults;
mod reader;
mod records;
mod retention;
#[cfg(test)]
mod rot;
#[cfg(test)]
mod scripted;
mod scrub;
mod segment;
mod state;
mod storage;
mod tree;
mod vault;
mod verify;
mod versions;
mod writer;

pub use damage::{Damaged, FileError};
pub use derived::Untold;
pub use fence::WrongEpoch;
pub use format::{FORMAT_VERSION, FormatError};
pub use maintenance::{
    Ended, Go, Maintained, MaintenanceError, Mended, Pace, PinRefused, StopSwitch, Throttle, Unlimited,
};
pub use reader::{Allocation, HashSource, PointReader, ReadError, VaultReader};
pub use records::{
    BasePoint, ChainDescription, CycleKind, Gap, OpenCycle, Pin, PointKind, PointRecord, VolumeDescription,
};
pub use retention::{
    GoReason, Hold, LimitStanding, PointFacts, RetentionPlan, RetentionPolicy, StayReason, Tier, Verdict,
    plan,
};
pub use scrub::{Damage, Pass, Scrub, Scrubbed};
pub use storage::StorageError;
pub use vault::{Opened, Vault, VaultError};
pub use verify::{ChainReport, DamagedRecord, Problem, ProblemKind, Report, VerifyProgress, verify};
pub use writer::{
    AbandonRefused, AppendRefused, Appended, BeginRefused, ChainHead, ChainWriter, CycleBegin,
    DurableThrough, SealRefused, SealRequest, SyncRefused, VolumesRefused, WriterBroken,
};

//! Recovery points on disk: format, writer, reader, index and verification.
//!
//! One directory is one vault. Everything is append-only: frames go to segments, the index of a point to a run,
//! and a point exists once its record in the log of points is durable. The files are described byte by byte in
//! `docs/formats/vault-v0.md`; format version 0 promises no compatibility.
//!
//! One process writes ([`Vault`], which holds a lock); any number read ([`VaultReader`], which takes none).
//! Everything here blocks; a shell that is asynchronous calls it from threads of its own.

mod damage;
mod fence;
mod format;
mod index;
mod layout;
mod log;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod power_cut;
mod reader;
mod records;
mod retention;
#[cfg(test)]
mod rot;
mod run;
#[cfg(test)]
mod scripted;
mod segment;
mod storage;
mod vault;
mod verify;
mod writer;

pub use damage::{Damaged, FileError};
pub use fence::WrongEpoch;
pub use format::{FORMAT_VERSION, FormatError};
pub use reader::{Allocation, PointReader, ReadError, VaultReader};
pub use records::{
    BasePoint, ChainDescription, CycleKind, OpenCycle, PointKind, PointRecord, RunSummary, SegmentRange,
    VolumeDescription,
};
pub use retention::{
    GoReason, Hold, LimitStanding, PointFacts, RetentionPlan, RetentionPolicy, StayReason, Tier, Verdict,
    plan,
};
pub use storage::StorageError;
pub use vault::{Vault, VaultError};
pub use verify::{ChainReport, Problem, ProblemKind, Report, VerifyProgress, verify};
pub use writer::{
    AbandonRefused, AppendRefused, Appended, BeginRefused, ChainHead, ChainWriter, CycleBegin,
    DurableThrough, SealRefused, SealRequest, SyncRefused, WriterBroken,
};

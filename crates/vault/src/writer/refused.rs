//! Why a chain's writer refuses: one enum per operation, with the facts and what would be accepted.

use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, Digest, Epoch, Sequence, VolumeIndex};

use crate::{
    StorageError,
    fence::WrongEpoch,
    records::{BasePoint, CycleKind},
};

/// An earlier failure left it unknown what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an earlier sync failed, so it is unknown what is durable: open the chain's writer again")]
pub struct WriterBroken;

/// Why a cycle was not opened.
#[derive(Debug, thiserror::Error)]
pub enum BeginRefused {
    /// It is fenced.
    #[error(transparent)]
    WrongEpoch(#[from] WrongEpoch),
    /// It does not build on the newest point.
    #[error("a cycle on base {} is refused: the newest point is {}", name(.given.as_ref()), name(.newest.as_ref()))]
    WrongBase {
        /// On what it builds.
        given: Option<BasePoint>,
        /// On what it must build.
        newest: Option<BasePoint>,
    },
    /// Its kind does not fit: a base goes into an empty chain, all else on a point; a resumed cycle keeps its kind.
    #[error(
        "a {given:?} cycle is refused here: a base begins an empty chain, anything else builds on a point"
    )]
    WrongKind {
        /// Of which kind it is.
        given: CycleKind,
    },
    /// Another cycle is open; it can be abandoned.
    #[error("cycle {open:#018x} is open: resume or abandon it first")]
    CycleOpen {
        /// Its nonce.
        open: u64,
    },
    /// The writer must be opened again.
    #[error(transparent)]
    Broken(#[from] WriterBroken),
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a message was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendRefused {
    /// It is fenced.
    #[error(transparent)]
    WrongEpoch(#[from] WrongEpoch),
    /// The epoch is the chain's, but the open cycle was begun under an older one.
    #[error("the open cycle was not begun under epoch {epoch}: begin it again to resume it")]
    NotBegun {
        /// The message's epoch.
        epoch: Epoch,
    },
    /// No cycle is open.
    #[error("no cycle is open: begin one first")]
    NoOpenCycle,
    /// A message before it is missing.
    #[error("message {given} is refused: message {expected} comes next")]
    Gap {
        /// What comes next.
        expected: u64,
        /// What came.
        given: u64,
    },
    /// The chain has no such volume.
    #[error("volume {volume} is refused: the chain has {volumes}, counted from 0")]
    UnknownVolume {
        /// Which volume.
        volume: VolumeIndex,
        /// How many there are.
        volumes: usize,
    },
    /// It runs past the end of its volume.
    #[error("bytes up to {end} of volume {volume} are refused: it has {size}")]
    OutOfBounds {
        /// Which volume.
        volume: VolumeIndex,
        /// Where the bytes, or the watermark, end.
        end: ByteOffset,
        /// How large the volume is.
        size: ByteCount,
    },
    /// The writer must be opened again.
    #[error(transparent)]
    Broken(#[from] WriterBroken),
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why nothing was made durable.
#[derive(Debug, thiserror::Error)]
pub enum SyncRefused {
    /// No cycle is open.
    #[error("no cycle is open: begin one first")]
    NoOpenCycle,
    /// The writer must be opened again.
    #[error(transparent)]
    Broken(#[from] WriterBroken),
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a cycle was not given up.
#[derive(Debug, thiserror::Error)]
pub enum AbandonRefused {
    /// It is fenced.
    #[error(transparent)]
    WrongEpoch(#[from] WrongEpoch),
    /// No cycle is open.
    #[error("no cycle is open")]
    NoOpenCycle,
    /// Another cycle is open.
    #[error("cycle {given:#018x} is not open: {open:#018x} is")]
    OtherCycle {
        /// The open cycle's nonce.
        open: u64,
        /// The nonce that was given.
        given: u64,
    },
    /// The writer must be opened again.
    #[error(transparent)]
    Broken(#[from] WriterBroken),
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a cycle did not become a point. Unless the file system failed, the cycle stays open as it was.
#[derive(Debug, thiserror::Error)]
pub enum SealRefused {
    /// It is fenced.
    #[error(transparent)]
    WrongEpoch(#[from] WrongEpoch),
    /// The epoch is the chain's, but the open cycle was begun under an older one.
    #[error("the open cycle was not begun under epoch {epoch}: begin it again to resume it")]
    NotBegun {
        /// The seal's epoch.
        epoch: Epoch,
    },
    /// No cycle is open, and the newest point is another.
    #[error("no cycle is open")]
    NoOpenCycle,
    /// Another cycle is open.
    #[error("cycle {given:#018x} is not open: {open:#018x} is")]
    OtherCycle {
        /// The open cycle's nonce.
        open: u64,
        /// The nonce that was given.
        given: u64,
    },
    /// The point would not have this place in the chain.
    #[error("sequence {given} is refused: the point would be {expected}")]
    WrongSequence {
        /// The place that was given.
        given: Sequence,
        /// The place that it would have.
        expected: Sequence,
    },
    /// The point would have another parent.
    #[error("parent {given} is refused: the point would be built on {expected}")]
    WrongParent {
        /// The digest that was given.
        given: Digest,
        /// The newest point's digest.
        expected: Digest,
    },
    /// Messages are missing or too many.
    #[error("the source announces {announced} messages where {held} are held")]
    Messages {
        /// How many the source sent.
        announced: u64,
        /// How many are here.
        held: u64,
    },
    /// There is not one proof per volume.
    #[error("{given} change digests are refused: the chain has {volumes} volumes")]
    VolumeCount {
        /// How many proofs came.
        given: usize,
        /// How many volumes there are.
        volumes: usize,
    },
    /// What is held of a volume is not as much as was sent.
    #[error("of volume {volume}, {} frames and {} were sent where {} frames and {} are held",
        announced.frames, announced.bytes, held.frames, held.bytes)]
    Counts {
        /// Which volume.
        volume: VolumeIndex,
        /// What was sent.
        announced: ChangeDigest,
        /// What is here.
        held: ChangeDigest,
    },
    /// What is held of a volume is not what was sent.
    #[error("of volume {volume}, changes with digest {} were sent where {} is held", announced.digest, held.digest)]
    ChangeDigest {
        /// Which volume.
        volume: VolumeIndex,
        /// What was sent.
        announced: ChangeDigest,
        /// What is here.
        held: ChangeDigest,
    },
    /// This cycle is sealed already, with other content.
    #[error("the cycle is sealed as point {sequence} with digest {sealed}; a seal as {given} is refused")]
    SealedOtherwise {
        /// The point.
        sequence: Sequence,
        /// Its digest.
        sealed: Digest,
        /// What the request would give.
        given: Digest,
    },
    /// The writer must be opened again.
    #[error(transparent)]
    Broken(#[from] WriterBroken),
    /// The file system failed. Whether the point exists is known once the chain's head was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn name(base: Option<&BasePoint>) -> String {
    match base {
        Some(base) => format!("{} ({})", base.sequence, base.digest),
        None => "none".to_owned(),
    }
}

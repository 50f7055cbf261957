//! What a verification tells: what was proven of each chain, and the first thing that is wrong.

use farshore_blocks::{ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Sequence, VolumeIndex};

use crate::{damage::FileError, vault::VaultError};

/// What was proven, and what not.
#[derive(Debug)]
pub struct Report {
    /// Every chain of the vault.
    pub chains: Vec<ChainReport>,
}

/// What was proven of one chain.
#[derive(Debug)]
pub struct ChainReport {
    /// Which chain.
    pub chain: ChainId,
    /// The VM that it protects.
    pub vm: String,
    /// How many points were proven, from the first on.
    pub points: u64,
    /// How many frames they have.
    pub frames: u64,
    /// How many raw bytes the frames stand for.
    pub bytes: ByteCount,
    /// The first thing that is wrong; none of what follows it is proven.
    pub problem: Option<Problem>,
}

/// Something that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("point {point}{}{}", at_volume(.volume.as_ref()), at_offset(.offset.as_ref()))]
pub struct Problem {
    /// The first bad point; 0 where it cannot be told.
    pub point: Sequence,
    /// The first bad volume, if it can be told.
    pub volume: Option<VolumeIndex>,
    /// The first bad byte of the volume, if it can be told.
    pub offset: Option<ByteOffset>,
    /// What is wrong.
    #[source]
    pub kind: ProblemKind,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ProblemKind {
    /// A file is damaged or out of reach.
    #[error(transparent)]
    File(#[from] FileError),
    /// The log of points, or the epoch, cannot be read.
    #[error(transparent)]
    Log(Box<VaultError>),
    /// A frame lies outside the chain's volumes.
    #[error("a frame lies outside the volume")]
    OutOfBounds,
    /// The frames are not those that were proven when the point was sealed.
    #[error("the changes give digest {} ({} frames, {}) where {} ({} frames, {}) was sealed",
        actual.digest, actual.frames, actual.bytes, sealed.digest, sealed.frames, sealed.bytes)]
    ChangeDigest {
        /// What the frames give.
        actual: Box<ChangeDigest>,
        /// What was sealed.
        sealed: Box<ChangeDigest>,
    },
    /// The point's digest does not follow from its parent, machine and changes.
    #[error("the point's digest is {sealed}, but parent, machine and changes give {actual}")]
    PointDigest {
        /// What they give.
        actual: Digest,
        /// What was sealed.
        sealed: Digest,
    },
    /// The index does not say what the segments say.
    #[error("the index is not the one that the segments give")]
    IndexDiffers,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Which chain is being proven.
    pub chain: ChainId,
    /// Which point of it.
    pub point: Sequence,
    /// The chain's newest point.
    pub newest: Sequence,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.chains.iter().all(|chain| chain.problem.is_none())
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        Self::somewhere(ProblemKind::File(error))
    }
}

impl Problem {
    /// A problem whose point is filled in by whoever knows it.
    pub(super) fn somewhere(kind: ProblemKind) -> Self {
        Self {
            point: Sequence(0),
            volume: None,
            offset: None,
            kind,
        }
    }

    pub(super) fn at(volume: VolumeIndex, offset: ByteOffset, kind: ProblemKind) -> Self {
        Self {
            volume: Some(volume),
            offset: Some(offset),
            ..Self::somewhere(kind)
        }
    }
}

fn at_volume(volume: Option<&VolumeIndex>) -> String {
    volume
        .map(|volume| format!(", volume {volume}"))
        .unwrap_or_default()
}

fn at_offset(offset: Option<&ByteOffset>) -> String {
    offset
        .map(|offset| format!(", offset {offset}"))
        .unwrap_or_default()
}

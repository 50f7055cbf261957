//! What a verification tells: what was proven of each chain, and what is wrong.

use std::path::PathBuf;

use farshore_blocks::{ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Sequence, VolumeIndex};

use crate::{damage::FileError, vault::VaultError};

/// What was proven, and what not.
#[derive(Debug)]
pub struct Report {
    /// Records of the journal that one of its two copies has wrong; the other made up for it. The vault's next
    /// writer mends them.
    pub damaged_records: Vec<DamagedRecord>,
    /// Every chain of the vault.
    pub chains: Vec<ChainReport>,
}

/// A record that one copy of the journal has wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Which file.
    pub path: PathBuf,
    /// Where in the file it begins.
    pub position: u64,
}

/// What was proven of one chain.
#[derive(Debug)]
pub struct ChainReport {
    /// Which chain.
    pub chain: ChainId,
    /// The VM that it protects.
    pub vm: String,
    /// How many points were proven.
    pub points: u64,
    /// How many frames were read and found right.
    pub frames: u64,
    /// How many raw bytes they stand for.
    pub bytes: ByteCount,
    /// What is wrong, in the order of points, volumes and offsets; the first of them if they are very many.
    pub problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{}{}{}", at_point(*.point), at_volume(.volume.as_ref()), at_offset(.offset.as_ref()))]
pub struct Problem {
    /// The first point that is hit; 0 where none is, or it cannot be told.
    pub point: Sequence,
    /// The volume, if it can be told.
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
    /// The chain cannot be read.
    #[error(transparent)]
    Chain(Box<VaultError>),
    /// A frame lies outside the chain's volumes.
    #[error("a frame lies outside the volume")]
    OutOfBounds,
    /// The bytes have the right checksum, but are not those that were ingested.
    #[error("the bytes are not those that were ingested: their BLAKE3 digest differs")]
    Fingerprint,
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
    /// The index is whole, and wrong: it leads elsewhere than the frames that were ingested.
    #[error("the index does not say what the segments hold")]
    Index,
    /// What the thinned points show is not what was proven when they were thinned.
    #[error("the index gives digest {} ({} extents) where {} ({} extents) was proven when older points were dropped",
        actual.digest, actual.frames, proven.digest, proven.frames)]
    Settled {
        /// What the index gives.
        actual: Box<ChangeDigest>,
        /// What was proven.
        proven: Box<ChangeDigest>,
    },
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
    /// How many raw bytes of it were read and found right.
    pub bytes: ByteCount,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged_records.is_empty() && self.chains.iter().all(|chain| chain.problems.is_empty())
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        Self::somewhere(ProblemKind::File(error))
    }
}

impl Problem {
    /// A problem whose point is filled in by whoever knows it.
    pub(crate) fn somewhere(kind: ProblemKind) -> Self {
        Self {
            point: Sequence(0),
            volume: None,
            offset: None,
            kind,
        }
    }

    pub(crate) fn at(volume: VolumeIndex, offset: ByteOffset, kind: ProblemKind) -> Self {
        Self {
            volume: Some(volume),
            offset: Some(offset),
            ..Self::somewhere(kind)
        }
    }

    pub(crate) fn of(self, point: Sequence) -> Self {
        Self { point, ..self }
    }
}

fn at_point(point: Sequence) -> String {
    match point {
        Sequence(0) => "no point".to_owned(),
        point => format!("point {point}"),
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

//! What a vault knows of its chains: what they protect, the cycle that is being built, and the sealed points.

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, Digest, Epoch, Sequence, clock::WallTime};

/// A chain has no more volumes than this: what is kept per point and volume is bounded by it.
pub(crate) const MOST_VOLUMES: usize = 1024;

/// What a chain protects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainDescription {
    /// The protected VM's name.
    pub vm: String,
    /// Its volumes; their place here is their index, for ever.
    pub volumes: Vec<VolumeDescription>,
}

/// One disk of the protected VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDescription {
    /// Its name, unique among the volumes that are there.
    pub name: String,
    /// Its size; 0 where it is not there any more.
    pub size: ByteCount,
}

impl VolumeDescription {
    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.size > ByteCount(0)
    }
}

/// What a cycle ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CycleKind {
    /// All of the volumes, into an empty chain.
    Base,
    /// What changed since the newest point.
    Delta,
    /// What a comparison with the newest point found to differ.
    Resync,
}

/// What the guest knew of the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PointKind {
    /// As after a power cut.
    CrashConsistent,
    /// The guest's file systems and applications were quiesced.
    AppConsistent,
}

/// The point on which a cycle builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasePoint {
    /// Its place in the chain.
    pub sequence: Sequence,
    /// Its digest.
    pub digest: Digest,
}

/// A cycle that is not sealed yet, as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCycle {
    /// The nonce that its source gave it.
    pub cycle: u64,
    /// What it ships.
    pub kind: CycleKind,
    /// Under which epoch it is written.
    pub epoch: Epoch,
    /// On which point it builds; none in an empty chain.
    pub base: Option<BasePoint>,
    /// The sequence that it will have once sealed.
    pub sequence: Sequence,
    /// The last message that is held durably; 0 if none is.
    pub last_message: u64,
    /// Per volume, up to where the source said it had shipped everything.
    pub watermarks: Vec<ByteOffset>,
    /// Per volume, the digest of what is held durably.
    pub changes: Vec<ChangeDigest>,
}

/// A sealed recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointRecord {
    /// Its place in the chain.
    pub sequence: Sequence,
    /// Its digest: over its parent's, the machine and the changes.
    pub digest: Digest,
    /// Its parent's digest; zeroes for the first point.
    pub parent: Digest,
    /// Under which epoch it was written.
    pub epoch: Epoch,
    /// The nonce of the cycle that wrote it.
    pub cycle: u64,
    /// What that cycle shipped.
    pub cycle_kind: CycleKind,
    /// What the guest knew of the instant.
    pub kind: PointKind,
    /// Just before its instant, by the source's clock.
    pub captured_at: WallTime,
    /// The source's clock less the vault's, as measured.
    pub clock_offset_nanoseconds: i64,
    /// How far that measurement may be off.
    pub clock_uncertainty: Duration,
    /// When it was sealed, by the vault's clock.
    pub sealed_at: WallTime,
    /// The VM's specification at its instant; the vault does not look into it.
    pub machine: Bytes,
    /// Per volume, the proof of what changed.
    pub changes: Vec<ChangeDigest>,
    /// How many messages carried it.
    pub messages: u64,
    /// What it takes in the segments.
    pub stored_bytes: ByteCount,
}

/// Points that were dropped, one after the other: what the chain's proof needs of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first: Sequence,
    /// The last of them.
    pub last: Sequence,
    /// The digest on which the first was built.
    pub parent: Digest,
    /// The digest of the last, on which the next point is built.
    pub digest: Digest,
}

/// Why a point may not be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// A user wants it kept until the pin is taken off.
    Pinned,
    /// It stays until then, and nobody can release it before.
    LockedUntil(WallTime),
}

impl PointRecord {
    /// It, as the base of the next cycle.
    #[must_use]
    pub fn as_base(&self) -> BasePoint {
        BasePoint {
            sequence: self.sequence,
            digest: self.digest,
        }
    }
}

impl CycleKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Base => 1,
            Self::Delta => 2,
            Self::Resync => 3,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Base),
            2 => Some(Self::Delta),
            3 => Some(Self::Resync),
            _ => None,
        }
    }
}

impl PointKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::CrashConsistent => 1,
            Self::AppConsistent => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::CrashConsistent),
            2 => Some(Self::AppConsistent),
            _ => None,
        }
    }
}

//! What the vault's records say: of a chain, of a cycle that is being built, and of a sealed point.

use std::time::Duration;

use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, Digest, Epoch, Sequence, clock::WallTime};
use serde::{Deserialize, Serialize};

/// What a chain protects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainDescription {
    /// The protected VM's name.
    pub vm: String,
    /// Its volumes; their place here is their index.
    pub volumes: Vec<VolumeDescription>,
}

/// One disk of the protected VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDescription {
    /// Its name, unique in its chain.
    pub name: String,
    /// Its size.
    pub size: ByteCount,
}

/// What a cycle ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CycleKind {
    /// All of the volumes, into an empty chain.
    Base,
    /// What changed since the newest point.
    Delta,
    /// What a comparison with the newest point found to differ.
    Resync,
}

/// What the guest knew of the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    /// As after a power cut.
    CrashConsistent,
    /// The guest's file systems and applications were quiesced.
    AppConsistent,
}

/// The point on which a cycle builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasePoint {
    /// Its place in the chain.
    pub sequence: Sequence,
    /// Its digest.
    pub digest: Digest,
}

/// The segments that one cycle wrote: all numbers from `first` to `last`. All but the last end where their
/// files end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRange {
    /// The first segment's number.
    pub first: u64,
    /// The last segment's number.
    pub last: u64,
    /// Where the last segment ends.
    pub last_length: ByteCount,
}

impl SegmentRange {
    pub(crate) fn contains(&self, segment: u64) -> bool {
        (self.first..=self.last).contains(&segment)
    }
}

/// What a point's index run must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// How many extents it has.
    pub entries: u64,
    /// The checksum of all its entries.
    pub crc32: u32,
}

/// A cycle that is not sealed yet, as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Where its frames lie; none if it has no frames yet.
    pub segments: Option<SegmentRange>,
}

/// A sealed recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(with = "hexadecimal")]
    pub machine: Vec<u8>,
    /// Per volume, the proof of what changed.
    pub changes: Vec<ChangeDigest>,
    /// How many messages carried it.
    pub messages: u64,
    /// What it takes on disk: its segments and its run.
    pub stored_bytes: ByteCount,
    /// Where its frames lie; none if nothing changed.
    pub segments: Option<SegmentRange>,
    /// What its index run must be.
    pub run: RunSummary,
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

mod hexadecimal {
    use std::fmt::Write;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len().saturating_mul(2));
        for byte in bytes {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }

    fn digit(character: u8) -> Option<u8> {
        let value = char::from(character).to_digit(16)?;
        u8::try_from(value).ok()
    }
}

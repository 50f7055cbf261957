//! Digests that prove what was sealed: of a volume's changes, and of a whole point.
//!
//! The change digest is a chain of BLAKE3 hashes over the frames in the order in which they were shipped:
//! `state' = BLAKE3(state ‖ volume ‖ offset ‖ length ‖ BLAKE3(raw))`, all integers little-endian, starting
//! from 32 zero bytes. A chain rather than one long hash, because its 32-byte state can be handed over when
//! a cycle is resumed after a cut.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ByteCount, ByteOffset, VolumeIndex, identity::ParseIdentityError};

/// A BLAKE3 hash, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest([u8; 32]);

impl Digest {
    /// How many bytes it has.
    pub const LENGTH: usize = 32;

    /// The digest with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Its bytes, as formats and the wire carry them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Digest({self})")
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = ParseIdentityError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| ParseIdentityError::wrong_length(bytes.len()))
    }
}

impl FromStr for Digest {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| ParseIdentityError::wrong_text(text))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The proof of one volume's changes in one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeDigest {
    /// The chain's state after the last frame.
    pub digest: Digest,
    /// How many frames went into it.
    pub frames: u64,
    /// How many raw bytes they stand for.
    pub bytes: ByteCount,
}

/// Builds a [`ChangeDigest`] frame by frame; can go on from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangeHasher {
    state: ChangeDigest,
}

impl ChangeHasher {
    /// Goes on where `state` ended.
    #[must_use]
    pub fn resume(state: ChangeDigest) -> Self {
        Self { state }
    }

    /// Takes in one frame, named by the digest of its raw bytes.
    pub fn update(&mut self, volume: VolumeIndex, offset: ByteOffset, length: ByteCount, raw: &Digest) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.state.digest.as_bytes());
        hasher.update(&volume.0.to_le_bytes());
        hasher.update(&offset.0.to_le_bytes());
        hasher.update(&length.0.to_le_bytes());
        hasher.update(raw.as_bytes());
        self.state = ChangeDigest {
            digest: Digest(*hasher.finalize().as_bytes()),
            frames: self.state.frames.saturating_add(1),
            bytes: ByteCount(self.state.bytes.0.saturating_add(length.0)),
        };
    }

    /// What has been taken in so far.
    #[must_use]
    pub fn digest(&self) -> ChangeDigest {
        self.state
    }
}

/// The digest of a point: BLAKE3(parent's digest ‖ machine specification's digest ‖ each volume's change digest
/// with its counts, in the volumes' order). The parent of a chain's first point is 32 zero bytes.
#[must_use]
pub fn point_digest(parent: &Digest, machine: &[u8], changes: &[ChangeDigest]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent.as_bytes());
    hasher.update(Digest::of(machine).as_bytes());
    for change in changes {
        hasher.update(change.digest.as_bytes());
        hasher.update(&change.frames.to_le_bytes());
        hasher.update(&change.bytes.0.to_le_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(frames: &[(u64, &[u8])], from: ChangeDigest) -> ChangeDigest {
        let mut hasher = ChangeHasher::resume(from);
        for (offset, raw) in frames {
            hasher.update(
                VolumeIndex(0),
                ByteOffset(*offset),
                ByteCount(raw.len() as u64),
                &Digest::of(raw),
            );
        }
        hasher.digest()
    }

    #[test]
    fn a_resumed_hasher_ends_where_an_uninterrupted_one_does() {
        let frames: &[(u64, &[u8])] = &[(0, b"aa"), (4, b"bbb"), (9, b"c")];
        let whole = hashed(frames, ChangeDigest::default());
        let first = hashed(&frames[..1], ChangeDigest::default());
        assert_eq!(hashed(&frames[1..], first), whole);
        assert_eq!((whole.frames, whole.bytes), (3, ByteCount(6)));
    }

    #[test]
    fn order_place_and_content_all_count() {
        let base = hashed(&[(0, b"aa"), (4, b"bb")], ChangeDigest::default());
        for other in [
            &[(4u64, b"bb"), (0u64, b"aa")],
            &[(0, b"aa"), (5, b"bb")],
            &[(0, b"aa"), (4, b"bc")],
        ] {
            let other: Vec<(u64, &[u8])> = other.iter().map(|(at, raw)| (*at, raw.as_slice())).collect();
            assert_ne!(hashed(&other, ChangeDigest::default()), base);
        }
    }

    #[test]
    fn a_point_depends_on_its_parent_and_its_machine() {
        let changes = [hashed(&[(0, b"aa")], ChangeDigest::default())];
        let point = point_digest(&Digest::default(), b"machine", &changes);
        assert_ne!(point, point_digest(&point, b"machine", &changes));
        assert_ne!(point, point_digest(&Digest::default(), b"other", &changes));
    }
}

//! The bytes of the vault's files, as pure encoders and checked decoders.
//!
//! Every decoder checks length, magic, version, checksum, identity and bounds, in that order, and never panics
//! whatever bytes it is given. All integers are little-endian. `docs/formats/vault-v1.md` has the tables.

mod blocks;
pub(crate) mod fields;
mod frame;
mod group;
mod head;
pub(crate) mod record;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use blocks::{BLOCK_BYTES, block_checksums, block_count};
pub(crate) use frame::StoredFrame;
pub(crate) use group::{
    CycleWords, GROUP_HEADER_BYTES, Group, GroupHeader, MAX_GROUP_FRAMES, MessageEnds, MessagePart,
};
pub(crate) use head::Head;
pub(crate) use segment::{SegmentKind, SegmentName};

use farshore_blocks::{ChainId, FrameError, Incarnation};

/// The version of every file of this format.
pub const FORMAT_VERSION: u32 = 1;

/// What files of frames are aligned to, in bytes: 4 KiB.
pub(crate) const UNIT_BYTES: usize = 4096;

/// What the files of one chain carry so that a file of another vault or chain is not taken for theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The vault's first incarnation, which its files carry in every later one too.
    pub(crate) vault: Incarnation,
    pub(crate) chain: ChainId,
}

impl Identity {
    /// Whether what was found is what was expected.
    pub(crate) fn expect(self, expected: Self) -> Result<(), FormatError> {
        if self.vault != expected.vault {
            return Err(FormatError::Identity { field: "vault" });
        }
        if self.chain != expected.chain {
            return Err(FormatError::Identity { field: "chain" });
        }
        Ok(())
    }
}

/// A place in the segments of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

impl Position {
    /// Where a chain's first group goes.
    pub(crate) const START: Self = Self::beginning_of(1);

    /// Where the first group of a segment goes.
    pub(crate) const fn beginning_of(segment: u32) -> Self {
        Self {
            segment,
            offset: 4096,
        }
    }

    /// So many bytes further in the same segment.
    pub(crate) fn advanced(self, bytes: u32) -> Self {
        let offset = self.offset.saturating_add(bytes);
        Self { offset, ..self }
    }
}

/// Why bytes are not what a file of the vault should hold.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// They end too early.
    #[error("{actual} bytes are there where at least {expected} are called for")]
    TooShort {
        /// What is called for.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// They do not begin with the mark of what they should be.
    #[error("the magic number is not that of {expected}")]
    Magic {
        /// What they should be.
        expected: &'static str,
    },
    /// They were written by a build with another format.
    #[error("format version {actual} is not {FORMAT_VERSION}, the only one that this build reads")]
    Version {
        /// What they say.
        actual: u32,
    },
    /// They are not those that were written.
    #[error("the crc32 is {actual:#010x} where {expected:#010x} was written")]
    Checksum {
        /// What was written.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// They are whole, but belong elsewhere: another vault, chain, file, place or point.
    #[error("the bytes belong elsewhere: their {field} is not the one expected here")]
    Identity {
        /// What differs.
        field: &'static str,
    },
    /// They are whole, but say what cannot be.
    #[error("the bytes are whole, but their {field} cannot be right")]
    Bounds {
        /// What cannot be right.
        field: &'static str,
    },
    /// A payload is not that of its frame.
    #[error(transparent)]
    Frame(FrameError),
}

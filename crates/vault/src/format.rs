//! The bytes of the vault's files, as pure encoders and checked decoders.
//!
//! Every decoder checks length, magic, version, checksum, identity and bounds, in that order, and never panics
//! whatever bytes it is given. All integers are little-endian.

mod fields;
mod frame;
mod head;
mod record;
mod run;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use frame::{FRAME_HEADER_BYTES, FrameHeader};
pub(crate) use head::Head;
pub(crate) use record::{RECORD_MAGIC, RecordKind, decode_record, encode_record};
pub(crate) use run::{RUN_ENTRY_BYTES, RUN_HEADER_BYTES, RunEntry, RunHeader};
pub(crate) use segment::{SEGMENT_HEADER_BYTES, SegmentHeader};

use farshore_blocks::{ChainId, Incarnation};

/// The version of every file of this format. Version 0 promises no compatibility with any other build.
pub const FORMAT_VERSION: u32 = 0;

/// What the files of one chain carry so that a file of another vault or chain is not taken for theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) incarnation: Incarnation,
    pub(crate) chain: ChainId,
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
    /// The body of a record is not of its kind.
    #[error("the body of the record cannot be understood")]
    Body(#[source] serde_json::Error),
}

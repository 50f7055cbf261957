//! A run: one immutable file with a sorted part of the index, a static B+tree that is written front to back.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4096 | file header (`tree/header.rs`) |
//! | 4096 | 8192 each | nodes (`tree/node.rs`): a leaf when it is full, an inner node when its last child is there; the root is last |
//! | behind the root | any | the attachment, which the tree does not look into |
//!
//! Every byte is under a checksum or must be zero. A parent names its child's checksum, and the [`RunSummary`]
//! (kept in the journal) names that of the root and of the attachment, so that no stale node can be believed.
//! A run counts only once its summary is durable in the journal; a file without one is left over from a crash.

mod cache;
mod cursor;
mod header;
mod node;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use cache::NodeCache;
pub(crate) use reader::Run;
pub(crate) use writer::{RunError, RunWriter};

use farshore_blocks::Sequence;

/// What the journal keeps of a run: enough to open its file and to believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunSummary {
    pub(crate) number: u64,
    pub(crate) entries: u64,
    /// How many nodes lie on a path from the root to an entry: at least 1.
    pub(crate) levels: u8,
    pub(crate) root: RootNode,
    pub(crate) attachment: Attachment,
    pub(crate) file_bytes: u64,
    /// Of all entries; 0 if there is none.
    pub(crate) first_sequence: Sequence,
    /// Of all entries; 0 if there is none.
    pub(crate) last_sequence: Sequence,
}

/// Where the root of a run lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootNode {
    pub(crate) position: u64,
    pub(crate) crc32: u32,
}

/// Where the attachment of a run lies: from the root to the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) position: u64,
    pub(crate) length: u64,
    pub(crate) crc32: u32,
}

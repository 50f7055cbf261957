//! Writing a run, front to back: memory does not grow with the run.

use std::path::Path;

use farshore_blocks::{Sequence, VolumeIndex};

use super::{
    Attachment, RootNode, RunSummary,
    header::encode_header,
    node::{CHILDREN_PER_NODE, Child, ENTRIES_PER_LEAF, NODE_BYTES, NodePlace, encode_node},
};
use crate::{
    entry::{Entry, Order, VersionKey},
    format::{FormatError, Identity},
    storage::{Content, Disk, DiskFile, StorageError},
};

/// How much is gathered before it is written: large enough for a disk to stream.
const BUFFER_BYTES: usize = 1 << 20;

/// Why an entry was not taken, or a run not finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The file system refused or failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It does not come behind the entry before it, or overlaps it.
    #[error(
        "the entry at byte {start} of volume {}, of sequence {}, does not come behind the one before it",
        volume.0, sequence.0
    )]
    Order {
        /// The entry's volume.
        volume: VolumeIndex,
        /// Where it begins.
        start: u64,
        /// Its sequence.
        sequence: Sequence,
    },
    /// It says what cannot be, so that it could not be read again.
    #[error("the entry cannot be stored")]
    Entry(#[source] FormatError),
}

/// A run that is being written.
#[derive(Debug)]
pub(crate) struct RunWriter {
    nodes: Nodes,
    leaf: Pending,
    /// The children that have no parent yet, from level 1 upwards.
    inner: Vec<Pending>,
    order: Order,
    entries: u64,
    sequences: Option<(Sequence, Sequence)>,
}

/// What will be one node, encoded.
#[derive(Debug, Default)]
struct Pending {
    content: Vec<u8>,
    count: usize,
    first: Option<VersionKey>,
}

/// The file, as a row of nodes.
#[derive(Debug)]
struct Nodes {
    file: DiskFile,
    identity: Identity,
    number: u64,
    /// What is not written yet, and where it goes.
    buffer: Vec<u8>,
    buffer_position: u64,
}

impl RunWriter {
    /// Creates the file; one of that name is emptied.
    pub(crate) fn create(
        disk: &Disk,
        path: &Path,
        identity: Identity,
        number: u64,
    ) -> Result<Self, StorageError> {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES.saturating_add(NODE_BYTES));
        buffer.extend_from_slice(&encode_header(identity, number));
        Ok(Self {
            nodes: Nodes {
                file: disk.open_file(path, Content::Dropped)?,
                identity,
                number,
                buffer,
                buffer_position: 0,
            },
            leaf: Pending::default(),
            inner: Vec::new(),
            order: Order::default(),
            entries: 0,
            sequences: None,
        })
    }

    /// Adds an entry, which must come behind all that were added before. After an error the run is worth nothing.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<(), RunError> {
        if !self.order.follows(entry) {
            return Err(RunError::Order {
                volume: entry.volume,
                start: entry.start,
                sequence: entry.sequence,
            });
        }
        if self.leaf.count == ENTRIES_PER_LEAF {
            let leaf = self.nodes.append(&mut self.leaf, 0)?;
            self.add_child(0, leaf)?;
        }
        self.leaf.add_entry(entry).map_err(RunError::Entry)?;
        self.entries = self.entries.saturating_add(1);
        let (first, last) = self.sequences.unwrap_or((entry.sequence, entry.sequence));
        self.sequences = Some((first.min(entry.sequence), last.max(entry.sequence)));
        Ok(())
    }

    /// Writes what is left, the root and the attachment, and syncs the file (not its directory).
    pub(crate) fn finish(mut self, attachment: &[u8]) -> Result<RunSummary, StorageError> {
        let (root, levels) = self.close_all()?;
        let position = self.nodes.position();
        let length = wide(attachment.len());
        self.nodes.flush()?;
        self.nodes.file.write_at(attachment, position)?;
        self.nodes.file.sync()?;
        let (first_sequence, last_sequence) = self.sequences.unwrap_or_default();
        Ok(RunSummary {
            number: self.nodes.number,
            entries: self.entries,
            levels,
            root: RootNode {
                position: root.position,
                crc32: root.crc32,
            },
            attachment: Attachment {
                position,
                length,
                crc32: crc32fast::hash(attachment),
            },
            file_bytes: position.saturating_add(length),
            first_sequence,
            last_sequence,
        })
    }

    /// Gives a child to its parent to be, at this place of `inner`. A parent that is full is written first, and so
    /// on upwards: a node is closed only when its next sibling begins, so the root is the one that never gets any.
    fn add_child(&mut self, index: usize, child: Child) -> Result<(), StorageError> {
        let mut child = child;
        for (parent, level) in self.inner.iter_mut().zip(1..=u8::MAX).skip(index) {
            if parent.count < CHILDREN_PER_NODE {
                parent.add_child(&child);
                return Ok(());
            }
            let full = self.nodes.append(parent, level)?;
            parent.add_child(&child);
            child = full;
        }
        let mut parent = Pending::default();
        parent.add_child(&child);
        self.inner.push(parent);
        Ok(())
    }

    /// Closes all that is pending, from below, and gives the root and the number of levels.
    fn close_all(&mut self) -> Result<(Child, u8), StorageError> {
        let mut last = self.nodes.append(&mut self.leaf, 0)?;
        let mut levels: u8 = 1;
        loop {
            let index = usize::from(levels.saturating_sub(1));
            if self.inner.len() <= index {
                return Ok((last, levels));
            }
            self.add_child(index, last)?;
            if let Some(parent) = self.inner.get_mut(index) {
                last = self.nodes.append(parent, levels)?;
            }
            levels = levels.saturating_add(1);
        }
    }

    /// What it holds in memory.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let pending = |pending: &Pending| pending.content.capacity();
        self.nodes.buffer.capacity() + pending(&self.leaf) + self.inner.iter().map(pending).sum::<usize>()
    }
}

impl Pending {
    fn add_entry(&mut self, entry: &Entry) -> Result<(), FormatError> {
        entry.encode_into(&mut self.content)?;
        self.add(entry.version());
        Ok(())
    }

    fn add_child(&mut self, child: &Child) {
        child.encode_into(&mut self.content);
        self.add(child.first);
    }

    fn add(&mut self, version: VersionKey) {
        self.first.get_or_insert(version);
        self.count = self.count.saturating_add(1);
    }
}

impl Nodes {
    /// Where the next node goes.
    fn position(&self) -> u64 {
        self.buffer_position.saturating_add(wide(self.buffer.len()))
    }

    /// Puts what is pending at the end, as a node of this level, and empties it.
    fn append(&mut self, pending: &mut Pending, level: u8) -> Result<Child, StorageError> {
        let place = NodePlace {
            identity: self.identity,
            number: self.number,
            position: self.position(),
            level,
        };
        let crc32 = encode_node(&place, pending.count, &pending.content, &mut self.buffer);
        pending.content.clear();
        pending.count = 0;
        // Only the one leaf of an empty run has no first entry, and it has no parent that would name it.
        let nothing = VersionKey::new(VolumeIndex(0), 0, Sequence(0));
        let child = Child {
            first: pending.first.take().unwrap_or(nothing),
            position: place.position,
            crc32,
        };
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(child)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.write_at(&self.buffer, self.buffer_position)?;
        self.buffer_position = self.position();
        self.buffer.clear();
        Ok(())
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

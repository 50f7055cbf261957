//! Reading a run: by key, or from front to back. No byte is believed before its checksum was checked.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::{Sequence, VolumeIndex};

use super::{
    Attachment, NodeCache, RunSummary,
    cache::NodeKey,
    cursor::{Caching, Cursor, Named},
    header::{FIRST_NODE, HEADER_BYTES, check_header},
    node::{Content, NODE_BYTES, NODE_LENGTH, Node, NodePlace},
};
use crate::{
    damage::{FileError, read_exactly},
    entry::{Order, VersionKey},
    format::{FormatError, Identity},
    storage::StorageError,
};

/// A run that is open: it stays readable when its file is unlinked.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: File,
    identity: Identity,
    summary: RunSummary,
    cache: Arc<NodeCache>,
}

impl Run {
    /// Opens the run that has this summary; its header and length are checked, its nodes as they are read.
    pub(crate) fn open(
        path: &Path,
        identity: Identity,
        summary: &RunSummary,
        cache: Arc<NodeCache>,
    ) -> Result<Self, FileError> {
        let file = File::open(path).map_err(|error| StorageError::new("open", path, error))?;
        let run = Self {
            path: path.to_owned(),
            file,
            identity,
            summary: *summary,
            cache,
        };
        run.check_frame()?;
        Ok(run)
    }

    pub(crate) fn summary(&self) -> &RunSummary {
        &self.summary
    }

    /// The entries from this chunk on, its versions up to `at_most` first.
    pub(crate) fn seek(
        &self,
        volume: VolumeIndex,
        chunk: u64,
        at_most: Sequence,
    ) -> Result<Cursor<'_>, FileError> {
        let wanted = VersionKey::new(volume, chunk, at_most);
        let mut cursor = Cursor::new(self, Caching::Kept);
        cursor.descend(|node| match &node.content {
            // The child before the first that begins at or behind the key may end with what is wanted.
            Content::Inner(children) => children
                .partition_point(|child| child.first < wanted)
                .saturating_sub(1),
            Content::Leaf(entries) => entries.partition_point(|entry| entry.version() < wanted),
        })?;
        Ok(cursor)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> Cursor<'_> {
        Cursor::new(self, Caching::Taken)
    }

    /// The bytes that were given to the writer's `finish`.
    pub(crate) fn attachment(&self) -> Result<Vec<u8>, FileError> {
        let Attachment {
            position,
            length,
            crc32,
        } = self.summary.attachment;
        // `open` found that the file is as long as position and length say, so that this is no more than it holds.
        let length = usize::try_from(length)
            .map_err(|_| self.damaged(position, FormatError::Bounds { field: "length" }))?;
        let mut bytes = vec![0; length];
        read_exactly(&self.file, &self.path, &mut bytes, position)?;
        let actual = crc32fast::hash(&bytes);
        if actual == crc32 {
            Ok(bytes)
        } else {
            let expected = crc32;
            Err(self.damaged(position, FormatError::Checksum { expected, actual }))
        }
    }

    /// Reads every byte of the file: nothing is damaged, missing, out of order or left over.
    pub(crate) fn check(&self) -> Result<(), FileError> {
        self.check_frame()?;
        self.attachment()?;
        let mut order = Order::default();
        let mut entries: u64 = 0;
        let mut sequences: Option<(Sequence, Sequence)> = None;
        let mut cursor = Cursor::new(self, Caching::Bypassed);
        while let Some(entry) = cursor.next().transpose()? {
            if !order.follows(&entry) {
                return Err(self.wrong("order"));
            }
            entries = entries.saturating_add(1);
            let (first, last) = sequences.unwrap_or((entry.sequence, entry.sequence));
            sequences = Some((first.min(entry.sequence), last.max(entry.sequence)));
        }
        let node_bytes = cursor.nodes_read().saturating_mul(NODE_LENGTH);
        let summary = &self.summary;
        let wrong = [
            (entries != summary.entries, "number of entries"),
            (
                sequences.unwrap_or_default() != (summary.first_sequence, summary.last_sequence),
                "sequences",
            ),
            (
                FIRST_NODE.saturating_add(node_bytes) != summary.attachment.position,
                "number of nodes",
            ),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, field)) => Err(self.wrong(field)),
            None => Ok(()),
        }
    }

    /// Checks the header, and that the parts which the summary names fill the file.
    fn check_frame(&self) -> Result<(), FileError> {
        let mut header = [0; HEADER_BYTES];
        read_exactly(&self.file, &self.path, &mut header, 0)?;
        check_header(&header, self.identity, self.summary.number).map_err(|error| self.damaged(0, error))?;
        let actual = self
            .file
            .metadata()
            .map_err(|error| StorageError::new("ask the length of", &self.path, error))?
            .len();
        let Attachment { position, length, .. } = self.summary.attachment;
        if self.summary.root.position.checked_add(NODE_LENGTH) != Some(position)
            || position.checked_add(length) != Some(self.summary.file_bytes)
            || actual > self.summary.file_bytes
        {
            return Err(self.wrong("length"));
        }
        if actual < self.summary.file_bytes {
            let expected = self.summary.file_bytes;
            return Err(self.damaged(actual, FormatError::TooShort { expected, actual }));
        }
        Ok(())
    }

    /// The node that is named so; it is what its parent says, or an error.
    pub(super) fn node(&self, named: &Named, caching: Caching) -> Result<Arc<Node>, FileError> {
        let key = NodeKey {
            chain: self.identity.chain,
            number: self.summary.number,
            position: named.position,
        };
        let cached = match caching {
            Caching::Kept | Caching::Taken => self.cache.get(&key, named.crc32),
            Caching::Bypassed => None,
        };
        if let Some(node) = cached {
            return Ok(node);
        }
        let node = Arc::new(self.read_node(named)?);
        if caching == Caching::Kept {
            self.cache.insert(key, Arc::clone(&node));
        }
        Ok(node)
    }

    fn read_node(&self, named: &Named) -> Result<Node, FileError> {
        let place = NodePlace {
            identity: self.identity,
            number: self.summary.number,
            position: named.position,
            level: named.level,
        };
        let mut bytes = [0; NODE_BYTES];
        read_exactly(&self.file, &self.path, &mut bytes, named.position)?;
        let node =
            Node::decode(&bytes, &place, named.crc32).map_err(|error| self.damaged(named.position, error))?;
        // Only the root of an empty run has no first entry.
        let first_is_right = match named.first {
            Some(first) => node.first() == Some(first),
            None => node.first().is_some() || self.summary.entries == 0,
        };
        if first_is_right {
            Ok(node)
        } else {
            Err(self.damaged(named.position, FormatError::Bounds { field: "first key" }))
        }
    }

    fn damaged(&self, position: u64, error: FormatError) -> FileError {
        FileError::damaged(&self.path, position, error)
    }

    fn wrong(&self, field: &'static str) -> FileError {
        self.damaged(0, FormatError::Bounds { field })
    }
}

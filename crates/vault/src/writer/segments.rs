//! Writing the segments of one chain: where each group goes, and which files are not durable yet.

use std::{collections::BTreeMap, sync::Arc};

use farshore_blocks::{ByteCount, Frame};

use crate::{
    format::{Group, Position, SegmentName, UNIT_BYTES},
    segment::FoundGroup,
    storage::{AlignedBuffer, Content, DiskFile, StorageError},
    vault::ChainHandle,
};

/// The end of a chain's segments, being written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    chain: Arc<ChainHandle>,
    /// Where the next group goes.
    cursor: Position,
    /// All before it is durable.
    durable: Position,
    /// Open files: the one at the cursor, and those written since the last sync.
    files: BTreeMap<u32, DiskFile>,
    names: Names,
    tail: Tail,
}

/// Whether all segments' names are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Durable,
    New,
}

/// Whether a write that failed may have left bytes behind the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Exact,
    Littered,
}

impl SegmentWriter {
    /// Goes on at `cursor`, before which all is durable and behind which there is nothing.
    pub(super) fn new(chain: Arc<ChainHandle>, cursor: Position) -> Self {
        Self {
            chain,
            cursor,
            durable: cursor,
            files: BTreeMap::new(),
            names: Names::Durable,
            tail: Tail::Exact,
        }
    }

    pub(super) fn cursor(&self) -> Position {
        self.cursor
    }

    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    /// Goes back to `cursor` after a write that failed: what was written behind it will be overwritten or cut off.
    pub(super) fn back_to(&mut self, cursor: Position) {
        self.cursor = cursor;
        self.tail = Tail::Littered;
    }

    /// Where the segments end from that of `tail` to the one before the cursor's.
    pub(super) fn ends_since(&self, tail: Position) -> Result<Vec<Position>, StorageError> {
        let end = |segment| {
            let path = self.chain.layout.segment(SegmentName::ingested(segment));
            let metadata = std::fs::metadata(&path);
            let metadata = metadata.map_err(|error| StorageError::new("ask the length of", &path, error))?;
            let offset = u32::try_from(metadata.len()).unwrap_or(u32::MAX);
            Ok(Position { segment, offset })
        };
        (tail.segment..self.cursor.segment).map(end).collect()
    }

    /// What the segments take from `tail` to the cursor, where those between end as told.
    pub(super) fn bytes_since(&self, tail: Position, ends: &[Position]) -> ByteCount {
        let between = ends.iter().map(|end| u64::from(end.offset));
        let bytes = between.fold(u64::from(self.cursor.offset), u64::saturating_add);
        ByteCount(bytes.saturating_sub(u64::from(tail.offset)))
    }

    /// Appends a group with the payloads of its frames.
    pub(super) fn append(&mut self, group: &Group, frames: &[Frame]) -> Result<FoundGroup, StorageError> {
        self.cut_litter()?;
        let layout = group.layout();
        let at = self.place_for(layout.total_bytes());
        let begins = at == Position::beginning_of(at.segment);
        let identity = self.chain.identity;
        let header_bytes = if begins { UNIT_BYTES } else { 0 };
        let total = usize::try_from(layout.total_bytes())
            .unwrap_or(usize::MAX)
            .saturating_add(header_bytes);
        let mut buffer = AlignedBuffer::with_capacity(total);
        if begins {
            buffer.push(&SegmentName::ingested(at.segment).encode(identity));
        }
        buffer.push(&group.encode(identity, at));
        for frame in frames {
            buffer.push(frame.payload());
        }
        buffer.fill_to(total);
        self.tail = Tail::Littered;
        let position = if begins { 0 } else { u64::from(at.offset) };
        self.file(at, begins)?.write_buffer_at(buffer, position)?;
        self.tail = Tail::Exact;
        let found = FoundGroup::written(at, group.clone());
        self.cursor = found.end;
        Ok(found)
    }

    /// Where a group of so many bytes goes: in the segment at the cursor, if there is room or nothing else in it.
    fn place_for(&self, bytes: u32) -> Position {
        let begins = self.cursor == Position::beginning_of(self.cursor.segment);
        if begins || self.cursor.offset.saturating_add(bytes) <= self.chain.segment_limit {
            self.cursor
        } else {
            Position::beginning_of(self.cursor.segment.saturating_add(1))
        }
    }

    fn file(&mut self, at: Position, begins: bool) -> Result<&mut DiskFile, StorageError> {
        let path = self.chain.layout.segment(SegmentName::ingested(at.segment));
        if begins {
            self.names = Names::New;
            let file = self.chain.disk.open_aligned(&path, Content::Dropped)?;
            self.files.insert(at.segment, file);
        }
        match self.files.entry(at.segment) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                Ok(vacant.insert(self.chain.disk.open_aligned(&path, Content::Kept)?))
            }
        }
    }

    /// Makes all that was written durable, and the names of the files.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.cut_litter()?;
        if self.durable == self.cursor {
            return Ok(());
        }
        for file in self.files.values_mut() {
            file.sync()?;
        }
        if self.names == Names::New {
            self.chain.disk.sync_directory(&self.chain.layout.segments())?;
            self.names = Names::Durable;
        }
        self.files.retain(|segment, _| *segment == self.cursor.segment);
        self.durable = self.cursor;
        Ok(())
    }

    fn cut_litter(&mut self) -> Result<(), StorageError> {
        if self.tail == Tail::Exact {
            return Ok(());
        }
        let cursor = self.cursor;
        for segment in self.files.keys().filter(|segment| **segment > cursor.segment) {
            let path = self.chain.layout.segment(SegmentName::ingested(*segment));
            self.chain.disk.remove_file(&path)?;
            self.names = Names::New;
        }
        self.files.retain(|segment, _| *segment <= cursor.segment);
        if cursor == Position::beginning_of(cursor.segment) {
            self.files.remove(&cursor.segment);
        } else if let Some(file) = self.files.get_mut(&cursor.segment) {
            file.set_length(u64::from(cursor.offset))?;
        }
        self.tail = Tail::Exact;
        Ok(())
    }
}

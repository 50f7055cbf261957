//! Writing the segments of one cycle: where each frame goes, and which files are not durable yet.

use std::{collections::BTreeMap, sync::Arc};

use farshore_blocks::{ByteCount, Frame, Sequence};

use crate::{
    format::{FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader},
    index::FramePlace,
    records::SegmentRange,
    storage::{Content, DiskFile, StorageError},
    vault::ChainState,
};

/// The segments of one cycle, being written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    state: Arc<ChainState>,
    sequence: Sequence,
    cycle: u64,
    /// The number that the first segment has or will have.
    first: u64,
    /// Where the next frame goes; none before the first frame.
    cursor: Option<Cursor>,
    stored_bytes: u64,
    /// Open files: the one at the cursor, and those written since the last sync.
    files: BTreeMap<u64, DiskFile>,
    names: Names,
    tail: Tail,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    segment: u64,
    position: u32,
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

/// Bytes that go to one segment in one write; position 0 begins a new segment.
struct Batch {
    segment: u64,
    position: u32,
    bytes: Vec<u8>,
}

impl SegmentWriter {
    pub(super) fn fresh(state: Arc<ChainState>, sequence: Sequence, cycle: u64, first: u64) -> Self {
        Self {
            state,
            sequence,
            cycle,
            first,
            cursor: None,
            stored_bytes: 0,
            files: BTreeMap::new(),
            names: Names::Durable,
            tail: Tail::Exact,
        }
    }

    /// Goes on behind `range`, whose segments together hold `stored_bytes`; what lies behind it is cut off.
    pub(super) fn resumed(
        mut self,
        range: &SegmentRange,
        stored_bytes: ByteCount,
    ) -> Result<Self, StorageError> {
        let path = self.state.layout.segment(range.last);
        let mut file = self.state.disk.open_file(&path, Content::Kept)?;
        file.set_length(range.last_length.0)?;
        self.files.insert(range.last, file);
        self.cursor = Some(Cursor {
            segment: range.last,
            position: u32::try_from(range.last_length.0).unwrap_or(u32::MAX),
        });
        self.first = range.first;
        self.stored_bytes = stored_bytes.0;
        Ok(self)
    }

    /// The segments written so far.
    pub(super) fn range(&self) -> Option<SegmentRange> {
        self.cursor.map(|cursor| SegmentRange {
            first: self.first,
            last: cursor.segment,
            last_length: ByteCount(u64::from(cursor.position)),
        })
    }

    pub(super) fn stored_bytes(&self) -> ByteCount {
        ByteCount(self.stored_bytes)
    }

    /// The number of the next cycle's first segment.
    pub(super) fn next_free(&self) -> u64 {
        self.cursor
            .map_or(self.first, |cursor| cursor.segment.saturating_add(1))
    }

    /// Writes all frames or, when this fails, none: the cursor stays where it was, and what was written behind it
    /// will be overwritten or cut off.
    pub(super) fn write(&mut self, frames: &[Frame]) -> Result<Vec<FramePlace>, StorageError> {
        self.cut_litter()?;
        let (batches, places, cursor) = self.plan(frames);
        self.tail = Tail::Littered;
        let mut written: u64 = 0;
        for batch in &batches {
            self.write_batch(batch)?;
            written = written.saturating_add(u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX));
        }
        self.tail = Tail::Exact;
        self.cursor = cursor;
        self.stored_bytes = self.stored_bytes.saturating_add(written);
        Ok(places)
    }

    /// Makes all that was written durable, and the names of the files.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.cut_litter()?;
        for file in self.files.values_mut() {
            file.sync()?;
        }
        if self.names == Names::New {
            self.state.disk.sync_directory(&self.state.layout.segments())?;
            self.names = Names::Durable;
        }
        let current = self.cursor.map(|cursor| cursor.segment);
        self.files.retain(|segment, _| Some(*segment) == current);
        Ok(())
    }

    fn cut_litter(&mut self) -> Result<(), StorageError> {
        if self.tail == Tail::Exact {
            return Ok(());
        }
        if let Some(cursor) = self.cursor
            && let Some(file) = self.files.get_mut(&cursor.segment)
        {
            file.set_length(u64::from(cursor.position))?;
        }
        self.tail = Tail::Exact;
        Ok(())
    }

    fn plan(&self, frames: &[Frame]) -> (Vec<Batch>, Vec<FramePlace>, Option<Cursor>) {
        let mut batches: Vec<Batch> = Vec::new();
        let mut places = Vec::with_capacity(frames.len());
        let mut cursor = self.cursor;
        for frame in frames {
            let at = match cursor.filter(|cursor| self.has_room(*cursor, frame)) {
                Some(at) => at,
                None => {
                    let segment = cursor.map_or(self.first, |cursor| cursor.segment.saturating_add(1));
                    batches.push(self.new_segment(segment));
                    Cursor {
                        segment,
                        position: narrow(SEGMENT_HEADER_BYTES),
                    }
                }
            };
            let header = FrameHeader::of(frame, self.sequence, at.segment, at.position);
            if batches.last().is_none_or(|batch| batch.segment != at.segment) {
                batches.push(Batch {
                    segment: at.segment,
                    position: at.position,
                    bytes: Vec::new(),
                });
            }
            if let Some(batch) = batches.last_mut() {
                header.encode_into(self.state.identity, &mut batch.bytes);
                batch.bytes.extend_from_slice(frame.payload());
            }
            places.push(FramePlace::of(&header));
            cursor = Some(Cursor {
                segment: at.segment,
                position: at.position.saturating_add(stored(&header)),
            });
        }
        (batches, places, cursor)
    }

    fn has_room(&self, cursor: Cursor, frame: &Frame) -> bool {
        let header = FrameHeader::of(frame, self.sequence, cursor.segment, cursor.position);
        cursor.position.saturating_add(stored(&header)) <= self.state.segment_limit
    }

    fn new_segment(&self, segment: u64) -> Batch {
        let header = SegmentHeader {
            identity: self.state.identity,
            segment,
            sequence: self.sequence,
            cycle: self.cycle,
        };
        Batch {
            segment,
            position: 0,
            bytes: header.encode(),
        }
    }

    fn write_batch(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if batch.position == 0 {
            let path = self.state.layout.segment(batch.segment);
            self.names = Names::New;
            let file = self.state.disk.open_file(&path, Content::Dropped)?;
            self.files.insert(batch.segment, file);
        }
        match self.files.get_mut(&batch.segment) {
            Some(file) => file.write_at(&batch.bytes, u64::from(batch.position)),
            None => {
                let path = self.state.layout.segment(batch.segment);
                let mut file = self.state.disk.open_file(&path, Content::Kept)?;
                file.write_at(&batch.bytes, u64::from(batch.position))?;
                self.files.insert(batch.segment, file);
                Ok(())
            }
        }
    }
}

fn stored(header: &FrameHeader) -> u32 {
    u32::try_from(header.stored_bytes()).unwrap_or(u32::MAX)
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

//! Writing a pack: live frames of several segments and older packs, in the order in which they were ingested.
//!
//! A frame keeps its encoding, its stored bytes, its checksum and its fingerprint, and its group says where it was
//! ingested, which is the name that the index has for it for ever, and for which point. So the index can be made again
//! from packs and segments. A group holds frames of many cycles, so that the words about its cycle mean nothing:
//! sequence, cycle, epoch, message and base are zero. What it says to be its part of a message is its place among the
//! groups of the pack, so that none of them can be lost unnoticed.

use bytes::Bytes;
use farshore_blocks::{ByteOffset, Digest, Epoch, Frame, HolderNonce, Sequence};

use super::usage::GROUP_PAYLOAD_BYTES;
use crate::{
    format::{
        CycleWords, Group, MAX_GROUP_FRAMES, MessageEnds, MessagePart, Position, SegmentName, StoredFrame,
        UNIT_BYTES, block_checksums,
    },
    records::CycleKind,
    storage::{AlignedBuffer, Content, DiskFile, StorageError},
    vault::ChainHandle,
};

/// A frame that is carried over, and the point for which it was ingested.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) stored: StoredFrame,
    pub(super) sequence: Sequence,
}

/// A pack that is being written.
pub(super) struct PackWriter<'chain> {
    chain: &'chain ChainHandle,
    file: DiskFile,
    /// Where the next group goes.
    at: Position,
    /// Which group it will be, from 0.
    index: u32,
    frames: Vec<StoredFrame>,
    origins: Vec<Position>,
    sequences: Vec<Sequence>,
    blocks: Vec<u32>,
    payloads: Vec<Bytes>,
    payload_bytes: u64,
}

impl<'chain> PackWriter<'chain> {
    /// Creates the file; one of that name is left over from a crash and is emptied.
    pub(super) fn create(chain: &'chain ChainHandle, number: u32) -> Result<Self, StorageError> {
        let path = chain.layout.segment(SegmentName::packed(number));
        Ok(Self {
            chain,
            file: chain.disk.open_aligned(&path, Content::Dropped)?,
            at: Position::beginning_of(number),
            index: 0,
            frames: Vec::new(),
            origins: Vec::new(),
            sequences: Vec::new(),
            blocks: Vec::new(),
            payloads: Vec::new(),
            payload_bytes: 0,
        })
    }

    /// Adds a frame that was ingested at `origin` for a point; there is nothing to read of one of zeroes.
    pub(super) fn push(
        &mut self,
        origin: Position,
        Carried { stored, sequence }: Carried,
        frame: Option<&Frame>,
    ) -> Result<(), StorageError> {
        let more = self.payload_bytes.saturating_add(u64::from(stored.stored_bytes));
        let most = usize::try_from(MAX_GROUP_FRAMES).unwrap_or(usize::MAX);
        if self.frames.len() == most || (more > GROUP_PAYLOAD_BYTES && !self.frames.is_empty()) {
            self.write_group(MessageEnds::Later)?;
        }
        self.payload_bytes = self.payload_bytes.saturating_add(u64::from(stored.stored_bytes));
        self.frames.push(stored);
        self.origins.push(origin);
        self.sequences.push(sequence);
        self.blocks.extend(frame.into_iter().flat_map(block_checksums));
        // Only the stored bytes: those of a compressed frame may be few.
        self.payloads
            .extend(frame.into_iter().map(|frame| frame.payload().clone()));
        Ok(())
    }

    /// Makes the pack durable, and its name; gives its length.
    pub(super) fn finish(mut self) -> Result<u64, StorageError> {
        if !self.frames.is_empty() {
            self.write_group(MessageEnds::Here)?;
        }
        self.file.sync()?;
        self.chain.disk.sync_directory(&self.chain.layout.segments())?;
        Ok(u64::from(self.at.offset))
    }

    fn write_group(&mut self, ends: MessageEnds) -> Result<(), StorageError> {
        let index = self.index;
        self.index = index.saturating_add(1);
        let group = Group {
            part: MessagePart { index, ends },
            frames: std::mem::take(&mut self.frames),
            origins: std::mem::take(&mut self.origins),
            sequences: std::mem::take(&mut self.sequences),
            blocks: std::mem::take(&mut self.blocks),
            ..nothing_said()
        };
        let identity = self.chain.identity;
        let begins = self.at == Position::beginning_of(self.at.segment);
        let header_bytes = if begins { UNIT_BYTES } else { 0 };
        let group_bytes = group.layout().total_bytes();
        let total = usize::try_from(group_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(header_bytes);
        let mut buffer = AlignedBuffer::with_capacity(total);
        if begins {
            buffer.push(&SegmentName::packed(self.at.segment).encode(identity));
        }
        buffer.push(&group.encode(identity, self.at));
        for payload in self.payloads.drain(..) {
            buffer.push(&payload);
        }
        buffer.fill_to(total);
        let position = if begins { 0 } else { u64::from(self.at.offset) };
        self.file.write_at(buffer.bytes(), position)?;
        self.at = self.at.advanced(group_bytes);
        self.payload_bytes = 0;
        Ok(())
    }
}

/// A group that says nothing of any cycle.
fn nothing_said() -> Group {
    Group {
        words: CycleWords {
            sequence: Sequence(0),
            cycle: 0,
            kind: CycleKind::Base,
            epoch: Epoch {
                number: 0,
                holder: HolderNonce::from_bytes([0; 16]),
            },
            base: Digest::default(),
        },
        message: 0,
        part: MessagePart {
            index: 0,
            ends: MessageEnds::Here,
        },
        durable_before: Position::START,
        frames: Vec::new(),
        origins: Vec::new(),
        sequences: Vec::new(),
        changes: Vec::new(),
        watermarks: Vec::<(_, ByteOffset)>::new(),
        blocks: Vec::new(),
    }
}

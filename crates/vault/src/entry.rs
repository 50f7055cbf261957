//! One visible part of a frame, and the order in which the index keeps such parts.
//!
//! The index cuts a volume into chunks of 64 KiB. An entry never crosses a chunk's border, so all that a read
//! of a chunk can need lies together. Within a chunk the newest version comes first, because a reader of a
//! point walks from that point back in time until the chunk is covered.

mod codec;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub(crate) use codec::ENTRY_BYTES;

use std::cmp::Reverse;

use farshore_blocks::{ByteCount, ByteOffset, Encoding, Extent, Sequence, VolumeIndex};

use crate::format::StoredFrame;

/// Entries are kept per chunk of this size; no entry crosses a chunk's border.
pub(crate) const CHUNK_BYTES: u64 = 65536;

/// One visible part of a frame, within one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) volume: VolumeIndex,
    pub(crate) start: u64,
    /// From 1 to 65536.
    pub(crate) length: u32,
    pub(crate) sequence: Sequence,
    pub(crate) place: FramePlace,
}

/// Where a frame lies, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub(crate) segment: u32,
    /// Of the payload in the segment's file.
    pub(crate) position: u32,
    /// The payload as stored; 0 for a zero frame.
    pub(crate) stored_bytes: u32,
    /// Where in the volume the frame begins.
    pub(crate) frame_start: u64,
    /// From 1 to 65536.
    pub(crate) raw_bytes: u32,
    pub(crate) encoding: Encoding,
    /// Of the raw bytes.
    pub(crate) crc32: u32,
    /// The first 8 bytes of the BLAKE3 digest of the raw bytes.
    pub(crate) fingerprint: u64,
}

/// What one sequence wrote to one chunk: volume, then chunk, then the newest sequence first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VersionKey {
    pub(crate) volume: VolumeIndex,
    pub(crate) chunk: u64,
    pub(crate) sequence: Reverse<Sequence>,
}

/// The order of entries everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryKey {
    pub(crate) version: VersionKey,
    pub(crate) start: u64,
}

/// Checks that entries come in key order and that those of one version do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last: Option<EntryKey>,
}

impl FramePlace {
    /// What the directory of its group says of the frame; the index holds all of it.
    pub(crate) fn stored_frame(&self, volume: VolumeIndex) -> Option<StoredFrame> {
        Some(StoredFrame {
            volume,
            extent: Extent::new(ByteOffset(self.frame_start), ByteCount(u64::from(self.raw_bytes)))?,
            encoding: self.encoding,
            stored_bytes: self.stored_bytes,
            crc32: self.crc32,
            fingerprint: self.fingerprint,
        })
    }
}

impl VersionKey {
    pub(crate) fn new(volume: VolumeIndex, chunk: u64, sequence: Sequence) -> Self {
        Self {
            volume,
            chunk,
            sequence: Reverse(sequence),
        }
    }

    /// Whether both are of the same chunk of the same volume.
    pub(crate) fn same_chunk(self, other: Self) -> bool {
        self.volume == other.volume && self.chunk == other.chunk
    }
}

impl Entry {
    /// The entries of a frame that shows at `extent`: one for each chunk that it touches.
    pub(crate) fn of_frame(
        volume: VolumeIndex,
        extent: Extent,
        sequence: Sequence,
        place: FramePlace,
    ) -> impl Iterator<Item = Self> {
        let (mut start, end) = (extent.start().0, extent.end().0);
        std::iter::from_fn(move || {
            let border = start
                .saturating_sub(start % CHUNK_BYTES)
                .saturating_add(CHUNK_BYTES);
            let length = u32::try_from(border.min(end).checked_sub(start)?).ok()?;
            let entry = Self {
                volume,
                start,
                length,
                sequence,
                place,
            };
            start = border.min(end);
            (length > 0).then_some(entry)
        })
    }

    /// Which chunk of the volume it lies in.
    pub(crate) fn chunk(&self) -> u64 {
        self.start / CHUNK_BYTES
    }

    pub(crate) fn version(&self) -> VersionKey {
        VersionKey::new(self.volume, self.chunk(), self.sequence)
    }

    pub(crate) fn key(&self) -> EntryKey {
        EntryKey {
            version: self.version(),
            start: self.start,
        }
    }

    /// Where it begins, in bytes from the start of its chunk.
    pub(crate) fn start_in_chunk(&self) -> u32 {
        u32::try_from(self.start % CHUNK_BYTES).unwrap_or(u32::MAX)
    }

    /// The first byte behind it, in bytes from the start of its chunk.
    pub(crate) fn end_in_chunk(&self) -> u32 {
        self.start_in_chunk().saturating_add(self.length)
    }

    /// The part of it that lies between these two places of its chunk.
    pub(crate) fn part(&self, from: u32, to: u32) -> Option<Self> {
        let own_start = self.start_in_chunk();
        let start = own_start.max(from);
        let length = self.end_in_chunk().min(to).checked_sub(start)?;
        (length > 0).then_some(Self {
            start: self
                .start
                .saturating_add(u64::from(start.saturating_sub(own_start))),
            length,
            ..*self
        })
    }
}

impl Order {
    /// Whether `entry` may follow those that were shown before.
    pub(crate) fn follows(&mut self, entry: &Entry) -> bool {
        let follows = self.last.is_none_or(|last| {
            let version = entry.version();
            version > last.version || (version == last.version && entry.start >= last.start)
        });
        self.last = Some(EntryKey {
            version: entry.version(),
            start: entry.start.saturating_add(u64::from(entry.length)),
        });
        follows
    }
}

//! How much of each segment is still needed.
//!
//! A frame is needed whole as soon as one byte of it shows at one retained point, so frames are counted, not bytes
//! that show: what is called dead here is what a compaction gives back.

use std::collections::{BTreeMap, BTreeSet};

use farshore_blocks::{ByteOffset, Encoding, VolumeIndex};

use crate::{
    entry::{CHUNK_BYTES, Entry},
    format::{GROUP_HEADER_BYTES, MAX_GROUP_FRAMES, Position, UNIT_BYTES},
};

/// A group of a pack is closed when one more frame would take its payloads beyond this: a write that is large enough
/// for any disk.
pub(super) const GROUP_PAYLOAD_BYTES: u64 = 4 * 1024 * 1024;
/// What a group's directory says of a frame, and of where and for which point the frame was ingested.
const DIRECTORY_ENTRY_BYTES: u64 = 48;
const LARGEST_FRAME_BYTES: u64 = CHUNK_BYTES;

/// Frames that are needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Those that hold data.
    pub(crate) frames: u64,
    pub(crate) stored_bytes: u64,
    /// Frames of zeroes: they take a place in a directory and no more.
    pub(crate) zero_frames: u64,
}

impl Usage {
    pub(super) fn of(entry: &Entry) -> Self {
        let is_zero = entry.place.encoding == Encoding::Zero;
        Self {
            frames: u64::from(!is_zero),
            stored_bytes: u64::from(entry.place.stored_bytes),
            zero_frames: u64::from(is_zero),
        }
    }

    /// Frames of both kinds.
    pub(super) fn all_frames(self) -> u64 {
        self.frames.saturating_add(self.zero_frames)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            frames: self.frames.saturating_add(other.frames),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
            zero_frames: self.zero_frames.saturating_add(other.zero_frames),
        }
    }

    /// What a pack of these frames takes at most; exactly that much if one group holds them.
    pub(super) fn packed_bytes(self) -> u64 {
        let frames = self.all_frames();
        if frames == 0 {
            return 0;
        }
        let unit = u64::try_from(UNIT_BYTES).unwrap_or(u64::MAX);
        let header = u64::try_from(GROUP_HEADER_BYTES).unwrap_or(u64::MAX);
        let more_groups = if self.stored_bytes <= GROUP_PAYLOAD_BYTES && frames <= u64::from(MAX_GROUP_FRAMES)
        {
            0
        } else {
            let by_payload = self.stored_bytes / GROUP_PAYLOAD_BYTES.saturating_sub(LARGEST_FRAME_BYTES);
            by_payload
                .saturating_add(frames / u64::from(MAX_GROUP_FRAMES))
                .saturating_add(1)
        };
        let directories = header
            .saturating_mul(more_groups.saturating_add(1))
            .saturating_add(frames.saturating_mul(DIRECTORY_ENTRY_BYTES));
        // Of each further group, directory and payloads are padded once more.
        let padding = more_groups.saturating_mul(unit).saturating_mul(2);
        unit.saturating_add(directories.next_multiple_of(unit))
            .saturating_add(self.stored_bytes.next_multiple_of(unit))
            .saturating_add(padding)
    }
}

/// Which frame an entry shows a part of. In the order in which frames were ingested: a frame of zeroes takes no room, so
/// that it has the place of the next frame that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameKey {
    pub(super) origin: Position,
    /// A frame of zeroes is known by where it shows alone.
    kind: KeyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum KeyKind {
    Zero(VolumeIndex, ByteOffset),
    Data,
}

impl FrameKey {
    pub(super) fn of(entry: &Entry) -> Self {
        let place = &entry.place;
        Self {
            origin: Position {
                segment: place.segment,
                offset: place.position,
            },
            kind: match place.encoding {
                Encoding::Zero => KeyKind::Zero(entry.volume, ByteOffset(place.frame_start)),
                Encoding::Raw | Encoding::Zstd => KeyKind::Data,
            },
        }
    }
}

/// Counts each frame once, however many pieces of it show.
#[derive(Debug, Default)]
pub(super) struct LiveFrames {
    pub(super) by_segment: BTreeMap<u32, Usage>,
    /// The frames of the chunk before that reach into this one.
    reaching: BTreeSet<FrameKey>,
    reached: Option<(VolumeIndex, u64)>,
    seen: BTreeSet<FrameKey>,
}

impl LiveFrames {
    /// Takes in the entries of a chunk, and shows each frame that no chunk before had. Chunks come in key order.
    pub(super) fn see_chunk(&mut self, entries: &[Entry], mut new: impl FnMut(&Entry)) {
        let Some(first) = entries.first() else { return };
        let chunk = (first.volume, first.chunk());
        let border = chunk.1.saturating_add(1).saturating_mul(CHUNK_BYTES);
        self.seen.clear();
        let before = std::mem::take(&mut self.reaching);
        if self.reached == Some(chunk) {
            self.seen = before;
        }
        for entry in entries {
            let place = &entry.place;
            let frame = FrameKey::of(entry);
            if place.frame_start.saturating_add(u64::from(place.raw_bytes)) > border {
                self.reaching.insert(frame);
            }
            if self.seen.insert(frame) {
                let usage = self.by_segment.entry(place.segment).or_default();
                *usage = usage.plus(Usage::of(entry));
                new(entry);
            }
        }
        self.reached = Some((chunk.0, chunk.1.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::samples::frame;

    #[test]
    fn a_frame_counts_once_however_many_pieces_of_it_show() {
        let across = frame(1, 0, 5, (CHUNK_BYTES - 100, 200), Encoding::Raw);
        let within = frame(2, 0, 4, (CHUNK_BYTES - 50, 40), Encoding::Raw);
        let zeroes = frame(3, 0, 3, (0, 4096), Encoding::Zero);
        assert_eq!(across.len(), 2);
        let first: Vec<_> = across[0]
            .part(65436, 65446)
            .into_iter()
            .chain(across[0].part(65500, 65536))
            .collect();
        let mut live = LiveFrames::default();
        let mut shown = 0;
        live.see_chunk(&[first, within, zeroes].concat(), |_| shown += 1);
        live.see_chunk(&across[1..], |_| shown += 1);
        let counted = live
            .by_segment
            .values()
            .fold(Usage::default(), |sum, usage| sum.plus(*usage));
        assert_eq!((counted.frames, counted.stored_bytes, shown), (2, 240, 3));
        assert_eq!(counted.zero_frames, 1);
    }

    #[test]
    fn a_pack_of_nothing_takes_nothing() {
        assert_eq!(Usage::default().packed_bytes(), 0);
        let one = Usage {
            frames: 1,
            stored_bytes: 1,
            zero_frames: 0,
        };
        assert_eq!(one.packed_bytes(), 3 * 4096);
    }
}

//! How much of each segment is still needed.
//!
//! A frame is needed whole as soon as one byte of it shows at one retained point, so frames are counted, not bytes
//! that show: what is called dead here is what a compaction gives back.

use std::collections::{BTreeMap, BTreeSet};

use farshore_blocks::{Encoding, VolumeIndex};

use crate::{
    entry::{CHUNK_BYTES, Entry},
    format::{GROUP_HEADER_BYTES, MAX_GROUP_FRAMES, Position, UNIT_BYTES},
};

/// A group of a pack is closed when one more frame would take its payloads beyond this: a write that is large enough
/// for any disk.
pub(super) const GROUP_PAYLOAD_BYTES: u64 = 4 * 1024 * 1024;
/// What a group's directory says of a frame, and of where the frame was ingested.
const DIRECTORY_ENTRY_BYTES: u64 = 40;
const LARGEST_FRAME_BYTES: u64 = CHUNK_BYTES;

/// Frames that are needed. Frames of zeroes are not counted: the index alone says all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) frames: u64,
    pub(crate) stored_bytes: u64,
}

impl Usage {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            frames: 1,
            stored_bytes: u64::from(entry.place.stored_bytes),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            frames: self.frames.saturating_add(other.frames),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
        }
    }

    /// What a pack of these frames takes at most; exactly that much if one group holds them.
    pub(super) fn packed_bytes(self) -> u64 {
        if self.frames == 0 {
            return 0;
        }
        let unit = u64::try_from(UNIT_BYTES).unwrap_or(u64::MAX);
        let header = u64::try_from(GROUP_HEADER_BYTES).unwrap_or(u64::MAX);
        let more_groups =
            if self.stored_bytes <= GROUP_PAYLOAD_BYTES && self.frames <= u64::from(MAX_GROUP_FRAMES) {
                0
            } else {
                let by_payload = self.stored_bytes / GROUP_PAYLOAD_BYTES.saturating_sub(LARGEST_FRAME_BYTES);
                by_payload
                    .saturating_add(self.frames / u64::from(MAX_GROUP_FRAMES))
                    .saturating_add(1)
            };
        let directories = header
            .saturating_mul(more_groups.saturating_add(1))
            .saturating_add(self.frames.saturating_mul(DIRECTORY_ENTRY_BYTES));
        // Of each further group, directory and payloads are padded once more.
        let padding = more_groups.saturating_mul(unit).saturating_mul(2);
        unit.saturating_add(directories.next_multiple_of(unit))
            .saturating_add(self.stored_bytes.next_multiple_of(unit))
            .saturating_add(padding)
    }
}

/// Counts each frame once, however many pieces of it show.
#[derive(Debug, Default)]
pub(super) struct LiveFrames {
    pub(super) by_segment: BTreeMap<u32, Usage>,
    /// The frames of the chunk before that reach into this one.
    reaching: BTreeSet<Position>,
    reached: Option<(VolumeIndex, u64)>,
    seen: BTreeSet<Position>,
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
        for entry in entries
            .iter()
            .filter(|entry| entry.place.encoding != Encoding::Zero)
        {
            let place = &entry.place;
            let origin = Position {
                segment: place.segment,
                offset: place.position,
            };
            if place.frame_start.saturating_add(u64::from(place.raw_bytes)) > border {
                self.reaching.insert(origin);
            }
            if self.seen.insert(origin) {
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
        assert_eq!((counted.frames, counted.stored_bytes, shown), (2, 240, 2));
    }

    #[test]
    fn a_pack_of_nothing_takes_nothing() {
        assert_eq!(Usage::default().packed_bytes(), 0);
        let one = Usage {
            frames: 1,
            stored_bytes: 1,
        };
        assert_eq!(one.packed_bytes(), 3 * 4096);
    }
}

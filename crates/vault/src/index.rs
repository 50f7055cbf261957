//! Which frame shows at which place of a volume: later frames override earlier ones, byte by byte.

use std::collections::BTreeMap;

use farshore_blocks::{ByteCount, ByteOffset, Encoding, Extent, Sequence, VolumeIndex};

use crate::format::{FrameHeader, RunEntry};

/// Where a frame lies, and what its header must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub(crate) sequence: Sequence,
    pub(crate) segment: u64,
    pub(crate) position: u32,
    pub(crate) frame: Extent,
    pub(crate) encoding: Encoding,
    pub(crate) crc32: u32,
}

/// The visible parts of frames of one volume: sorted, and never overlapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExtentMap {
    /// Start → (end, frame).
    visible: BTreeMap<u64, (u64, FramePlace)>,
}

impl FramePlace {
    pub(crate) fn of(header: &FrameHeader) -> Self {
        Self {
            sequence: header.sequence,
            segment: header.segment,
            position: header.position,
            frame: header.extent,
            encoding: header.encoding,
            crc32: header.crc32,
        }
    }

    /// What the frame's header must say.
    pub(crate) fn header(&self, volume: VolumeIndex) -> FrameHeader {
        FrameHeader {
            volume,
            extent: self.frame,
            crc32: self.crc32,
            encoding: self.encoding,
            sequence: self.sequence,
            segment: self.segment,
            position: self.position,
        }
    }

    pub(crate) fn of_entry(entry: &RunEntry, sequence: Sequence) -> Self {
        Self {
            sequence,
            segment: entry.segment,
            position: entry.position,
            frame: entry.frame,
            encoding: entry.encoding,
            crc32: entry.crc32,
        }
    }
}

impl ExtentMap {
    /// Lets `place` show at `extent`, over whatever showed there.
    pub(crate) fn insert(&mut self, extent: Extent, place: FramePlace) {
        let (start, end) = (extent.start().0, extent.end().0);
        if let Some((before, (before_end, before_place))) = self.last_before(start)
            && before_end > start
        {
            self.visible.insert(before, (start, before_place));
            if before_end > end {
                self.visible.insert(end, (before_end, before_place));
            }
        }
        while let Some((within, (within_end, within_place))) = self.first_in(start, end) {
            self.visible.remove(&within);
            if within_end > end {
                self.visible.insert(end, (within_end, within_place));
            }
        }
        self.visible.insert(start, (end, place));
    }

    /// All of `extent` in order: what shows where, and where nothing does.
    pub(crate) fn pieces(&self, extent: Extent) -> Vec<(Extent, Option<FramePlace>)> {
        let mut pieces = Vec::new();
        let mut at = extent.start().0;
        let from = self.last_before(at).map_or(at, |(start, _)| start);
        for (start, (end, place)) in self.visible.range(from..extent.end().0) {
            let part = span(*start, *end).and_then(|visible| visible.intersection(extent));
            let Some(part) = part else { continue };
            pieces.extend(span(at, part.start().0).map(|gap| (gap, None)));
            pieces.push((part, Some(*place)));
            at = part.end().0;
        }
        pieces.extend(span(at, extent.end().0).map(|gap| (gap, None)));
        pieces
    }

    /// The entries of a run, in order.
    pub(crate) fn entries(&self, volume: VolumeIndex) -> impl Iterator<Item = RunEntry> {
        self.visible.iter().filter_map(move |(start, (end, place))| {
            Some(RunEntry {
                volume,
                extent: span(*start, *end)?,
                frame: place.frame,
                encoding: place.encoding,
                crc32: place.crc32,
                segment: place.segment,
                position: place.position,
            })
        })
    }

    fn last_before(&self, position: u64) -> Option<(u64, (u64, FramePlace))> {
        let (start, visible) = self.visible.range(..position).next_back()?;
        Some((*start, *visible))
    }

    fn first_in(&self, start: u64, end: u64) -> Option<(u64, (u64, FramePlace))> {
        let (start, visible) = self.visible.range(start..end).next()?;
        Some((*start, *visible))
    }
}

fn span(start: u64, end: u64) -> Option<Extent> {
    Extent::new(ByteOffset(start), ByteCount(end.checked_sub(start)?))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test volumes are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64;

    fn place(number: u32, frame: Extent) -> FramePlace {
        FramePlace {
            sequence: Sequence(1),
            segment: 1,
            position: number,
            frame,
            encoding: Encoding::Raw,
            crc32: 0,
        }
    }

    proptest! {
        #[test]
        fn every_byte_shows_the_last_frame_that_covered_it(
            writes in prop::collection::vec((0..SIZE, 1..SIZE), 0..40),
            asked in (0..SIZE, 1..SIZE),
        ) {
            let mut map = ExtentMap::default();
            let mut oracle = vec![None; 2 * 64];
            for (number, (start, length)) in (0u32..).zip(&writes) {
                let extent = Extent::new(ByteOffset(*start), ByteCount(*length)).unwrap();
                map.insert(extent, place(number, extent));
                oracle[*start as usize..(start + length) as usize].fill(Some(number));
            }
            let asked = Extent::new(ByteOffset(asked.0), ByteCount(asked.1)).unwrap();
            let mut at = asked.start().0;
            for (extent, shown) in map.pieces(asked) {
                prop_assert_eq!(extent.start().0, at);
                at = extent.end().0;
                for byte in extent.start().0..at {
                    prop_assert_eq!(oracle[byte as usize], shown.map(|place| place.position));
                }
            }
            prop_assert_eq!(at, asked.end().0);
        }
    }
}

//! Where an audit stands, what comes next, and how places of repair join what a cycle ships anyway.

use farshore_blocks::{ByteCount, ByteOffset, Extent, HASHED_BLOCK, VolumeIndex};
use farshore_provider::{CapturedVolume, StateOfBytes, StatedExtent};
use serde::{Deserialize, Serialize};

/// The first bytes that were not compared yet in this pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    volume: VolumeIndex,
    offset: ByteOffset,
}

/// Whether a pass came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    GoesOn,
    Ended,
}

impl Place {
    /// What is to be compared next, at most `budget`, to the end of this pass at most.
    pub(super) fn next(self, volumes: &[CapturedVolume], budget: ByteCount) -> Vec<(VolumeIndex, Extent)> {
        let mut left = budget.0;
        let mut ranges = Vec::new();
        for captured in volumes.iter().filter(|captured| captured.index >= self.volume) {
            let start = if captured.index == self.volume {
                // A volume that is smaller than it was, or a damaged note, begins anew.
                self.offset.0 / HASHED_BLOCK.0 * HASHED_BLOCK.0
            } else {
                0
            };
            let length = captured.size.0.saturating_sub(start).min(left);
            if let Some(extent) = Extent::new(ByteOffset(start), ByteCount(length)) {
                ranges.push((captured.index, extent));
                // A volume's last block counts as a whole one, so that the next volume is compared in whole ones.
                left = left.saturating_sub(length.next_multiple_of(HASHED_BLOCK.0));
            }
        }
        if ranges.is_empty() && self != Self::default() {
            return Self::default().next(volumes, budget);
        }
        ranges
    }

    /// Goes on behind a range that was compared.
    pub(super) fn pass(&mut self, volumes: &[CapturedVolume], volume: VolumeIndex, extent: Extent) -> Pass {
        let size = volumes.iter().find(|captured| captured.index == volume);
        if size.is_some_and(|captured| extent.end().0 < captured.size.0) {
            *self = Self {
                volume,
                offset: extent.end(),
            };
            return Pass::GoesOn;
        }
        let next = volumes.iter().find(|captured| captured.index > volume);
        *self = next.map_or_else(Self::default, |captured| Self {
            volume: captured.index,
            offset: ByteOffset(0),
        });
        if next.is_none() { Pass::Ended } else { Pass::GoesOn }
    }

    /// How much of this pass is done.
    pub(super) fn compared(self, volumes: &[CapturedVolume]) -> ByteCount {
        let before = volumes.iter().filter(|captured| captured.index < self.volume);
        let whole: u64 = before.map(|captured| captured.size.0).sum();
        ByteCount(whole.saturating_add(self.offset.0))
    }
}

/// `volumes` with these places among their extents, as data to be read.
pub(super) fn with_extents(
    volumes: &[CapturedVolume],
    places: &[(VolumeIndex, Extent)],
) -> Vec<CapturedVolume> {
    let mut volumes = volumes.to_vec();
    for captured in &mut volumes {
        let mine = places.iter().filter(|(volume, _)| *volume == captured.index);
        for (_, place) in mine {
            add(&mut captured.extents, *place);
        }
    }
    volumes
}

/// What of `place` is not there yet; the extents stay in order and do not overlap.
fn add(extents: &mut Vec<StatedExtent>, place: Extent) {
    let mut missing = Vec::new();
    let mut from = place.start();
    for stated in extents.iter() {
        let Some(covered) = stated.extent.intersection(place) else {
            continue;
        };
        missing.extend(between(from, covered.start()));
        from = from.max(covered.end());
    }
    missing.extend(between(from, place.end()));
    extents.extend(missing.into_iter().map(|extent| StatedExtent {
        extent,
        state: StateOfBytes::Data,
    }));
    extents.sort_by_key(|stated| stated.extent.start());
}

fn between(start: ByteOffset, end: ByteOffset) -> Option<Extent> {
    Extent::new(start, ByteCount(end.0.checked_sub(start.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = HASHED_BLOCK.0;

    fn volume(index: u32, size: u64, extents: &[(u64, u64)]) -> CapturedVolume {
        let stated = |(start, end): &(u64, u64)| StatedExtent {
            extent: between(ByteOffset(*start), ByteOffset(*end)).unwrap(),
            state: StateOfBytes::Data,
        };
        CapturedVolume {
            index: VolumeIndex(index),
            size: ByteCount(size),
            extents: extents.iter().map(stated).collect(),
        }
    }

    #[test]
    fn every_byte_is_compared_once_a_pass_whatever_the_budget() {
        let volumes = [volume(0, 5 * BLOCK + 100, &[]), volume(1, 2 * BLOCK, &[])];
        for budget in 1..=9 {
            let mut place = Place::default();
            let mut seen: Vec<(u32, u64, u64)> = Vec::new();
            'pass: loop {
                let ranges = place.next(&volumes, ByteCount(budget * BLOCK));
                assert!(!ranges.is_empty());
                for (volume, extent) in ranges {
                    seen.push((volume.0, extent.start().0, extent.end().0));
                    if place.pass(&volumes, volume, extent) == Pass::Ended {
                        break 'pass;
                    }
                }
            }
            assert_eq!(place, Place::default());
            for (index, size) in [(0, 5 * BLOCK + 100), (1, 2 * BLOCK)] {
                let mut through = 0;
                for (_, start, end) in seen.iter().filter(|(volume, ..)| *volume == index) {
                    assert_eq!(*start, through, "budget {budget}");
                    through = *end;
                }
                assert_eq!(through, size, "budget {budget}");
            }
        }
    }

    #[test]
    fn a_place_that_is_no_more_begins_anew() {
        let volumes = [volume(0, 2 * BLOCK, &[])];
        let lost = Place {
            volume: VolumeIndex(7),
            offset: ByteOffset(9 * BLOCK),
        };
        let ranges = lost.next(&volumes, ByteCount(BLOCK));
        assert_eq!(ranges, Place::default().next(&volumes, ByteCount(BLOCK)));
    }

    #[test]
    fn places_join_the_extents_without_overlap() {
        let volumes = [volume(0, 10 * BLOCK, &[(100, 200), (BLOCK - 50, BLOCK + 50)])];
        let place = Extent::new(ByteOffset(0), ByteCount(BLOCK)).unwrap();
        let far = Extent::new(ByteOffset(4 * BLOCK), ByteCount(BLOCK)).unwrap();
        let joined = with_extents(&volumes, &[(VolumeIndex(0), place), (VolumeIndex(0), far)]);
        let extents: Vec<_> = joined[0]
            .extents
            .iter()
            .map(|stated| (stated.extent.start().0, stated.extent.end().0))
            .collect();
        assert_eq!(
            extents,
            [
                (0, 100),
                (100, 200),
                (200, BLOCK - 50),
                (BLOCK - 50, BLOCK + 50),
                (4 * BLOCK, 5 * BLOCK)
            ]
        );
    }
}

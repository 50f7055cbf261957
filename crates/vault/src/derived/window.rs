//! A window of the index: the entries of some chunks, put in order.

use std::cmp::Reverse;

use farshore_blocks::{Encoding, VolumeIndex};

use crate::{
    entry::{Entry, VersionKey},
    versions::latest_shipped,
};

/// The entries from one chunk on, as many as there is room for.
#[derive(Debug)]
pub(super) struct Window {
    from: (VolumeIndex, u64),
    /// The first chunk that has no room, once there is one.
    behind: Option<(VolumeIndex, u64)>,
    limit: usize,
    /// When some have to go.
    full: usize,
    shipped: Vec<Shipped>,
}

/// An entry, and when it came.
#[derive(Debug, Clone, Copy)]
struct Shipped {
    entry: Entry,
    number: usize,
}

impl Shipped {
    fn chunk(&self) -> (VolumeIndex, u64) {
        (self.entry.volume, self.entry.chunk())
    }

    /// Frames are found in the order in which they were shipped, but those of packs among one another only within a
    /// pack. What does say it is where they were ingested; a frame of zeroes has the place of the one behind it.
    fn order(&self) -> (VersionKey, Reverse<(u32, u32, bool, usize)>) {
        let place = &self.entry.place;
        let is_data = place.encoding != Encoding::Zero;
        let shipped = (place.segment, place.position, is_data, self.number);
        (self.entry.version(), Reverse(shipped))
    }
}

impl Window {
    pub(super) fn new(from: (VolumeIndex, u64), limit: usize) -> Self {
        Self {
            from,
            behind: None,
            limit,
            full: limit.saturating_mul(2),
            shipped: Vec::new(),
        }
    }

    /// Takes in the next entry, if it is of the window's chunks.
    pub(super) fn take(&mut self, entry: Entry) {
        let number = self.shipped.len();
        let shipped = Shipped { entry, number };
        let chunk = shipped.chunk();
        if chunk < self.from || self.behind.is_some_and(|behind| chunk >= behind) {
            return;
        }
        self.shipped.push(shipped);
        if self.shipped.len() >= self.full {
            self.make_room();
        }
    }

    /// Gives up the last chunks. Those of one chunk stay together, however many they are.
    fn make_room(&mut self) {
        self.shipped.sort_by_key(Shipped::chunk);
        let first = self.shipped.first().map(Shipped::chunk);
        let at_limit = self.shipped.get(self.limit).map(Shipped::chunk);
        let cut = match at_limit {
            Some(chunk) if Some(chunk) > first => self.shipped.partition_point(|other| other.chunk() < chunk),
            Some(_) | None => self.shipped.partition_point(|other| Some(other.chunk()) == first),
        };
        if let Some(behind) = self.shipped.get(cut) {
            self.behind = Some(behind.chunk());
            self.shipped.truncate(cut);
        }
        for (number, shipped) in self.shipped.iter_mut().enumerate() {
            shipped.number = number;
        }
        self.full = self.shipped.len().max(self.limit).saturating_mul(2);
    }

    /// The first chunk that the next window has to begin with.
    pub(super) fn behind(&self) -> Option<(VolumeIndex, u64)> {
        self.behind
    }

    /// Its chunks, in key order: of what one sequence put there, what was shipped last shows.
    pub(super) fn chunks(mut self) -> Vec<Vec<Entry>> {
        self.shipped.sort_unstable_by_key(Shipped::order);
        let chunks = self.shipped.chunk_by(|one, other| one.chunk() == other.chunk());
        chunks
            .map(|chunk| {
                let versions = chunk.chunk_by(|one, other| one.entry.version() == other.entry.version());
                versions
                    .flat_map(|version| latest_shipped(version.iter().map(|shipped| shipped.entry)))
                    .collect()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::samples::entry;

    /// Every third block of a volume, then every third from the second on, then the rest.
    fn shuffled() -> Vec<Entry> {
        let blocks = (0..3u64).flat_map(|first| (0..40u64).map(move |step| first + 3 * step));
        (1..)
            .zip(blocks)
            .map(|(number, block)| entry(number, 0, 7, block * 16_384, 16_384))
            .collect()
    }

    #[test]
    fn windows_of_any_size_together_hold_every_entry_once_and_in_order() {
        let entries = shuffled();
        for limit in [1, 3, 4, 10, 60, 1000] {
            let mut found = Vec::new();
            let mut ahead = Some((VolumeIndex(0), 0));
            while let Some(from) = ahead {
                let mut window = Window::new(from, limit);
                entries.iter().for_each(|entry| window.take(*entry));
                assert!(window.shipped.len() <= 2 * limit.max(4));
                ahead = window.behind();
                found.extend(window.chunks().concat());
            }
            let mut expected = entries.clone();
            expected.sort_by_key(|entry| entry.start);
            assert_eq!(found, expected, "windows of {limit}");
        }
    }

    #[test]
    fn what_was_ingested_later_shows_whenever_it_is_found() {
        let (early, late) = (entry(1, 0, 7, 0, 4096), entry(2, 0, 7, 1024, 1024));
        for order in [[early, late], [late, early]] {
            let mut window = Window::new((VolumeIndex(0), 0), 10);
            order.iter().for_each(|entry| window.take(*entry));
            let shown = window.chunks().concat();
            let spans: Vec<_> = shown
                .iter()
                .map(|entry| (entry.start, entry.place.segment))
                .collect();
            assert_eq!(spans, [(0, 1), (1024, 2), (2048, 1)]);
        }
    }
}

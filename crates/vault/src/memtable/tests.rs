//! The table against a map of bytes.

use std::collections::BTreeMap;

use farshore_blocks::{Encoding, Sequence, VolumeIndex};
use proptest::prelude::*;

use super::Memtable;
use crate::entry::{
    CHUNK_BYTES, Order, VersionKey,
    samples::{entry, frame},
};

/// The first byte that the tests write: their frames cross the border of a chunk behind it.
const FIRST: u64 = CHUNK_BYTES - 40;

proptest! {
    #[test]
    fn within_a_sequence_the_last_frame_shows_at_every_byte(
        writes in prop::collection::vec((0_u32..2, 1_u64..4, 0_u64..70, 1_u32..30), 0..60),
        asked in (0_u32..2, 0_u64..2, 0_u64..5),
    ) {
        let mut table = Memtable::default();
        let mut oracle = BTreeMap::new();
        for (number, (volume, sequence, start, length)) in (0_u32..).zip(&writes) {
            let frame = frame(number, *volume, *sequence, (FIRST + start, *length), Encoding::Raw);
            frame.into_iter().for_each(|entry| table.insert(entry));
            for byte in FIRST + start..FIRST + start + u64::from(*length) {
                oracle.insert((*volume, *sequence, byte), number);
            }
        }
        prop_assert_eq!(&bytes(&table), &oracle);
        let mut order = Order::default();
        prop_assert!(table.entries().all(|entry| order.follows(&entry)));
        prop_assert_eq!(table.len(), table.entries().count());

        let (volume, chunk, at) = (VolumeIndex(asked.0), asked.1, Sequence(asked.2));
        let shown: Vec<_> = table.chunk(volume, chunk, at).collect();
        let expected: Vec<_> = table
            .entries()
            .filter(|entry| entry.volume == volume && entry.chunk() == chunk && entry.sequence <= at)
            .collect();
        prop_assert_eq!(shown, expected);
        let from = VersionKey::new(volume, chunk, at);
        let behind: Vec<_> = table.entries().filter(|entry| entry.version() >= from).collect();
        prop_assert_eq!(table.seek(from).collect::<Vec<_>>(), behind);
    }
}

#[test]
fn a_frame_in_the_middle_of_another_splits_it() {
    let mut table = Memtable::default();
    table.insert(entry(1, 0, 1, 0, 100));
    table.insert(entry(2, 0, 1, 40, 20));
    let shown: Vec<_> = table
        .entries()
        .map(|entry| (entry.place.segment, entry.start, entry.length))
        .collect();
    assert_eq!(shown, [(1, 0, 40), (2, 40, 20), (1, 60, 40)]);
    table.insert(entry(3, 0, 1, 0, 100));
    assert_eq!(table.len(), 1);
}

fn bytes(table: &Memtable) -> BTreeMap<(u32, u64, u64), u32> {
    let mut bytes = BTreeMap::new();
    for entry in table.entries() {
        for byte in entry.start..entry.start + u64::from(entry.length) {
            let before = bytes.insert((entry.volume.0, entry.sequence.0, byte), entry.place.segment);
            assert_eq!(before, None, "entries overlap");
        }
    }
    bytes
}

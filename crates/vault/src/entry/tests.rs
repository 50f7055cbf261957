//! The order of entries, and their bytes.

use farshore_blocks::{Encoding, Sequence, VolumeIndex};
use proptest::prelude::*;

use super::{
    CHUNK_BYTES, ENTRY_BYTES, Entry, Order,
    samples::{entry, frame},
};
use crate::format::FormatError;

fn encoded(entry: &Entry) -> Result<[u8; ENTRY_BYTES], FormatError> {
    let mut bytes = Vec::new();
    let done = entry.encode_into(&mut bytes);
    if done.is_err() {
        assert!(bytes.is_empty(), "a refused entry left bytes behind");
    }
    done.map(|()| bytes.try_into().unwrap())
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop::sample::select(vec![Encoding::Raw, Encoding::Zero, Encoding::Zstd])
}

proptest! {
    #[test]
    fn the_entries_of_a_frame_cover_it_and_come_back_from_their_bytes(
        number: u32,
        volume in 0_u32..65536,
        sequence: u64,
        start in 0..u64::MAX - CHUNK_BYTES,
        length in 1_u32..=65536,
        encoding in encodings(),
    ) {
        let entries = frame(number, volume, sequence, (start, length), encoding);
        let mut at = start;
        let mut order = Order::default();
        for entry in &entries {
            prop_assert_eq!(entry.start, at);
            at += u64::from(entry.length);
            prop_assert_eq!((at - 1) / CHUNK_BYTES, entry.chunk());
            prop_assert!(order.follows(entry));
            prop_assert_eq!(&Entry::decode(&encoded(entry).unwrap()).unwrap(), entry);
        }
        prop_assert_eq!(at, start + u64::from(length));
        prop_assert!(entries.len() <= 2);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_come_back_as_they_were(bytes in prop::array::uniform32(any::<u8>()), tail in prop::array::uniform16(any::<u8>()), mask: u64) {
        // Some fields are zeroed, so that not nearly everything fails at the first check.
        let mut all = [0; ENTRY_BYTES];
        for (index, byte) in bytes.into_iter().chain(tail).enumerate() {
            all[index] = if mask >> index & 1 == 0 { byte } else { 0 };
        }
        all[46] %= 5;
        if let Ok(entry) = Entry::decode(&all) {
            prop_assert_eq!(encoded(&entry).unwrap(), all);
        }
    }
}

type Spoil = fn(&mut Entry);

#[test]
fn an_entry_that_cannot_be_is_not_stored() {
    let good = entry(1, 3, 7, 1000, 500);
    encoded(&good).unwrap();
    let wrong: [(&str, Spoil); 12] = [
        ("length", |entry| entry.length = 0),
        ("length", |entry| entry.length = 65537),
        ("raw bytes", |entry| entry.place.raw_bytes = 0),
        ("raw bytes", |entry| entry.place.raw_bytes = 65537),
        ("stored bytes", |entry| entry.place.stored_bytes -= 1),
        ("stored bytes", |entry| entry.place.encoding = Encoding::Zero),
        ("stored bytes", |entry| {
            entry.place.encoding = Encoding::Zstd;
            entry.place.stored_bytes = 65537;
        }),
        ("chunk", |entry| {
            entry.start = 65000;
            entry.length = 600;
        }),
        ("extent", |entry| entry.start -= 1),
        ("extent", |entry| entry.length += 1),
        ("frame", |entry| entry.place.frame_start = u64::MAX - 3),
        ("volume", |entry| entry.volume = VolumeIndex(65536)),
    ];
    for (expected, spoil) in wrong {
        let mut entry = good;
        spoil(&mut entry);
        // Lengths have to agree before the part that is asked about can be the one that is wrong.
        if expected != "stored bytes" {
            entry.place.stored_bytes = entry.place.raw_bytes;
        }
        match encoded(&entry) {
            Err(FormatError::Bounds { field }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn the_newest_version_of_a_chunk_comes_first() {
    let sorted = [
        entry(0, 0, 5, 65535, 1),
        entry(0, 0, 9, 65536, 10),
        entry(0, 0, 9, 65546, 1),
        entry(0, 0, 8, 65536, 10),
        entry(0, 0, 1, 131_072, 10),
        entry(0, 1, 3, 0, 10),
    ];
    assert!(sorted.is_sorted_by(|left, right| left.key() < right.key()));
    let mut order = Order::default();
    assert!(sorted.iter().all(|entry| order.follows(entry)));
    for pair in sorted.windows(2) {
        let mut order = Order::default();
        assert!(order.follows(&pair[1]));
        assert!(!order.follows(&pair[0]));
    }
    let mut order = Order::default();
    assert!(order.follows(&entry(0, 0, 1, 100, 10)));
    assert!(!order.follows(&entry(0, 0, 1, 109, 10)), "they overlap");
}

#[test]
fn a_part_of_an_entry_is_what_lies_between() {
    let whole = entry(1, 0, 4, 65536 + 100, 50);
    let part = whole.part(120, 65536).unwrap();
    assert_eq!((part.start, part.length), (65536 + 120, 30));
    assert_eq!((part.place, part.sequence), (whole.place, Sequence(4)));
    assert_eq!(whole.part(0, 65536), Some(whole));
    assert_eq!(whole.part(0, 100), None);
    assert_eq!(whole.part(150, 200), None);
    assert_eq!(whole.part(10, 5), None);
}

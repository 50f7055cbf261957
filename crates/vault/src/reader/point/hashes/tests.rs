//! Hashes of blocks beside the bytes of the disks: from the index and from the data they are the same.

use std::{fs, path::Path};

use super::*;
use crate::{
    Vault, VaultReader,
    scripted::{CHAIN, Source, Write, scratch, write},
};

/// A volume of five blocks and a short one.
const SIZE: usize = 5 * 65536 + 5000;
const BLOCKS: u64 = 6;

/// Bytes that do not compress.
fn noise(offset: u64, length: usize, seed: u32) -> Write {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    Write {
        volume: 0,
        offset,
        bytes: (0..length).map(|_| next()).collect(),
    }
}

/// Block 0 is a whole frame, 1 is parts of several, 2 was zeroed, 3 was never written, 4 compresses, 5 is short.
fn a_vault(path: &Path) -> Source {
    let vault = Vault::create(path).unwrap();
    let mut source = Source::new(&[SIZE]);
    let (mut writer, epoch) = source.enroll(&vault);
    let first = vec![
        noise(0, 65536, 1),
        noise(65536, 65536, 2),
        noise(131_072, 65536, 3),
        write(0, 4 * 65536, 7, 65536),
        noise(5 * 65536, 5000, 4),
    ];
    let mut cycle = source.cycle(epoch, 1, &[first]);
    for frame in &mut cycle.messages[0] {
        *frame = frame.clone().compressed(1);
    }
    writer.begin(&cycle.begin).unwrap();
    cycle.append_from(&mut writer, 1);
    let point = writer.seal(&cycle.seal).unwrap();
    source.sealed(cycle, point);
    let second = vec![
        noise(70_000, 9000, 5),
        write(0, 131_072, 0, 65536),
        write(0, 80_000, 0, 100),
    ];
    source.replicate(&mut writer, epoch, 2, &[second]);
    source
}

fn hashes(path: &Path, point: usize, source: HashSource) -> Result<Vec<BlockHash>, ReadError> {
    let reader = VaultReader::open(path).unwrap();
    let points = reader.points(CHAIN).unwrap();
    let point = reader.open_point(CHAIN, points[point].sequence).unwrap();
    point.block_hashes(VolumeIndex(0), 0, BLOCKS, source)
}

#[test]
fn index_and_data_give_the_hashes_of_the_bytes() {
    let directory = scratch();
    let path = directory.path().join("vault");
    let source = a_vault(&path);
    for (point, (_, disks)) in source.points.iter().enumerate() {
        let expected: Vec<_> = disks[0].chunks(65536).map(BlockHash::of).collect();
        assert_eq!(expected[3], BlockHash::Zero);
        for from in [HashSource::Index, HashSource::Data] {
            assert!(
                hashes(&path, point, from).unwrap() == expected,
                "point {point} from {from:?}"
            );
        }
    }
}

#[test]
fn the_index_answers_for_whole_frames_where_the_data_is_damaged() {
    let directory = scratch();
    let path = directory.path().join("vault");
    let source = a_vault(&path);
    let segment = path
        .join("chains")
        .join(CHAIN.to_string())
        .join("segments/0000000001.segment");
    let mut bytes = fs::read(&segment).unwrap();
    let payload = &source.points[0].1[0][..100];
    let at = bytes.windows(100).position(|window| window == payload).unwrap();
    bytes[at + 5] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let expected: Vec<_> = source.points[1].1[0].chunks(65536).map(BlockHash::of).collect();
    assert!(hashes(&path, 1, HashSource::Index).unwrap() == expected);
    let read = hashes(&path, 1, HashSource::Data).unwrap();
    assert_eq!(read[0], BlockHash::Unreadable);
    assert!(read[1..] == expected[1..], "its neighbours are read all the same");
}

#[test]
fn blocks_that_the_volume_does_not_have_are_refused() {
    let directory = scratch();
    let path = directory.path().join("vault");
    let source = a_vault(&path);
    let reader = VaultReader::open(&path).unwrap();
    let point = reader.open_point(CHAIN, source.points[1].0.sequence).unwrap();
    let ask = |first, count| point.block_hashes(VolumeIndex(0), first, count, HashSource::Index);
    let all = ask(0, BLOCKS).unwrap();
    for first in 0..=BLOCKS {
        for count in 0..=BLOCKS - first {
            let asked = ask(first, count);
            let (from, to) = (
                usize::try_from(first).unwrap(),
                usize::try_from(first + count).unwrap(),
            );
            assert!(count == 0 || asked.unwrap() == all[from..to]);
        }
        for count in [BLOCKS - first + 1, BLOCKS + 9, u64::MAX] {
            assert!(matches!(ask(first, count), Err(ReadError::OutOfBounds { .. })));
        }
    }
    assert!(matches!(ask(u64::MAX, 1), Err(ReadError::OutOfBounds { .. })));
    let other = point.block_hashes(VolumeIndex(1), 0, 1, HashSource::Data);
    assert!(matches!(other, Err(ReadError::UnknownVolume { .. })));
}

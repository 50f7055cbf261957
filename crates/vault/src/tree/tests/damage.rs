//! Every way in which a run's file can be wrong is noticed, and none makes the reader panic.

use proptest::prelude::*;

use super::*;
use crate::tree::{
    Attachment, RootNode,
    header::encode_header,
    node::{NODE_BYTES, Node, NodePlace, encode_node},
};

#[test]
fn every_flipped_bit_pattern_of_a_byte_is_noticed() {
    let written = Written::new(&entries(200, 4), b"attachment");
    written.check().unwrap();
    let whole = std::fs::read(written.path()).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(written.path())
        .unwrap();
    for (position, byte) in whole.iter().enumerate() {
        use std::os::unix::fs::FileExt;
        let flipped = byte ^ (1 << (position % 8));
        file.write_all_at(&[flipped], position as u64).unwrap();
        assert!(written.check().is_err(), "byte {position} can change unnoticed");
        file.write_all_at(&[*byte], position as u64).unwrap();
    }
    written.check().unwrap();
}

#[test]
fn a_file_that_is_too_short_or_too_long_is_refused() {
    let written = Written::new(&entries(200, 4), b"attachment");
    let whole = std::fs::read(written.path()).unwrap();
    let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
    for length in [
        0,
        1,
        4095,
        4096,
        4097,
        12288,
        whole.len() - 11,
        whole.len() - 1,
        whole.len() + 1,
    ] {
        std::fs::write(written.path(), &longer[..length]).unwrap();
        assert!(
            matches!(written.open(), Err(FileError::Damaged(_))),
            "a file of {length} bytes was opened"
        );
    }
}

#[test]
fn a_summary_that_is_not_the_files_is_noticed() {
    let written = Written::new(&entries(1000, 4), b"attachment");
    let good = written.summary;
    let wrong: [fn(&mut RunSummary); 10] = [
        |summary| summary.entries += 1,
        |summary| summary.levels += 1,
        |summary| summary.levels = 0,
        |summary| summary.root.position -= 8192,
        |summary| summary.root.crc32 ^= 1,
        |summary| summary.file_bytes += 1,
        |summary| summary.attachment.length = u64::MAX,
        |summary| summary.attachment.crc32 ^= 1,
        |summary| summary.first_sequence.0 += 1,
        |summary| summary.last_sequence.0 += 1,
    ];
    for (index, spoil) in wrong.into_iter().enumerate() {
        let mut summary = good;
        spoil(&mut summary);
        let checked = written.open_as(IDENTITY, &summary).and_then(|run| run.check());
        assert!(checked.is_err(), "spoiled summary {index} was believed");
    }
}

#[test]
fn a_stale_node_is_not_believed() {
    let entries = entries(400, 4);
    let newer: Vec<_> = entries
        .iter()
        .map(|entry| {
            let mut newer = *entry;
            newer.place.fingerprint ^= 1;
            newer
        })
        .collect();
    let (stale, written) = (Written::new(&entries, b""), Written::new(&newer, b""));
    let mut bytes = std::fs::read(written.path()).unwrap();
    let leaf = 4096..4096 + NODE_BYTES;
    bytes[leaf.clone()].copy_from_slice(&std::fs::read(stale.path()).unwrap()[leaf]);
    std::fs::write(written.path(), bytes).unwrap();
    match written.check() {
        Err(FileError::Damaged(damaged)) => {
            assert_eq!(damaged.position, 4096);
            let expected = "checksum named by its parent";
            assert!(matches!(damaged.source, FormatError::Identity { field } if field == expected));
        }
        other => panic!("{other:?}"),
    }
}

/// Reads everything that can be read; only that it ends and does not panic counts.
fn exercise(run: &Run) {
    let _ = run.check();
    let _ = run.attachment();
    for (chunk, at_most) in [(0, 0), (1 << 40, u64::MAX), (u64::MAX, 3)] {
        if let Ok(cursor) = run.seek(VolumeIndex(0), chunk, Sequence(at_most)) {
            cursor.take(1000).for_each(drop);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..40_000),
        with_header: bool,
        levels: u8,
        root: u64,
        root_node in 0_u64..4,
        fits: bool,
        attached in 0_u64..100,
    ) {
        let written = Written::new(&[], b"");
        let position = if fits { 4096 + root_node * 8192 } else { root };
        let attachment = position.wrapping_add(8192);
        if fits {
            bytes.resize((attachment + attached) as usize, 1);
        }
        let header = encode_header(IDENTITY, 7);
        if with_header && bytes.len() >= header.len() {
            bytes[..header.len()].copy_from_slice(&header);
        }
        std::fs::write(written.path(), &bytes).unwrap();
        let summary = RunSummary {
            levels,
            root: RootNode { position, crc32: 1 },
            attachment: Attachment { position: attachment, length: attached, crc32: 0 },
            file_bytes: bytes.len() as u64,
            ..written.summary
        };
        let opened = written.open_as(IDENTITY, &summary);
        prop_assert!(opened.is_ok() || !fits || !with_header);
        if let Ok(run) = opened {
            prop_assert!(run.check().is_err());
            exercise(&run);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The writer of these nodes was wrong, or hostile: all checksums are right, the content is anything.
    #[test]
    fn arbitrary_content_under_a_right_checksum_never_panics(
        content in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..8160),
        count in 0_usize..400,
        level: u8,
    ) {
        let place = NodePlace { identity: IDENTITY, number: 7, position: 4096, level };
        let mut bytes = encode_header(IDENTITY, 7);
        let crc32 = encode_node(&place, count, &content, &mut bytes);
        let node: &[u8; NODE_BYTES] = bytes[4096..].try_into().unwrap();
        let decoded = Node::decode(node, &place, crc32);
        let written = Written::new(&[], b"");
        std::fs::write(written.path(), &bytes).unwrap();
        let summary = RunSummary {
            levels: level.saturating_add(1),
            root: RootNode { position: 4096, crc32 },
            entries: count as u64,
            ..written.summary
        };
        let run = written.open_as(IDENTITY, &summary).unwrap();
        prop_assert!(decoded.is_ok() || level == 255 || run.check().is_err());
        exercise(&run);
    }
}

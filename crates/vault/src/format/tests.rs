//! Every decoder takes any bytes without panicking, refuses every flipped bit, and is what the document says.

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Epoch, Frame, HolderNonce, Incarnation, Sequence,
    VolumeIndex, clock::WallTime,
};
use proptest::prelude::*;

use super::{
    frame::FRAME_ENTRY_BYTES,
    group::GROUP_MAGIC,
    head::{HEAD_BYTES, HEAD_MAGIC},
    record::{
        InBatch, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordPlace, WriteOrder, decode_record, encode_record,
    },
    segment::{PACK_MAGIC, SEGMENT_MAGIC},
    *,
};
use crate::{records::CycleKind, storage::FileIdentity};

const IDENTITY: Identity = Identity {
    vault: Incarnation::from_bytes([3; 16]),
    chain: ChainId::from_bytes([4; 16]),
};
const AT: Position = Position {
    segment: 6,
    offset: 8192,
};
const PLACE: RecordPlace = RecordPlace {
    vault: IDENTITY.vault,
    generation: 5,
    ordinal: 11,
};

const IN_BATCH: InBatch = InBatch {
    order: WriteOrder::Later,
    following: 1,
};

fn head() -> Head {
    Head {
        vault: IDENTITY.vault,
        incarnation: Incarnation::from_bytes([9; 16]),
        created_at: WallTime(5),
        file: FileIdentity {
            inode: 6,
            born_nanoseconds: 7,
        },
    }
}

fn frame() -> Frame {
    let payload = Bytes::from_static(b"some raw bytes");
    Frame::from_raw(VolumeIndex(1), ByteOffset(4096), payload).unwrap()
}

fn group() -> Group {
    Group {
        words: CycleWords {
            sequence: Sequence(7),
            cycle: 8,
            kind: CycleKind::Delta,
            epoch: Epoch {
                number: 2,
                holder: HolderNonce::from_bytes([1; 16]),
            },
            base: Digest::of(b"base"),
        },
        message: 3,
        part: MessagePart {
            index: 0,
            ends: MessageEnds::Here,
        },
        durable_before: Position::START,
        frames: vec![StoredFrame::of(&frame(), 77)],
        origins: Vec::new(),
        sequences: Vec::new(),
        changes: vec![(
            VolumeIndex(1),
            ChangeDigest {
                digest: Digest::of(b"changes"),
                frames: 1,
                bytes: ByteCount(14),
            },
        )],
        watermarks: vec![(VolumeIndex(0), ByteOffset(10))],
        blocks: Vec::new(),
    }
}

/// A group with a frame of several blocks.
fn large() -> Group {
    let raw: Vec<u8> = (0..10_000u32).map(|at| at.to_le_bytes()[0]).collect();
    let frame = Frame::from_raw(VolumeIndex(0), ByteOffset(0), raw.into()).unwrap();
    let blocks: Vec<u32> = block_checksums(&frame).collect();
    assert_eq!(blocks.len(), 3);
    Group {
        frames: vec![StoredFrame::of(&frame, 5), StoredFrame::of(&self::frame(), 77)],
        blocks,
        ..group()
    }
}

fn packed() -> Group {
    Group {
        origins: vec![Position {
            segment: 2,
            offset: 4500,
        }],
        ..group()
    }
}

fn decode_group(bytes: &[u8], at: Position) -> Result<Group, FormatError> {
    let header = GroupHeader::decode(bytes, IDENTITY, at)?;
    header.group(bytes)
}

fn record_bytes() -> Vec<u8> {
    encode_record(PLACE, 18, IN_BATCH, b"body")
}

/// Whether any decoder accepts the bytes as its own.
fn accepted(bytes: &[u8]) -> bool {
    let all = [
        Head::decode(bytes).is_ok(),
        bytes.len() == UNIT_BYTES && SegmentName::ingested(6).check(IDENTITY, bytes).is_ok(),
        bytes.len() == UNIT_BYTES && SegmentName::packed(6).check(IDENTITY, bytes).is_ok(),
        decode_group(bytes, AT).is_ok(),
        decode_record(bytes, PLACE).is_ok(),
    ];
    all.contains(&true)
}

#[test]
fn everything_reads_back_as_it_was_written() {
    assert_eq!(Head::decode(&head().encode()).unwrap(), head());
    for name in [SegmentName::ingested(6), SegmentName::packed(6)] {
        name.check(IDENTITY, &name.encode(IDENTITY)).unwrap();
    }
    for group in [group(), packed(), large()] {
        let bytes = group.encode(IDENTITY, AT);
        assert_eq!(bytes.len(), UNIT_BYTES);
        assert_eq!(decode_group(&bytes, AT).unwrap(), group);
    }
    let stored = StoredFrame::of(&frame(), 77);
    assert_eq!(stored.frame(frame().payload().clone()).unwrap(), frame());
    let bytes = record_bytes();
    let record = decode_record(&bytes, PLACE).unwrap();
    assert_eq!(
        (record.kind, record.in_batch, record.body),
        (18, IN_BATCH, &b"body"[..])
    );
    assert_eq!(record.length, bytes.len());
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_refused() {
    let all = [
        head().encode(),
        SegmentName::ingested(6).encode(IDENTITY),
        SegmentName::packed(6).encode(IDENTITY),
        group().encode(IDENTITY, AT),
        packed().encode(IDENTITY, AT),
        large().encode(IDENTITY, AT),
        record_bytes(),
    ];
    for bytes in all {
        assert!(accepted(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepted(&flipped), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(!accepted(&bytes[..length]), "{length} bytes");
        }
    }
}

#[test]
fn a_file_is_believed_only_in_its_own_place() {
    let bytes = group().encode(IDENTITY, AT);
    let chain = ChainId::from_bytes([5; 16]);
    let other_chain = Identity { chain, ..IDENTITY };
    let vault = Incarnation::from_bytes([5; 16]);
    let other_vault = Identity { vault, ..IDENTITY };
    for other in [other_chain, other_vault] {
        let refused = GroupHeader::decode(&bytes, other, AT);
        assert!(matches!(refused, Err(FormatError::Identity { .. })));
        let header = SegmentName::ingested(6).encode(IDENTITY);
        assert!(SegmentName::ingested(6).check(other, &header).is_err());
    }
    for at in [Position { segment: 5, ..AT }, AT.advanced(4096)] {
        let refused = GroupHeader::decode(&bytes, IDENTITY, at);
        assert!(matches!(refused, Err(FormatError::Identity { field: "place" })));
    }
    let header = SegmentName::ingested(6).encode(IDENTITY);
    assert!(SegmentName::ingested(7).check(IDENTITY, &header).is_err());
    assert!(SegmentName::packed(6).check(IDENTITY, &header).is_err());
    let stored = StoredFrame::of(&frame(), 77);
    for payload in ["some raw byteS", "some raw byte", ""] {
        assert!(stored.frame(Bytes::from_static(payload.as_bytes())).is_err());
    }
    let bytes = record_bytes();
    let elsewhere = [
        RecordPlace { vault, ..PLACE },
        RecordPlace {
            generation: 4,
            ..PLACE
        },
        RecordPlace { ordinal: 12, ..PLACE },
    ];
    for place in elsewhere {
        assert!(matches!(
            decode_record(&bytes, place),
            Err(FormatError::Identity { .. })
        ));
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = head().encode();
    bytes[8] = 2;
    assert!(matches!(
        Head::decode(&bytes),
        Err(FormatError::Version { actual: 2 })
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        magic in prop::sample::select(vec![HEAD_MAGIC, SEGMENT_MAGIC, PACK_MAGIC, GROUP_MAGIC, RECORD_MAGIC]),
        checksum_right in any::<bool>(),
        whose in any::<bool>(),
    ) {
        let length = bytes.len().min(8);
        bytes[..length].copy_from_slice(&magic[..length]);
        if whose && bytes.len() > 56 {
            bytes[16..32].copy_from_slice(IDENTITY.vault.as_bytes());
            bytes[32..48].copy_from_slice(IDENTITY.chain.as_bytes());
            bytes[48..56].copy_from_slice(&[6, 0, 0, 0, 0, 32, 0, 0]);
        }
        // With the checksum right, what lies behind its check is reached too.
        for header in [HEAD_BYTES, 64, GROUP_HEADER_BYTES, RECORD_HEADER_BYTES] {
            if checksum_right && bytes.len() >= header {
                bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
                let crc32 = crc32fast::hash(&bytes[..header - 4]);
                bytes[header - 4..header].copy_from_slice(&crc32.to_le_bytes());
            }
            accepted(&bytes);
            let _ = SegmentName::ingested(6).check(IDENTITY, &bytes);
        }
    }
}

#[test]
fn the_document_says_what_the_code_does() {
    let document = include_str!("../../../../docs/formats/vault-v1.md");
    let sizes = [
        ("head", HEAD_BYTES),
        ("segment header", 64),
        ("group header", GROUP_HEADER_BYTES),
        ("frame entry", FRAME_ENTRY_BYTES),
        ("record header", RECORD_HEADER_BYTES),
        ("run header", 60),
        ("node header", 32),
        ("index entry", crate::entry::ENTRY_BYTES),
    ];
    for (name, size) in sizes {
        let title = format!("\n### {name}: {size} bytes\n");
        let (_, section) = document
            .split_once(&title)
            .unwrap_or_else(|| panic!("no section `{}`", title.trim()));
        let section = section.split("\n#").next().unwrap();
        let rows = section.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((
                cells.next()?.parse::<usize>().ok()?,
                cells.next()?.parse::<usize>().ok()?,
            ))
        });
        let end = rows.fold(0, |at, (offset, length)| {
            assert_eq!(offset, at, "{name}: a field begins where the one before it ends");
            offset + length
        });
        assert_eq!(end, size, "{name}");
    }
    for magic in [
        &HEAD_MAGIC,
        &SEGMENT_MAGIC,
        &PACK_MAGIC,
        &GROUP_MAGIC,
        &RECORD_MAGIC,
    ] {
        let text = format!("`{}`", std::str::from_utf8(magic).unwrap());
        assert!(document.contains(&text), "{text}");
    }
}

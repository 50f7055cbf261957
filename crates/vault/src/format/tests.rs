//! Every decoder takes any bytes without panicking, refuses every flipped bit, and is what the document says.

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, Encoding, Extent, Frame, Incarnation, Sequence, VolumeIndex,
    clock::WallTime,
};
use proptest::prelude::*;

use super::{
    frame::FRAME_MAGIC,
    head::{HEAD_BYTES, HEAD_MAGIC},
    record::RECORD_HEADER_BYTES,
    run::RUN_MAGIC,
    segment::SEGMENT_MAGIC,
    *,
};

const IDENTITY: Identity = Identity {
    incarnation: Incarnation::from_bytes([3; 16]),
    chain: ChainId::from_bytes([4; 16]),
};

fn head() -> Head {
    Head {
        incarnation: IDENTITY.incarnation,
        created_at: WallTime(5),
    }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        identity: IDENTITY,
        segment: 6,
        sequence: Sequence(7),
        cycle: 8,
    }
}

fn frame() -> (FrameHeader, Bytes) {
    let payload = Bytes::from_static(b"some raw bytes");
    let frame = Frame::from_raw(VolumeIndex(1), ByteOffset(4096), payload.clone()).unwrap();
    (FrameHeader::of(&frame, Sequence(7), 6, 80), payload)
}

fn run() -> RunHeader {
    RunHeader {
        identity: IDENTITY,
        sequence: Sequence(7),
        entries: 2,
        entries_crc32: 9,
    }
}

fn entry() -> RunEntry {
    RunEntry {
        volume: VolumeIndex(1),
        extent: Extent::new(ByteOffset(4100), ByteCount(3)).unwrap(),
        frame: Extent::new(ByteOffset(4096), ByteCount(14)).unwrap(),
        encoding: Encoding::Raw,
        crc32: 10,
        segment: 6,
        position: 80,
    }
}

fn frame_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame().0.encode_into(IDENTITY, &mut bytes);
    bytes
}

fn entry_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    entry().encode_into(&mut bytes);
    bytes
}

fn record_bytes() -> Vec<u8> {
    encode_record(RecordKind::Epoch, IDENTITY, 11, &"body").unwrap()
}

fn decode_record_of(bytes: &[u8]) -> Result<String, FormatError> {
    decode_record::<String>(bytes, RecordKind::Epoch, IDENTITY).map(|decoded| decoded.body)
}

/// Whether any decoder accepts the bytes as its own.
fn accepted(bytes: &[u8]) -> bool {
    let all = [
        Head::decode(bytes).is_ok(),
        SegmentHeader::decode(bytes).is_ok(),
        FrameHeader::decode(bytes, IDENTITY, 6, 80).is_ok(),
        RunHeader::decode(bytes).is_ok(),
        decode_record_of(bytes).is_ok(),
    ];
    all.contains(&true)
}

#[test]
fn everything_reads_back_as_it_was_written() {
    assert_eq!(Head::decode(&head().encode()).unwrap(), head());
    assert_eq!(SegmentHeader::decode(&segment().encode()).unwrap(), segment());
    let (header, payload) = frame();
    assert_eq!(
        FrameHeader::decode(&frame_bytes(), IDENTITY, 6, 80).unwrap(),
        header
    );
    assert_eq!(header.frame(payload.clone()).unwrap().payload(), &payload);
    assert_eq!(RunHeader::decode(&run().encode()).unwrap(), run());
    assert_eq!(RunEntry::decode(&entry_bytes()).unwrap(), entry());
    assert_eq!(decode_record_of(&record_bytes()).unwrap(), "body");
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_refused() {
    let all = [
        head().encode(),
        segment().encode(),
        frame_bytes(),
        run().encode(),
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
fn a_frame_is_believed_only_in_its_own_place() {
    let bytes = frame_bytes();
    let other = Identity {
        chain: ChainId::from_bytes([5; 16]),
        ..IDENTITY
    };
    assert!(matches!(
        FrameHeader::decode(&bytes, other, 6, 80),
        Err(FormatError::Checksum { .. })
    ));
    for (segment, position) in [(5, 80), (6, 81)] {
        let refused = FrameHeader::decode(&bytes, IDENTITY, segment, position);
        assert!(matches!(refused, Err(FormatError::Identity { .. })));
    }
    let (header, _) = frame();
    for payload in ["some raw byteS", "some raw byte", ""] {
        assert!(header.frame(Bytes::from_static(payload.as_bytes())).is_err());
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = head().encode();
    bytes[8] = 1;
    assert!(matches!(
        Head::decode(&bytes),
        Err(FormatError::Version { actual: 1 })
    ));
}

#[test]
fn a_record_of_another_kind_or_chain_is_refused() {
    let bytes = record_bytes();
    let kind = decode_record::<String>(&bytes, RecordKind::Open, IDENTITY);
    assert!(matches!(kind, Err(FormatError::Identity { field: "kind" })));
    let other = Identity {
        incarnation: Incarnation::from_bytes([0; 16]),
        ..IDENTITY
    };
    let vault = decode_record::<String>(&bytes, RecordKind::Epoch, other);
    assert!(matches!(
        vault,
        Err(FormatError::Identity {
            field: "vault incarnation"
        })
    ));
    let body = decode_record::<u64>(&bytes, RecordKind::Epoch, IDENTITY);
    assert!(matches!(body, Err(FormatError::Body(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        magic in prop::sample::select(vec![HEAD_MAGIC, SEGMENT_MAGIC, RUN_MAGIC, RECORD_MAGIC, *b"FRM0\x01\0\0\0"]),
        checksum_right in any::<bool>(),
    ) {
        let length = bytes.len().min(8);
        bytes[..length].copy_from_slice(&magic[..length]);
        // With the checksum right, what lies behind its check is reached too.
        for header in [HEAD_BYTES, SEGMENT_HEADER_BYTES, RUN_HEADER_BYTES, RECORD_HEADER_BYTES] {
            if checksum_right && bytes.len() >= header {
                bytes[8..12].fill(0);
                let crc32 = crc32fast::hash(&bytes[..header - 4]);
                bytes[header - 4..header].copy_from_slice(&crc32.to_le_bytes());
            }
            accepted(&bytes);
            let _ = RunEntry::decode(bytes.get(..RUN_ENTRY_BYTES).unwrap_or(&bytes));
        }
    }
}

#[test]
fn the_document_says_what_the_code_does() {
    let document = include_str!("../../../../docs/formats/vault-v0.md");
    let sizes = [
        ("head", HEAD_BYTES),
        ("segment header", SEGMENT_HEADER_BYTES),
        ("frame header", FRAME_HEADER_BYTES),
        ("run header", RUN_HEADER_BYTES),
        ("run entry", RUN_ENTRY_BYTES),
        ("record header", RECORD_HEADER_BYTES),
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
        &HEAD_MAGIC[..],
        &SEGMENT_MAGIC,
        &RUN_MAGIC,
        &RECORD_MAGIC,
        &FRAME_MAGIC,
    ] {
        let text = format!("`{}`", std::str::from_utf8(magic).unwrap());
        assert!(document.contains(&text), "{text}");
    }
}

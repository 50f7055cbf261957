//! Entries for tests.

use farshore_blocks::{ByteCount, ByteOffset, ChainId, Encoding, Extent, Incarnation, Sequence, VolumeIndex};

use super::{Entry, FramePlace};
use crate::format::Identity;

pub(crate) const IDENTITY: Identity = Identity {
    vault: Incarnation::from_bytes([1; 16]),
    chain: ChainId::from_bytes([2; 16]),
};

/// Where frame number `number` lies, which holds these bytes.
pub(crate) fn place(number: u32, start: u64, raw_bytes: u32, encoding: Encoding) -> FramePlace {
    FramePlace {
        segment: number,
        position: number.wrapping_mul(0x9e37_79b9),
        stored_bytes: match encoding {
            Encoding::Raw => raw_bytes,
            Encoding::Zero => 0,
            Encoding::Zstd => raw_bytes.div_ceil(2),
        },
        frame_start: start,
        raw_bytes,
        encoding,
        crc32: !number,
        fingerprint: u64::from(number) << 20 | 5,
    }
}

/// The entries of frame number `number`.
pub(crate) fn frame(
    number: u32,
    volume: u32,
    sequence: u64,
    (start, length): (u64, u32),
    encoding: Encoding,
) -> Vec<Entry> {
    let extent = Extent::new(ByteOffset(start), ByteCount(u64::from(length))).unwrap();
    let place = place(number, start, length, encoding);
    Entry::of_frame(VolumeIndex(volume), extent, Sequence(sequence), place).collect()
}

/// One entry of a raw frame that lies within a chunk.
pub(crate) fn entry(number: u32, volume: u32, sequence: u64, start: u64, length: u32) -> Entry {
    let entries = frame(number, volume, sequence, (start, length), Encoding::Raw);
    assert_eq!(entries.len(), 1, "the sample crosses a chunk's border");
    entries[0]
}

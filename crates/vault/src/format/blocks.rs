//! Checksums of the blocks of large raw frames, so that a part of a frame can be read and checked without the rest.

use farshore_blocks::{Encoding, Frame};

use super::StoredFrame;

/// What is checked by itself: 4 KiB, counted from the start of a frame.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// How many checksums a frame has; none where the frame is one block, or must be read as a whole anyway.
pub(crate) fn block_count(frame: &StoredFrame) -> u32 {
    let block = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
    match frame.encoding {
        Encoding::Raw if frame.raw_bytes() > block => frame.raw_bytes().div_ceil(block),
        Encoding::Raw | Encoding::Zero | Encoding::Zstd => 0,
    }
}

/// The checksums of a frame's blocks.
pub(crate) fn block_checksums(frame: &Frame) -> impl Iterator<Item = u32> {
    let has = frame.encoding() == Encoding::Raw && frame.raw().len() > BLOCK_BYTES;
    let raw = if has { frame.raw().as_ref() } else { &[] };
    raw.chunks(BLOCK_BYTES).map(crc32fast::hash)
}

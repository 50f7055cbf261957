//! What shows in one chunk at one point.

use farshore_blocks::{ByteCount, ByteOffset, Extent, Sequence, VolumeIndex};

use super::{
    coverage::Coverage,
    layer::{Layer, Seen},
};
use crate::{
    damage::FileError,
    entry::{CHUNK_BYTES, Entry},
};

/// What shows in this chunk at `at`: entries trimmed to their visible bytes, sorted, never overlapping. Where none
/// is, nothing was ever written: it reads as zero. Layers come newest first.
pub(crate) fn resolve(
    layers: &[Layer<'_>],
    volume: VolumeIndex,
    chunk: u64,
    at: Sequence,
) -> Result<Vec<Entry>, FileError> {
    let start = chunk.saturating_mul(CHUNK_BYTES);
    // No volume reaches the last byte of 64 bits, so that the last chunk may end before it.
    let length = CHUNK_BYTES.min(u64::MAX.saturating_sub(start));
    match Extent::new(ByteOffset(start), ByteCount(length)) {
        Some(extent) => resolve_extent(layers, volume, extent, at),
        None => Ok(Vec::new()),
    }
}

/// The same for an extent within one chunk (what lies behind the chunk is left out). It stops looking as soon as
/// that extent is covered, however many versions the rest of the chunk has.
pub(crate) fn resolve_extent(
    layers: &[Layer<'_>],
    volume: VolumeIndex,
    extent: Extent,
    at: Sequence,
) -> Result<Vec<Entry>, FileError> {
    let start = extent.start().0;
    let chunk = start / CHUNK_BYTES;
    let from = narrow(start % CHUNK_BYTES);
    let to = narrow(
        (start % CHUNK_BYTES)
            .saturating_add(extent.length().0)
            .min(CHUNK_BYTES),
    );
    let mut coverage = Coverage::default();
    let mut visible = Vec::new();
    for layer in layers {
        let seen = layer.visit_chunk(volume, chunk, at, |entry| {
            if let Some(wanted) = entry.part(from, to) {
                coverage.add(wanted.start_in_chunk()..wanted.end_in_chunk(), |part| {
                    visible.extend(wanted.part(part.start, part.end));
                });
            }
            if coverage.covers(&(from..to)) {
                Seen::Enough
            } else {
                Seen::TooLittle
            }
        })?;
        if seen == Seen::Enough {
            break;
        }
    }
    visible.sort_unstable_by_key(|entry: &Entry| entry.start);
    Ok(visible)
}

fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

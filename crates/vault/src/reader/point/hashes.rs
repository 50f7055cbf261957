//! What each block of 64 KiB of a point holds, as a short hash: two sides compare what they hold without moving it.

use farshore_blocks::{BlockHash, ByteCount, ByteOffset, Encoding, Extent, HASHED_BLOCK, VolumeIndex};

use super::{Piece, PointReader};
use crate::{
    entry::{CHUNK_BYTES, Entry},
    reader::ReadError,
};

/// How many neighbouring blocks are read in one go: 1 MiB.
const BLOCKS_AT_ONCE: usize = 16;

/// What the hashes of blocks are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashSource {
    /// From what the index says of whole frames; only other blocks are read.
    Index,
    /// From the data: every byte that is not known to be zero is read and checked. A compressed frame that this reader
    /// checked a moment ago may still be in memory, so an audit opens a point of its own.
    Data,
}

impl PointReader {
    /// What each of `count` blocks of a volume holds, from block `first_block` on; blocks are counted from 0 and
    /// have 64 KiB, only the last of a volume may be shorter. Blocks whose data is damaged are told as such.
    ///
    /// # Errors
    /// When the volume has no such blocks, or the index is damaged.
    pub fn block_hashes(
        &self,
        volume: VolumeIndex,
        first_block: u64,
        count: u64,
        source: HashSource,
    ) -> Result<Vec<BlockHash>, ReadError> {
        let Some(extent) = self.blocks(volume, first_block, count)? else {
            return Ok(Vec::new());
        };
        let mut hashes = Vec::new();
        let mut unread: Vec<Extent> = Vec::new();
        for block in extent.pieces(HASHED_BLOCK) {
            let known = known(block, &self.pieces(volume, block)?, source);
            if known.is_some() || unread.len() == BLOCKS_AT_ONCE {
                self.hash_data(volume, &mut unread, &mut hashes)?;
            }
            match known {
                Some(hash) => hashes.push(hash),
                None => unread.push(block),
            }
        }
        self.hash_data(volume, &mut unread, &mut hashes)?;
        Ok(hashes)
    }

    /// The extent of these blocks; `None` when there are none of them.
    fn blocks(&self, volume: VolumeIndex, first: u64, count: u64) -> Result<Option<Extent>, ReadError> {
        let start = first.saturating_mul(CHUNK_BYTES);
        let length = count.saturating_mul(CHUNK_BYTES);
        let size = self
            .volumes()
            .get(volume.as_usize())
            .map_or(0, |found| found.size.0);
        let left = size.saturating_sub(start);
        // Only the last block may be cut short: what is asked for behind it is refused.
        let length = if length.saturating_sub(left) < CHUNK_BYTES {
            length.min(left)
        } else {
            length
        };
        self.find(volume, ByteOffset(start), ByteCount(length))
    }

    /// Reads these blocks, which are neighbours, and puts their hashes behind the others.
    fn hash_data(
        &self,
        volume: VolumeIndex,
        unread: &mut Vec<Extent>,
        hashes: &mut Vec<BlockHash>,
    ) -> Result<(), ReadError> {
        let Some(first) = unread.first() else {
            return Ok(());
        };
        let length: u64 = unread.iter().map(|block| block.length().0).sum();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        match self.read_at(volume, first.start(), &mut bytes) {
            Ok(()) => {
                let block_bytes = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
                hashes.extend(bytes.chunks(block_bytes).map(BlockHash::of));
            }
            Err(ReadError::Unreadable { .. }) => {
                for block in unread.iter() {
                    hashes.push(self.hash_alone(volume, *block, &mut bytes)?);
                }
            }
            Err(error) => return Err(error),
        }
        unread.clear();
        Ok(())
    }

    /// The hash of one block among which some cannot be read.
    fn hash_alone(
        &self,
        volume: VolumeIndex,
        block: Extent,
        buffer: &mut [u8],
    ) -> Result<BlockHash, ReadError> {
        let length = usize::try_from(block.length().0).unwrap_or(usize::MAX);
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        match self.read_at(volume, block.start(), bytes) {
            Ok(()) => Ok(BlockHash::of(bytes)),
            Err(error @ ReadError::Unreadable { .. }) => {
                tracing::warn!(%volume, %block, %error, "a block cannot be compared");
                Ok(BlockHash::Unreadable)
            }
            Err(error) => Err(error),
        }
    }
}

/// What is known of a block without reading it.
fn known(block: Extent, pieces: &[Piece], source: HashSource) -> Option<BlockHash> {
    let is_zero = |piece: &Piece| {
        piece
            .entry
            .is_none_or(|entry| entry.place.encoding == Encoding::Zero)
    };
    if pieces.iter().all(is_zero) {
        return Some(BlockHash::Zero);
    }
    match (source, pieces) {
        (HashSource::Index, [piece]) => {
            let whole = |entry: &Entry| {
                entry.place.frame_start == block.start().0
                    && u64::from(entry.place.raw_bytes) == block.length().0
                    && piece.extent == block
            };
            let entry = piece.entry.filter(whole)?;
            Some(BlockHash::from_parts(
                entry.place.crc32,
                entry.place.fingerprint.to_le_bytes(),
            ))
        }
        (HashSource::Index | HashSource::Data, _) => None,
    }
}

#[cfg(test)]
mod tests;

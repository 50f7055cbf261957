//! What each block of 64 KiB of a point holds, as a short hash: two sides compare what they hold without moving it.

use std::sync::LazyLock;

use farshore_blocks::{ByteCount, ByteOffset, Digest, Encoding, Extent, VolumeIndex};

use super::{Piece, PointReader};
use crate::{
    entry::{CHUNK_BYTES, Entry},
    reader::ReadError,
};

/// How many neighbouring blocks are read in one go: 1 MiB.
const BLOCKS_AT_ONCE: usize = 16;

/// The hash of a whole block of zeroes.
static ZERO_BLOCK: LazyLock<[u8; BlockHash::BYTES]> =
    LazyLock::new(|| hash_of(&vec![0; usize::try_from(CHUNK_BYTES).unwrap_or(0)]));

/// What a block holds.
///
/// # What equal hashes mean
///
/// A hash is the crc32 of the block's bytes (4 bytes, little-endian) and behind it the first 8 bytes of their BLAKE3
/// digest: 96 bits, because that is what the index stores of each frame, so that most blocks of a point can be
/// compared without reading them. Of two blocks that differ by chance the hashes are equal once in 2^96. Someone who
/// chooses the bytes of both can make the crc32 whatever it should be and needs about 2^32 tries for two blocks with
/// equal digests of 64 bits; for a block like a given one, 2^64. So a hash tells whether bytes have to travel; it does
/// not prove to a stranger that they need not. Where the index answered, it says what was written, not that it can
/// still be read: an audit asks for [`HashSource::Data`], which reads and checks every byte again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockHash {
    /// Zeroes, written or not.
    Zero,
    /// Something else, with this hash.
    Data([u8; Self::BYTES]),
}

/// What the hashes of blocks are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashSource {
    /// From what the index says of whole frames; only other blocks are read.
    Index,
    /// From the data: every byte that is not known to be zero is read and checked. A compressed frame that this reader
    /// checked a moment ago may still be in memory, so an audit opens a point of its own.
    Data,
}

impl BlockHash {
    /// How long a hash is.
    pub const BYTES: usize = 12;
    /// How large a block is; only the last of a volume may be shorter.
    pub const BLOCK_BYTES: ByteCount = ByteCount(CHUNK_BYTES);

    /// The hash of a block's bytes; zeroes are [`Zero`](Self::Zero).
    #[must_use]
    pub fn of(block: &[u8]) -> Self {
        if block.iter().all(|byte| *byte == 0) {
            return Self::Zero;
        }
        Self::Data(hash_of(block))
    }

    /// Whether blocks of `length` bytes with these hashes hold the same; zeroes are equal to the hash of zeroes.
    #[must_use]
    pub fn same_content(self, other: Self, length: ByteCount) -> bool {
        self == other || self.normal(length) == other.normal(length)
    }

    /// The same, with the hash of zeroes as [`Zero`](Self::Zero).
    fn normal(self, length: ByteCount) -> Self {
        match self {
            Self::Data(hash) if hash == hash_of_zeroes(length) => Self::Zero,
            Self::Zero | Self::Data(_) => self,
        }
    }

    /// The hash of a block that is exactly one frame.
    fn of_frame(entry: &Entry) -> Self {
        let mut hash = [0; Self::BYTES];
        let (crc32, fingerprint) = hash.split_at_mut(size_of::<u32>());
        crc32.copy_from_slice(&entry.place.crc32.to_le_bytes());
        fingerprint.copy_from_slice(&entry.place.fingerprint.to_le_bytes());
        Self::Data(hash).normal(ByteCount(u64::from(entry.length)))
    }
}

impl PointReader {
    /// What each of `count` blocks of a volume holds, from block `first_block` on; blocks are counted from 0 and
    /// have 64 KiB, only the last of a volume may be shorter. The answer takes 13 bytes a block, whatever is read.
    ///
    /// # Errors
    /// When the volume has no such blocks, the index is damaged, or anything that had to be read is.
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
        for block in extent.pieces(BlockHash::BLOCK_BYTES) {
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
        self.read_at(volume, first.start(), &mut bytes)?;
        let block_bytes = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
        hashes.extend(bytes.chunks(block_bytes).map(BlockHash::of));
        unread.clear();
        Ok(())
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
            piece.entry.filter(whole).map(|entry| BlockHash::of_frame(&entry))
        }
        (HashSource::Index | HashSource::Data, _) => None,
    }
}

fn hash_of(block: &[u8]) -> [u8; BlockHash::BYTES] {
    let mut hash = [0; BlockHash::BYTES];
    let (crc32, fingerprint) = hash.split_at_mut(size_of::<u32>());
    crc32.copy_from_slice(&crc32fast::hash(block).to_le_bytes());
    let digest = Digest::of(block);
    fingerprint
        .iter_mut()
        .zip(digest.as_bytes())
        .for_each(|(into, byte)| *into = *byte);
    hash
}

fn hash_of_zeroes(length: ByteCount) -> [u8; BlockHash::BYTES] {
    if length == BlockHash::BLOCK_BYTES {
        return *ZERO_BLOCK;
    }
    hash_of(&vec![0; usize::try_from(length.0.min(CHUNK_BYTES)).unwrap_or(0)])
}

#[cfg(test)]
mod tests;

//! The hash of one 64 KiB block, short enough to be sent for every block of a disk: so two sites find out where their
//! copies differ while next to nothing travels.

use crate::{ByteCount, Digest, Extent};

/// How much one hash stands for: a volume's bytes from a multiple of this; the last block of a volume may be shorter.
pub const HASHED_BLOCK: ByteCount = ByteCount(64 * 1024);

/// What is said of one block.
///
/// The hash is 96 bits: the CRC-32 of the bytes, then the first eight bytes of their BLAKE3 digest, which is what the
/// vault's index keeps of each frame, so that most blocks are compared without being read. That two different blocks agree in
/// it by chance is as likely as 2^-96. Someone who chooses the bytes of both can give them any CRC-32 and needs some 2^32 trials
/// for equal halves of digests; for a block like a given one, 2^64. So a hash tells whether bytes have to travel, and
/// proves nothing to a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockHash {
    /// All its bytes are zero.
    Zero,
    /// Its bytes have this hash.
    Of([u8; Self::LENGTH]),
    /// Its bytes cannot be read where they are kept, so that they are equal to nothing.
    Unreadable,
}

impl BlockHash {
    /// How many bytes a hash takes where it is stored or sent.
    pub const LENGTH: usize = 12;
    const ZERO: [u8; Self::LENGTH] = [0; Self::LENGTH];
    const UNREADABLE: [u8; Self::LENGTH] = [0xff; Self::LENGTH];

    /// Of these bytes, at most a block.
    #[must_use]
    pub fn of(raw: &[u8]) -> Self {
        if raw.iter().all(|byte| *byte == 0) {
            return Self::Zero;
        }
        let digest = Digest::of(raw);
        let begin = digest.as_bytes().first_chunk().copied().unwrap_or_default();
        Self::from_parts(crc32fast::hash(raw), begin)
    }

    /// Of bytes that are not all zero, by their CRC-32 and the first bytes of their digest.
    #[must_use]
    pub fn from_parts(crc32: u32, digest_begin: [u8; 8]) -> Self {
        let mut hash = [0; Self::LENGTH];
        let bytes = crc32.to_le_bytes().into_iter().chain(digest_begin);
        hash.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Self::Of(hash)
    }

    /// As it is stored or sent. All zero and all ones have their own meaning.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        match self {
            Self::Zero => Self::ZERO,
            Self::Of(hash) => hash,
            Self::Unreadable => Self::UNREADABLE,
        }
    }

    /// From how it is stored or sent.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        match bytes {
            Self::ZERO => Self::Zero,
            Self::UNREADABLE => Self::Unreadable,
            hash => Self::Of(hash),
        }
    }

    /// Whether a copy that hashes to this may be taken for bytes that hash to `other`.
    #[must_use]
    pub fn agrees_with(self, other: Self) -> bool {
        self != Self::Unreadable && self == other
    }
}

/// `extent`, grown to whole blocks, but not past `size`, the volume's.
#[must_use]
pub fn whole_blocks(extent: Extent, size: ByteCount) -> Option<Extent> {
    let block = HASHED_BLOCK.0;
    let start = extent.start().0 / block * block;
    let end = extent.end().0.checked_next_multiple_of(block).unwrap_or(u64::MAX);
    let length = end.min(size.0).checked_sub(start)?;
    Extent::new(crate::ByteOffset(start), ByteCount(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteOffset;

    #[test]
    fn a_hash_survives_being_sent() {
        for hash in [
            BlockHash::Zero,
            BlockHash::of(b"a block"),
            BlockHash::Unreadable,
            BlockHash::of(&[0; 4096]),
        ] {
            assert_eq!(BlockHash::from_bytes(hash.to_bytes()), hash);
        }
        assert_eq!(BlockHash::of(&[0; 4096]), BlockHash::Zero);
    }

    #[test]
    fn a_hash_is_the_checksum_and_the_begin_of_the_digest() {
        let BlockHash::Of(hash) = BlockHash::of(b"123456789") else {
            panic!("not zero")
        };
        // The check value of CRC-32 ISO-HDLC, little-endian.
        assert_eq!(hash[..4], [0x26, 0x39, 0xf4, 0xcb]);
        assert_eq!(hash[4..], Digest::of(b"123456789").as_bytes()[..8]);
    }

    #[test]
    fn what_cannot_be_read_agrees_with_nothing() {
        assert!(!BlockHash::Unreadable.agrees_with(BlockHash::Unreadable));
        assert!(BlockHash::Zero.agrees_with(BlockHash::Zero));
        assert!(!BlockHash::of(b"a").agrees_with(BlockHash::of(b"b")));
    }

    #[test]
    fn an_extent_grows_to_whole_blocks_within_the_volume() {
        let grown = |start, length| {
            let extent = Extent::new(ByteOffset(start), ByteCount(length)).unwrap();
            let whole = whole_blocks(extent, ByteCount(200_000)).unwrap();
            (whole.start().0, whole.end().0)
        };
        assert_eq!(grown(0, 1), (0, 65536));
        assert_eq!(grown(65535, 2), (0, 131_072));
        assert_eq!(grown(65536, 65536), (65536, 131_072));
        assert_eq!(grown(199_999, 1), (196_608, 200_000));
    }
}

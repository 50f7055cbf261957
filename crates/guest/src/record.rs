//! One record of the guest's stream of writes: 4 KiB that prove which write they are.
//!
//! | offset | bytes | field | defends against |
//! |---|---|---|---|
//! | 0 | 8 | magic `FARSHREC` | bytes that are no record |
//! | 8 | 8 | number, little endian, from 1 | lost, repeated and reordered writes |
//! | 16 | 8 | run: random at each boot | two boots that are taken for one |
//! | 24 | 8 | guest: random at each build of an image | the disk of another guest |
//! | 32 | 4 | stream: 1 = region A, 2 = region B, 3 = journal | a write that landed on the wrong disk |
//! | 36 | 4 | zero | |
//! | 40 | 8 | wall time of the guest, nanoseconds since 1970 | |
//! | 48 | 4044 | payload, derived from number and stream | pieces of several records in one block |
//! | 4092 | 4 | crc32 of everything before it | damage |

use farshore_blocks::clock::WallTime;

/// The size of a record, of a slot, and of every write of the workload, in bytes.
pub const RECORD_BYTES: usize = 4096;

/// [`RECORD_BYTES`] as a count on a disk.
pub const RECORD_LENGTH: u64 = 4096;

const MAGIC: [u8; 8] = *b"FARSHREC";
const CHECKED_BYTES: usize = RECORD_BYTES - 4;

/// Which of the guest's streams a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The raw region on the data disk: record k is written here first.
    RegionA,
    /// The raw region on the root disk: record k is written here once it is complete in region A.
    RegionB,
    /// The files on the data disk's file system.
    Journal,
}

impl Stream {
    const fn tag(self) -> u32 {
        match self {
            Self::RegionA => 1,
            Self::RegionB => 2,
            Self::Journal => 3,
        }
    }

    const fn from_tag(tag: u32) -> Option<Self> {
        match tag {
            1 => Some(Self::RegionA),
            2 => Some(Self::RegionB),
            3 => Some(Self::Journal),
            _ => None,
        }
    }
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Position in the stream, from 1.
    pub number: u64,
    /// The boot of the guest that wrote it.
    pub run: u64,
    /// The guest that wrote it.
    pub guest: u64,
    /// The stream it was written for.
    pub stream: Stream,
    /// The guest's clock when it was made.
    pub written_at: WallTime,
}

/// What 4 KiB of a disk hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeroes: nothing was written here yet.
    Empty,
    /// A whole record.
    Record(Record),
    /// Anything else: torn, flipped, overwritten.
    Damaged,
}

/// A block in memory, aligned as direct I/O needs it.
#[repr(align(4096))]
pub struct Page([u8; RECORD_BYTES]);

impl Page {
    /// The bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Record {
    /// The 4 KiB that stand for this record.
    #[must_use]
    pub fn encode(&self) -> Box<Page> {
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.run.to_le_bytes());
        bytes.extend_from_slice(&self.guest.to_le_bytes());
        bytes.extend_from_slice(&self.stream.tag().to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.written_at.0.to_le_bytes());
        for word in payload(self.number, self.stream) {
            let room = CHECKED_BYTES.saturating_sub(bytes.len());
            bytes.extend(word.to_le_bytes().into_iter().take(room));
            if bytes.len() == CHECKED_BYTES {
                break;
            }
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let mut page = Box::new(Page([0; RECORD_BYTES]));
        page.0.copy_from_slice(&bytes);
        page
    }
}

impl Content {
    /// What these bytes are; anything but [`RECORD_BYTES`] of them is [`Content::Damaged`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes == [0; RECORD_BYTES].as_slice() {
            return Self::Empty;
        }
        decode(bytes).map_or(Self::Damaged, Self::Record)
    }
}

fn decode(bytes: &[u8]) -> Option<Record> {
    if bytes.len() != RECORD_BYTES {
        return None;
    }
    let (checked, checksum) = bytes.split_last_chunk::<4>()?;
    let mut rest = checked;
    if take::<8>(&mut rest)? != MAGIC || crc32fast::hash(checked) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let number = u64::from_le_bytes(take(&mut rest)?);
    let run = u64::from_le_bytes(take(&mut rest)?);
    let guest = u64::from_le_bytes(take(&mut rest)?);
    let stream = Stream::from_tag(u32::from_le_bytes(take(&mut rest)?))?;
    let reserved = take::<4>(&mut rest)?;
    let written_at = WallTime(u64::from_le_bytes(take(&mut rest)?));
    let expected = payload(number, stream);
    let payload_is_right = rest
        .chunks(8)
        .zip(expected)
        .all(|(chunk, word)| word.to_le_bytes().starts_with(chunk));
    (number > 0 && reserved == [0; 4] && payload_is_right).then_some(Record {
        number,
        run,
        guest,
        stream,
        written_at,
    })
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (head, tail) = rest.split_first_chunk::<LENGTH>()?;
    *rest = tail;
    Some(*head)
}

/// The SplitMix64 sequence (Steele, Lea, Flood 2014) from a seed that no other number or stream has.
fn payload(number: u64, stream: Stream) -> impl Iterator<Item = u64> {
    let seed = number.wrapping_mul(4).wrapping_add(u64::from(stream.tag()));
    (1_u64..).map(move |step| {
        let mut word = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            number: 77,
            run: 5,
            guest: 6,
            stream: Stream::RegionB,
            written_at: WallTime(8),
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        assert_eq!(Content::of(record().encode().bytes()), Content::Record(record()));
    }

    #[test]
    fn zeroes_are_empty_and_a_short_block_is_not() {
        assert_eq!(Content::of(&[0; RECORD_BYTES]), Content::Empty);
        assert_eq!(Content::of(&[0; 512]), Content::Damaged);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_damage() {
        let good = record().encode();
        for position in 0..RECORD_BYTES {
            let mut bytes = good.bytes().to_vec();
            bytes[position] ^= 1;
            assert_eq!(Content::of(&bytes), Content::Damaged, "byte {position}");
        }
    }

    #[test]
    fn a_payload_of_another_number_is_damage_even_with_a_right_checksum() {
        let mut bytes = record().encode().bytes().to_vec();
        bytes[8..16].copy_from_slice(&78_u64.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]).to_le_bytes();
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum);
        assert_eq!(Content::of(&bytes), Content::Damaged);
    }
}

//! The 48 bytes of an entry on disk, little-endian.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | start in the volume |
//! | 8 | 8 | sequence |
//! | 16 | 8 | fingerprint |
//! | 24 | 4 | segment |
//! | 28 | 4 | position of the payload in the segment's file |
//! | 32 | 4 | crc32 of the raw bytes |
//! | 36 | 2 | volume |
//! | 38 | 2 | skip: how far into its frame the entry begins |
//! | 40 | 2 | length, less 1 |
//! | 42 | 2 | raw bytes of the frame, less 1 |
//! | 44 | 2 | stored bytes of the frame, less 1; 0 for a zero frame |
//! | 46 | 1 | encoding |
//! | 47 | 1 | reserved, 0 |

use farshore_blocks::{Encoding, Sequence, VolumeIndex};

use super::{CHUNK_BYTES, Entry, FramePlace};
use crate::format::FormatError;

pub(crate) const ENTRY_BYTES: usize = 48;

impl Entry {
    /// Appends its bytes; an entry that no decoder would take is refused, and nothing is appended.
    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) -> Result<(), FormatError> {
        self.check()?;
        let place = &self.place;
        let volume = u16::try_from(self.volume.0).map_err(|_| bounds("volume"))?;
        let skip = u16::try_from(self.start.saturating_sub(place.frame_start)).map_err(|_| bounds("skip"))?;
        let length = less_one(self.length, "length")?;
        let raw = less_one(place.raw_bytes, "raw bytes")?;
        let stored = match place.encoding {
            Encoding::Zero => 0,
            Encoding::Raw | Encoding::Zstd => less_one(place.stored_bytes, "stored bytes")?,
        };
        bytes.extend_from_slice(&self.start.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.0.to_le_bytes());
        bytes.extend_from_slice(&place.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&place.segment.to_le_bytes());
        bytes.extend_from_slice(&place.position.to_le_bytes());
        bytes.extend_from_slice(&place.crc32.to_le_bytes());
        for small in [volume, skip, length, raw, stored] {
            bytes.extend_from_slice(&small.to_le_bytes());
        }
        bytes.extend_from_slice(&[place.encoding.code(), 0]);
        Ok(())
    }

    /// Reads one entry; the checksum of the node that holds it was checked before.
    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Result<Self, FormatError> {
        let mut rest = bytes.as_slice();
        let start = u64::from_le_bytes(take(&mut rest)?);
        let sequence = Sequence(u64::from_le_bytes(take(&mut rest)?));
        let fingerprint = u64::from_le_bytes(take(&mut rest)?);
        let segment = u32::from_le_bytes(take(&mut rest)?);
        let position = u32::from_le_bytes(take(&mut rest)?);
        let crc32 = u32::from_le_bytes(take(&mut rest)?);
        let volume = VolumeIndex(u32::from(u16::from_le_bytes(take(&mut rest)?)));
        let skip = u64::from(u16::from_le_bytes(take(&mut rest)?));
        let length = one_more(take(&mut rest)?);
        let raw_bytes = one_more(take(&mut rest)?);
        let stored: [u8; 2] = take(&mut rest)?;
        let [code, reserved] = take(&mut rest)?;
        let encoding = Encoding::from_code(code).ok_or_else(|| bounds("encoding"))?;
        if reserved != 0 {
            return Err(bounds("reserved bytes"));
        }
        let stored_bytes = match encoding {
            Encoding::Zero if stored == [0; 2] => 0,
            Encoding::Zero => return Err(bounds("stored bytes")),
            Encoding::Raw | Encoding::Zstd => one_more(stored),
        };
        let entry = Self {
            volume,
            start,
            length,
            sequence,
            place: FramePlace {
                segment,
                position,
                stored_bytes,
                frame_start: start.checked_sub(skip).ok_or_else(|| bounds("skip"))?,
                raw_bytes,
                encoding,
                crc32,
                fingerprint,
            },
        };
        entry.check()?;
        Ok(entry)
    }

    /// Whether it can be: lengths in their bounds, within one chunk, within its frame.
    fn check(&self) -> Result<(), FormatError> {
        let place = &self.place;
        let frame_end = place.frame_start.checked_add(u64::from(place.raw_bytes));
        let end = self.start.checked_add(u64::from(self.length));
        let stored_fits = match place.encoding {
            Encoding::Raw => place.stored_bytes == place.raw_bytes,
            Encoding::Zero => place.stored_bytes == 0,
            Encoding::Zstd => frame_sized(place.stored_bytes),
        };
        let wrong = [
            (!frame_sized(self.length), "length"),
            (!frame_sized(place.raw_bytes), "raw bytes"),
            (!stored_fits, "stored bytes"),
            (u64::from(self.end_in_chunk()) > CHUNK_BYTES, "chunk"),
            (frame_end.is_none(), "frame"),
            (self.start < place.frame_start || end > frame_end, "extent"),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, field)) => Err(bounds(field)),
            None => Ok(()),
        }
    }
}

fn frame_sized(bytes: u32) -> bool {
    bytes > 0 && u64::from(bytes) <= CHUNK_BYTES
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FormatError> {
    let (taken, behind) = rest.split_first_chunk::<N>().ok_or_else(|| bounds("length"))?;
    *rest = behind;
    Ok(*taken)
}

fn less_one(bytes: u32, field: &'static str) -> Result<u16, FormatError> {
    bytes
        .checked_sub(1)
        .and_then(|less| u16::try_from(less).ok())
        .ok_or_else(|| bounds(field))
}

fn one_more(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_le_bytes(bytes)).saturating_add(1)
}

fn bounds(field: &'static str) -> FormatError {
    FormatError::Bounds { field }
}

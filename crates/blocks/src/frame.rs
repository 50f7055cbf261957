//! The frame: the unit in which changed bytes travel and rest, and the unit of checksum and compression.

mod coding;

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{ByteCount, ByteOffset, Digest, Extent, VolumeIndex};

/// The most raw bytes that one frame stands for: 64 KiB.
pub const MAX_FRAME_BYTES: u32 = 64 * 1024;

/// How a frame's payload represents its raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The payload is the raw bytes.
    Raw,
    /// All raw bytes are zero; there is no payload.
    Zero,
    /// The payload is one Zstandard frame (RFC 8878) of the raw bytes, and shorter than they are.
    Zstd,
}

impl Encoding {
    /// The number that formats and the wire use.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 1,
            Self::Zero => 2,
            Self::Zstd => 3,
        }
    }

    /// The encoding with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Raw),
            2 => Some(Self::Zero),
            3 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a frame cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It covers nothing, too much, or runs past the largest offset.
    #[error("a frame of {length} bytes at {offset} is refused: 1 to {MAX_FRAME_BYTES} bytes are accepted")]
    Length {
        /// Where it claims to begin.
        offset: ByteOffset,
        /// How long it claims to be.
        length: u32,
    },
    /// Its payload does not have the size that its encoding and length call for.
    #[error("the payload of the frame at {offset} has {actual} bytes where {expected} are called for")]
    Payload {
        /// Where the frame begins.
        offset: ByteOffset,
        /// What length and encoding call for.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// Its payload does not decompress to as many bytes as it stands for.
    #[error("the payload of the frame at {offset} does not decompress to {expected} bytes")]
    Compression {
        /// Where the frame begins.
        offset: ByteOffset,
        /// How many bytes it claims to stand for.
        expected: usize,
    },
    /// The raw bytes are not those that were checksummed.
    #[error("the frame at {offset} has crc32 {actual:#010x} where {expected:#010x} was announced")]
    Checksum {
        /// Where the frame begins.
        offset: ByteOffset,
        /// What was announced.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
}

/// Changed bytes of one volume, checked when made: its payload fits its length and its checksum is right.
#[derive(Debug, Clone)]
pub struct Frame {
    volume: VolumeIndex,
    extent: Extent,
    crc32: u32,
    encoding: Encoding,
    payload: Bytes,
    raw: Bytes,
    /// Made when it is first asked for, and then kept.
    raw_digest: OnceLock<Digest>,
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        let words = |frame: &Self| (frame.volume, frame.extent, frame.crc32, frame.encoding);
        words(self) == words(other) && self.payload == other.payload && self.raw == other.raw
    }
}

impl Eq for Frame {}

impl Frame {
    /// A frame of these raw bytes; bytes that are all zero are elided.
    ///
    /// # Errors
    /// When `raw` is empty or larger than [`MAX_FRAME_BYTES`], or runs past the largest offset.
    pub fn from_raw(volume: VolumeIndex, offset: ByteOffset, raw: Bytes) -> Result<Self, FrameError> {
        let extent = checked_extent(offset, raw.len())?;
        if is_zero(&raw) {
            return Self::zero(volume, extent);
        }
        Ok(Self {
            volume,
            extent,
            crc32: crc32fast::hash(&raw),
            encoding: Encoding::Raw,
            payload: raw.clone(),
            raw,
            raw_digest: OnceLock::new(),
        })
    }

    /// A frame that says that `extent` is all zero.
    ///
    /// # Errors
    /// When the extent is larger than [`MAX_FRAME_BYTES`].
    pub fn zero(volume: VolumeIndex, extent: Extent) -> Result<Self, FrameError> {
        let length = usize::try_from(extent.length().0).unwrap_or(usize::MAX);
        let extent = checked_extent(extent.start(), length)?;
        let raw = zeroes(length);
        Ok(Self {
            volume,
            extent,
            crc32: crc32_of_zeroes(&raw),
            encoding: Encoding::Zero,
            payload: Bytes::new(),
            raw,
            raw_digest: OnceLock::new(),
        })
    }

    /// The same frame with its payload compressed, where that makes it shorter by a sixteenth at least.
    #[must_use]
    pub fn compressed(self, level: i32) -> Self {
        if self.encoding != Encoding::Raw {
            return self;
        }
        let limit = self
            .raw
            .len()
            .saturating_sub(self.raw.len() / 16)
            .saturating_sub(1);
        match coding::compressed(&self.raw, level, limit) {
            Some(payload) => Self {
                encoding: Encoding::Zstd,
                payload,
                ..self
            },
            None => self,
        }
    }

    /// A frame as it came from a peer or from a disk. A compressed payload is never given more memory than the
    /// length that it claims.
    ///
    /// # Errors
    /// When its length, payload or checksum is wrong.
    pub fn from_parts(
        volume: VolumeIndex,
        offset: ByteOffset,
        length: u32,
        crc32: u32,
        encoding: Encoding,
        payload: Bytes,
    ) -> Result<Self, FrameError> {
        let expected = usize::try_from(length).unwrap_or(usize::MAX);
        let extent = checked_extent(offset, expected)?;
        let refused = FrameError::Payload {
            offset,
            expected: if encoding == Encoding::Zero { 0 } else { expected },
            actual: payload.len(),
        };
        let raw = match encoding {
            Encoding::Raw if payload.len() == expected => payload.clone(),
            Encoding::Zero if payload.is_empty() => zeroes(expected),
            Encoding::Zstd if payload.len() < expected => {
                let raw = coding::decompressed(&payload, expected);
                raw.ok_or(FrameError::Compression { offset, expected })?
            }
            Encoding::Raw | Encoding::Zero | Encoding::Zstd => return Err(refused),
        };
        let actual = match encoding {
            Encoding::Zero => crc32_of_zeroes(&raw),
            Encoding::Raw | Encoding::Zstd => crc32fast::hash(&raw),
        };
        if actual != crc32 {
            return Err(FrameError::Checksum {
                offset,
                expected: crc32,
                actual,
            });
        }
        Ok(Self {
            volume,
            extent,
            crc32,
            encoding,
            payload,
            raw,
            raw_digest: OnceLock::new(),
        })
    }

    /// Whose bytes these are.
    #[must_use]
    pub fn volume(&self) -> VolumeIndex {
        self.volume
    }

    /// Which bytes these are.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// CRC-32 (ISO-HDLC, as crc32fast computes it) of the raw bytes.
    #[must_use]
    pub fn crc32(&self) -> u32 {
        self.crc32
    }

    /// How the payload represents the raw bytes.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The encoded bytes.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The bytes that it stands for.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The BLAKE3 digest of the raw bytes. It is computed when it is first asked for, so that whoever has a processor to
    /// spare can ask before it is needed.
    #[must_use]
    pub fn raw_digest(&self) -> Digest {
        *self.raw_digest.get_or_init(|| match self.encoding {
            Encoding::Zero => digest_of_zeroes(&self.raw),
            Encoding::Raw | Encoding::Zstd => Digest::of(&self.raw),
        })
    }

    /// How many bytes of memory it holds on to.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self.encoding {
            Encoding::Raw => self.raw.len(),
            Encoding::Zero => 0,
            Encoding::Zstd => self.raw.len().saturating_add(self.payload.len()),
        }
    }

    /// How many raw bytes it stands for.
    #[must_use]
    pub fn raw_length(&self) -> ByteCount {
        self.extent.length()
    }
}

static ZEROES: [u8; MAX_FRAME_BYTES as usize] = [0; MAX_FRAME_BYTES as usize];

fn checked_extent(offset: ByteOffset, length: usize) -> Result<Extent, FrameError> {
    let small = u32::try_from(length).unwrap_or(u32::MAX);
    let refused = FrameError::Length {
        offset,
        length: small,
    };
    if small > MAX_FRAME_BYTES {
        return Err(refused);
    }
    Extent::new(offset, ByteCount(u64::from(small))).ok_or(refused)
}

fn zeroes(length: usize) -> Bytes {
    Bytes::from_static(ZEROES.get(..length).unwrap_or(&ZEROES))
}

/// Runs of zeroes are long, so that nearly all of their frames are as long as one can be: these are worked out once.
fn crc32_of_zeroes(raw: &[u8]) -> u32 {
    static LONGEST: OnceLock<u32> = OnceLock::new();
    match raw.len() == ZEROES.len() {
        true => *LONGEST.get_or_init(|| crc32fast::hash(&ZEROES)),
        false => crc32fast::hash(raw),
    }
}

fn digest_of_zeroes(raw: &[u8]) -> Digest {
    static LONGEST: OnceLock<Digest> = OnceLock::new();
    match raw.len() == ZEROES.len() {
        true => *LONGEST.get_or_init(|| Digest::of(&ZEROES)),
        false => Digest::of(raw),
    }
}

fn is_zero(raw: &[u8]) -> bool {
    ZEROES.get(..raw.len()).is_some_and(|zeroes| zeroes == raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(length: u32, crc32: u32, encoding: Encoding, payload: &[u8]) -> Result<Frame, FrameError> {
        let payload = Bytes::copy_from_slice(payload);
        Frame::from_parts(VolumeIndex(0), ByteOffset(4096), length, crc32, encoding, payload)
    }

    #[test]
    fn a_frame_survives_the_trip_through_its_parts() {
        for raw in [vec![7u8; 100], vec![0; 4096], vec![1; MAX_FRAME_BYTES as usize]] {
            let sent = Frame::from_raw(VolumeIndex(0), ByteOffset(4096), raw.clone().into()).unwrap();
            let length = u32::try_from(raw.len()).unwrap();
            let received = parts(length, sent.crc32(), sent.encoding(), sent.payload()).unwrap();
            assert_eq!(received, sent);
            assert_eq!(received.raw_digest(), Digest::of(&raw));
        }
    }

    #[test]
    fn zeroes_have_the_sums_of_their_bytes_however_many_there_are() {
        for length in [1, 4096, MAX_FRAME_BYTES - 1, MAX_FRAME_BYTES] {
            let raw = vec![0; usize::try_from(length).unwrap()];
            let extent = Extent::new(ByteOffset(4096), ByteCount(u64::from(length))).unwrap();
            let frame = Frame::zero(VolumeIndex(0), extent).unwrap();
            assert_eq!(frame.crc32(), crc32fast::hash(&raw));
            assert_eq!(frame.raw_digest(), Digest::of(&raw));
            let received = parts(length, frame.crc32(), Encoding::Zero, &[]).unwrap();
            assert_eq!(received.raw_digest(), Digest::of(&raw));
            assert!(parts(length, 7, Encoding::Zero, &[]).is_err());
        }
    }

    #[test]
    fn a_frame_is_compressed_where_that_pays_and_believed_only_if_it_decompresses() {
        let text: Bytes = b"farshore ".repeat(1000).into();
        let raw = Frame::from_raw(VolumeIndex(0), ByteOffset(4096), text.clone()).unwrap();
        let packed = raw.clone().compressed(-5);
        assert_eq!(packed.encoding(), Encoding::Zstd);
        assert!(packed.payload().len() < 1000);
        assert_eq!(
            (packed.raw(), packed.raw_digest(), packed.crc32()),
            (&text, raw.raw_digest(), raw.crc32())
        );
        let received = parts(9000, packed.crc32(), Encoding::Zstd, packed.payload()).unwrap();
        assert_eq!(received, packed);
        for (length, payload) in [
            (8999, packed.payload().as_ref()),
            (9001, packed.payload()),
            (9000, b"junk"),
        ] {
            assert!(matches!(
                parts(length, packed.crc32(), Encoding::Zstd, payload),
                Err(FrameError::Compression { .. })
            ));
        }
        let dense: Vec<u8> = (0..128u8).flat_map(|at| *Digest::of(&[at]).as_bytes()).collect();
        let dense = Frame::from_raw(VolumeIndex(0), ByteOffset(0), dense.into()).unwrap();
        assert!(dense.clone().compressed(-5) == dense);
    }

    #[test]
    fn a_thread_that_went_from_level_to_level_and_failed_in_between_still_compresses_rightly() {
        let text: Bytes = b"a point is what the disks were "
            .repeat(2000)
            .split_off(7)
            .into();
        let mut state = 7u64;
        let noise: Bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .take(60_000)
        .collect();
        for level in [1, -5, 6, 3, 6, -5] {
            for raw in [&noise, &text] {
                let frame = Frame::from_raw(VolumeIndex(0), ByteOffset(4096), raw.clone()).unwrap();
                let packed = frame.clone().compressed(level);
                let pays = raw == &text;
                assert_eq!(packed.encoding() == Encoding::Zstd, pays);
                assert_eq!(packed.held_bytes() > frame.held_bytes(), pays);
                let length = u32::try_from(raw.len()).unwrap();
                let received = parts(length, packed.crc32(), packed.encoding(), packed.payload()).unwrap();
                assert_eq!(received, packed);
            }
        }
    }

    #[test]
    fn zeroes_do_not_travel() {
        let frame = Frame::from_raw(VolumeIndex(0), ByteOffset(0), vec![0; 512].into()).unwrap();
        assert_eq!(frame.encoding(), Encoding::Zero);
        assert!(frame.payload().is_empty());
        let same = Frame::zero(VolumeIndex(0), frame.extent()).unwrap();
        assert_eq!(same, frame);
    }

    #[test]
    fn a_frame_that_is_empty_too_large_or_wrong_is_refused() {
        assert!(matches!(
            parts(0, 0, Encoding::Raw, b""),
            Err(FrameError::Length { .. })
        ));
        let large = vec![1; MAX_FRAME_BYTES as usize + 1];
        assert!(matches!(
            parts(65537, 0, Encoding::Raw, &large),
            Err(FrameError::Length { .. })
        ));
        assert!(matches!(
            parts(4, 0, Encoding::Raw, b"abc"),
            Err(FrameError::Payload { .. })
        ));
        assert!(matches!(
            parts(3, 1, Encoding::Raw, b"abc"),
            Err(FrameError::Checksum { .. })
        ));
        assert!(matches!(
            parts(3, 1, Encoding::Zero, b""),
            Err(FrameError::Checksum { .. })
        ));
        assert!(matches!(
            parts(3, 1, Encoding::Zero, b"abc"),
            Err(FrameError::Payload { .. })
        ));
    }
}

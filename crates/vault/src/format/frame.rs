//! A frame's entry in its group's directory, and the check that no payload escapes.

use bytes::Bytes;
use farshore_blocks::{ByteCount, ByteOffset, Encoding, Extent, Frame, MAX_FRAME_BYTES, VolumeIndex};

use super::{
    FormatError,
    fields::{Encoder, Fields},
};

pub(crate) const FRAME_ENTRY_BYTES: usize = 32;

/// What a group says of one of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredFrame {
    pub(crate) volume: VolumeIndex,
    pub(crate) extent: Extent,
    pub(crate) encoding: Encoding,
    /// How many bytes its payload takes.
    pub(crate) stored_bytes: u32,
    /// Of the raw bytes.
    pub(crate) crc32: u32,
    /// The first eight bytes of the BLAKE3 digest of the raw bytes.
    pub(crate) fingerprint: u64,
}

impl StoredFrame {
    pub(crate) fn of(frame: &Frame, fingerprint: u64) -> Self {
        Self {
            volume: frame.volume(),
            extent: frame.extent(),
            encoding: frame.encoding(),
            stored_bytes: u32::try_from(frame.payload().len()).unwrap_or(u32::MAX),
            crc32: frame.crc32(),
            fingerprint,
        }
    }

    pub(crate) fn raw_bytes(&self) -> u32 {
        u32::try_from(self.extent.length().0).unwrap_or(u32::MAX)
    }

    pub(super) fn encode_into(&self, bytes: &mut Encoder) {
        // A chain has at most 1024 volumes.
        bytes.u16(u16::try_from(self.volume.0).unwrap_or(u16::MAX));
        bytes
            .u8(self.encoding.code())
            .u8(0)
            .u32(self.raw_bytes())
            .u64(self.extent.start().0);
        bytes.u32(self.stored_bytes).u32(self.crc32).u64(self.fingerprint);
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let volume = VolumeIndex(u32::from(fields.u16()?));
        let encoding = Encoding::from_code(fields.u8()?).ok_or(FormatError::Bounds { field: "encoding" })?;
        fields.reserved::<1>()?;
        let length = fields.u32()?;
        let offset = ByteOffset(fields.u64()?);
        let extent = Extent::new(offset, ByteCount(u64::from(length)))
            .filter(|_| length <= MAX_FRAME_BYTES)
            .ok_or(FormatError::Bounds { field: "extent" })?;
        let stored_bytes = fields.u32()?;
        let fits = match encoding {
            Encoding::Raw => stored_bytes == length,
            Encoding::Zero => stored_bytes == 0,
            Encoding::Zstd => (1..length).contains(&stored_bytes),
        };
        if !fits {
            return Err(FormatError::Bounds {
                field: "payload length",
            });
        }
        Ok(Self {
            volume,
            extent,
            encoding,
            stored_bytes,
            crc32: fields.u32()?,
            fingerprint: fields.u64()?,
        })
    }

    /// Checks the payload and gives the frame.
    pub(crate) fn frame(&self, payload: Bytes) -> Result<Frame, FormatError> {
        let start = self.extent.start();
        Frame::from_parts(
            self.volume,
            start,
            self.raw_bytes(),
            self.crc32,
            self.encoding,
            payload,
        )
        .map_err(FormatError::Frame)
    }
}

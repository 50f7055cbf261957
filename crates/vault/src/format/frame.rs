//! The header before each frame's payload in a segment.
//!
//! It names its own place (segment and position), so that a misdirected write or read is caught, and its
//! checksum also covers the identity of vault and chain, so that it is valid nowhere else.

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, Encoding, Extent, Frame, MAX_FRAME_BYTES, Sequence, VolumeIndex,
};

use super::{
    FormatError, Identity,
    fields::{Fields, check_crc32, length_of},
};

pub(super) const FRAME_MAGIC: [u8; 4] = *b"FRM0";
pub(crate) const FRAME_HEADER_BYTES: usize = 60;
const COVERED_BYTES: usize = FRAME_HEADER_BYTES - 4;

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) volume: VolumeIndex,
    pub(crate) extent: Extent,
    pub(crate) crc32: u32,
    pub(crate) encoding: Encoding,
    pub(crate) sequence: Sequence,
    pub(crate) segment: u64,
    pub(crate) position: u32,
}

impl FrameHeader {
    pub(crate) fn of(frame: &Frame, sequence: Sequence, segment: u64, position: u32) -> Self {
        Self {
            volume: frame.volume(),
            extent: frame.extent(),
            crc32: frame.crc32(),
            encoding: frame.encoding(),
            sequence,
            segment,
            position,
        }
    }

    /// How many bytes follow the header.
    pub(crate) fn payload_bytes(&self) -> u32 {
        match self.encoding {
            Encoding::Raw => self.raw_bytes(),
            Encoding::Zero => 0,
        }
    }

    fn raw_bytes(&self) -> u32 {
        u32::try_from(self.extent.length().0).unwrap_or(u32::MAX)
    }

    /// How many bytes header and payload take.
    pub(crate) fn stored_bytes(&self) -> u64 {
        length_of(FRAME_HEADER_BYTES).saturating_add(u64::from(self.payload_bytes()))
    }

    pub(crate) fn encode_into(&self, identity: Identity, bytes: &mut Vec<u8>) {
        let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
        header.extend_from_slice(&FRAME_MAGIC);
        header.extend_from_slice(&self.volume.0.to_le_bytes());
        header.extend_from_slice(&self.extent.start().0.to_le_bytes());
        header.extend_from_slice(&self.raw_bytes().to_le_bytes());
        header.extend_from_slice(&self.crc32.to_le_bytes());
        header.push(self.encoding.code());
        header.extend_from_slice(&[0; 3]);
        header.extend_from_slice(&self.payload_bytes().to_le_bytes());
        header.extend_from_slice(&self.sequence.0.to_le_bytes());
        header.extend_from_slice(&self.segment.to_le_bytes());
        header.extend_from_slice(&self.position.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let crc32 = identified_crc32(&header, identity);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&crc32.to_le_bytes());
    }

    /// Reads the header at `position` of `segment`.
    pub(crate) fn decode(
        bytes: &[u8],
        identity: Identity,
        segment: u64,
        position: u32,
    ) -> Result<Self, FormatError> {
        let too_short = FormatError::TooShort {
            expected: length_of(FRAME_HEADER_BYTES),
            actual: length_of(bytes.len()),
        };
        let Some((covered, rest)) = bytes.split_at_checked(COVERED_BYTES) else {
            return Err(too_short);
        };
        let expected = Fields::new(rest).u32().map_err(|_| too_short)?;
        let mut fields = Fields::new(covered);
        if fields.array::<4>()? != FRAME_MAGIC {
            return Err(FormatError::Magic { expected: "a frame" });
        }
        let actual = identified_crc32(covered, identity);
        if actual != expected {
            return Err(FormatError::Checksum { expected, actual });
        }
        let header = decode_fields(&mut fields)?;
        if header.segment != segment {
            return Err(FormatError::Identity {
                field: "segment number",
            });
        }
        if header.position != position {
            return Err(FormatError::Identity { field: "position" });
        }
        Ok(header)
    }

    /// Checks the bytes behind the header and gives the frame.
    pub(crate) fn frame(&self, payload: Bytes) -> Result<Frame, FormatError> {
        let crc32 = self.crc32;
        if payload.len() != usize::try_from(self.payload_bytes()).unwrap_or(usize::MAX) {
            return Err(FormatError::Bounds {
                field: "payload length",
            });
        }
        if self.encoding == Encoding::Raw {
            check_crc32(&payload, crc32)?;
        }
        let (start, length) = (self.extent.start(), self.raw_bytes());
        Frame::from_parts(self.volume, start, length, crc32, self.encoding, payload)
            .map_err(|_| FormatError::Bounds { field: "frame" })
    }
}

fn decode_fields(fields: &mut Fields<'_>) -> Result<FrameHeader, FormatError> {
    let volume = VolumeIndex(fields.u32()?);
    let offset = ByteOffset(fields.u64()?);
    let length = fields.u32()?;
    let crc32 = fields.u32()?;
    let encoding = Encoding::from_code(fields.u8()?).ok_or(FormatError::Bounds { field: "encoding" })?;
    fields.reserved::<3>()?;
    let payload = fields.u32()?;
    let extent = Extent::new(offset, ByteCount(u64::from(length)))
        .filter(|_| length <= MAX_FRAME_BYTES)
        .ok_or(FormatError::Bounds { field: "extent" })?;
    let header = FrameHeader {
        volume,
        extent,
        crc32,
        encoding,
        sequence: Sequence(fields.u64()?),
        segment: fields.u64()?,
        position: fields.u32()?,
    };
    fields.reserved::<4>()?;
    if header.payload_bytes() != payload {
        return Err(FormatError::Bounds {
            field: "payload length",
        });
    }
    Ok(header)
}

fn identified_crc32(header: &[u8], identity: Identity) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(identity.incarnation.as_bytes());
    hasher.update(identity.chain.as_bytes());
    hasher.finalize()
}

//! A run: the sealed index of one point, saying where in the segments each of its extents lies.

use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, Encoding, Extent, Incarnation, MAX_FRAME_BYTES, Sequence, VolumeIndex,
};

use super::{
    FORMAT_VERSION, FormatError, Identity,
    fields::{Fields, checked_header, length_of, push_crc32},
};

pub(super) const RUN_MAGIC: [u8; 8] = *b"FARSHRUN";
pub(crate) const RUN_HEADER_BYTES: usize = 76;
pub(crate) const RUN_ENTRY_BYTES: usize = 48;

/// What a run's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunHeader {
    pub(crate) identity: Identity,
    pub(crate) sequence: Sequence,
    pub(crate) entries: u64,
    /// Of all entries, one after the other.
    pub(crate) entries_crc32: u32,
}

/// One extent of a run: the part of a frame that is visible in the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunEntry {
    pub(crate) volume: VolumeIndex,
    pub(crate) extent: Extent,
    pub(crate) frame: Extent,
    pub(crate) encoding: Encoding,
    pub(crate) crc32: u32,
    pub(crate) segment: u64,
    pub(crate) position: u32,
}

impl RunHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RUN_HEADER_BYTES);
        bytes.extend_from_slice(&RUN_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.identity.incarnation.as_bytes());
        bytes.extend_from_slice(self.identity.chain.as_bytes());
        bytes.extend_from_slice(&self.sequence.0.to_le_bytes());
        bytes.extend_from_slice(&self.entries.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.entries_crc32.to_le_bytes());
        push_crc32(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = checked_header(bytes, RUN_HEADER_BYTES, RUN_MAGIC, "an index run")?;
        fields.reserved::<4>()?;
        let identity = Identity {
            incarnation: Incarnation::from_bytes(fields.array()?),
            chain: ChainId::from_bytes(fields.array()?),
        };
        let sequence = Sequence(fields.u64()?);
        let entries = fields.u64()?;
        fields.reserved::<4>()?;
        Ok(Self {
            identity,
            sequence,
            entries,
            entries_crc32: fields.u32()?,
        })
    }

    /// Whether the file is the one that was meant.
    pub(crate) fn expect(&self, expected: &Self) -> Result<(), FormatError> {
        let differing = [
            (
                self.identity.incarnation != expected.identity.incarnation,
                "vault incarnation",
            ),
            (self.identity.chain != expected.identity.chain, "chain"),
            (self.sequence != expected.sequence, "sequence"),
            (self.entries != expected.entries, "number of entries"),
            (
                self.entries_crc32 != expected.entries_crc32,
                "checksum of entries",
            ),
        ];
        match differing.into_iter().find(|(differs, _)| *differs) {
            Some((_, field)) => Err(FormatError::Identity { field }),
            None => Ok(()),
        }
    }
}

impl RunEntry {
    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.volume.0.to_le_bytes());
        bytes.push(self.encoding.code());
        bytes.extend_from_slice(&[0; 3]);
        bytes.extend_from_slice(&self.extent.start().0.to_le_bytes());
        bytes.extend_from_slice(&small(self.extent.length()).to_le_bytes());
        bytes.extend_from_slice(&small(self.frame.length()).to_le_bytes());
        bytes.extend_from_slice(&self.frame.start().0.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.position.to_le_bytes());
        bytes.extend_from_slice(&self.crc32.to_le_bytes());
    }

    /// Reads one entry; the checksum of all entries was checked before.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != RUN_ENTRY_BYTES {
            return Err(FormatError::TooShort {
                expected: length_of(RUN_ENTRY_BYTES),
                actual: length_of(bytes.len()),
            });
        }
        let mut fields = Fields::new(bytes);
        let volume = VolumeIndex(fields.u32()?);
        let encoding = Encoding::from_code(fields.u8()?).ok_or(FormatError::Bounds { field: "encoding" })?;
        fields.reserved::<3>()?;
        let start = ByteOffset(fields.u64()?);
        let length = fields.u32()?;
        let frame_length = fields.u32()?;
        let frame_start = ByteOffset(fields.u64()?);
        let extent = checked_extent(start, length)?;
        let frame = checked_extent(frame_start, frame_length)?;
        if frame.intersection(extent) != Some(extent) {
            return Err(FormatError::Bounds { field: "extent" });
        }
        Ok(Self {
            volume,
            extent,
            frame,
            encoding,
            segment: fields.u64()?,
            position: fields.u32()?,
            crc32: fields.u32()?,
        })
    }
}

fn checked_extent(start: ByteOffset, length: u32) -> Result<Extent, FormatError> {
    Extent::new(start, ByteCount(u64::from(length)))
        .filter(|_| length <= MAX_FRAME_BYTES)
        .ok_or(FormatError::Bounds { field: "extent" })
}

/// An extent of an entry lies within a frame, which is at most [`MAX_FRAME_BYTES`] long.
fn small(length: ByteCount) -> u32 {
    u32::try_from(length.0).unwrap_or(u32::MAX)
}

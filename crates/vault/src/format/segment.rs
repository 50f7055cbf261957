//! The header of a segment: whose frames the file holds, and which cycle wrote them.

use farshore_blocks::{ChainId, Incarnation, Sequence};

use super::{
    FORMAT_VERSION, FormatError, Identity,
    fields::{checked_header, push_crc32},
};

pub(super) const SEGMENT_MAGIC: [u8; 8] = *b"FARSHSEG";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 80;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) segment: u64,
    pub(crate) sequence: Sequence,
    pub(crate) cycle: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.identity.incarnation.as_bytes());
        bytes.extend_from_slice(self.identity.chain.as_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.0.to_le_bytes());
        bytes.extend_from_slice(&self.cycle.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        push_crc32(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = checked_header(bytes, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, "a segment")?;
        fields.reserved::<4>()?;
        let header = Self {
            identity: Identity {
                incarnation: Incarnation::from_bytes(fields.array()?),
                chain: ChainId::from_bytes(fields.array()?),
            },
            segment: fields.u64()?,
            sequence: Sequence(fields.u64()?),
            cycle: fields.u64()?,
        };
        fields.reserved::<4>()?;
        Ok(header)
    }

    /// Whether the file is the one that was meant. The cycle is not compared: the log does that by the sequence.
    pub(crate) fn expect(
        &self,
        identity: Identity,
        segment: u64,
        sequence: Sequence,
    ) -> Result<(), FormatError> {
        let differing = [
            (
                self.identity.incarnation != identity.incarnation,
                "vault incarnation",
            ),
            (self.identity.chain != identity.chain, "chain"),
            (self.segment != segment, "segment number"),
            (self.sequence != sequence, "sequence"),
        ];
        match differing.into_iter().find(|(differs, _)| *differs) {
            Some((_, field)) => Err(FormatError::Identity { field }),
            None => Ok(()),
        }
    }
}

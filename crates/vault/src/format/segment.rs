//! The header of a segment: whose frames the file holds, and which of the chain's files it is.

use farshore_blocks::{ChainId, Incarnation};

use super::{
    FormatError, Identity, UNIT_BYTES,
    fields::{checked_header, header},
};

pub(super) const SEGMENT_MAGIC: [u8; 8] = *b"FARSHSEG";
pub(super) const PACK_MAGIC: [u8; 8] = *b"FARSHPAK";
/// What a segment's header says takes this much; it is padded to one unit.
const HEADER_BYTES: usize = 64;

/// What a file of frames is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SegmentKind {
    /// Frames as they came.
    Ingested,
    /// Frames that compaction carried over from segments.
    Packed,
}

/// Names one file of frames in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) kind: SegmentKind,
    pub(crate) number: u32,
}

impl SegmentKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Ingested => SEGMENT_MAGIC,
            Self::Packed => PACK_MAGIC,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Ingested => "a segment",
            Self::Packed => "a pack",
        }
    }
}

impl SegmentName {
    pub(crate) const fn ingested(number: u32) -> Self {
        let kind = SegmentKind::Ingested;
        Self { kind, number }
    }

    pub(crate) const fn packed(number: u32) -> Self {
        let kind = SegmentKind::Packed;
        Self { kind, number }
    }

    /// The header of this file, one unit long.
    pub(crate) fn encode(self, identity: Identity) -> Vec<u8> {
        let mut bytes = header(self.kind.magic());
        bytes
            .u32(0)
            .array(identity.vault.as_bytes())
            .array(identity.chain.as_bytes())
            .u32(self.number)
            .fill_to(HEADER_BYTES - 4)
            .crc32()
            .fill_to(UNIT_BYTES);
        bytes.done()
    }

    /// Checks that the header is that of this very file.
    pub(crate) fn check(self, identity: Identity, bytes: &[u8]) -> Result<(), FormatError> {
        let mut fields = checked_header(bytes, HEADER_BYTES, self.kind.magic(), self.kind.what())?;
        fields.reserved::<4>()?;
        let found = Identity {
            vault: Incarnation::from_bytes(fields.array()?),
            chain: ChainId::from_bytes(fields.array()?),
        };
        found.expect(identity)?;
        if fields.u32()? != self.number {
            return Err(FormatError::Identity {
                field: "segment number",
            });
        }
        let padding = bytes.get(HEADER_BYTES..).unwrap_or_default();
        super::fields::Fields::new(padding).rest_is_zero_in(padding.len())
    }
}

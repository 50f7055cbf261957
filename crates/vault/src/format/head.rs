//! `head`: says that a directory is a vault, of which format, and which life of it.

use farshore_blocks::{Incarnation, clock::WallTime};

use super::{
    FORMAT_VERSION, FormatError,
    fields::{checked_header, length_of, push_crc32},
};

pub(super) const HEAD_MAGIC: [u8; 8] = *b"FARSHEAD";
pub(super) const HEAD_BYTES: usize = 44;

/// What `head` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) incarnation: Incarnation,
    pub(crate) created_at: WallTime,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(&HEAD_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.incarnation.as_bytes());
        bytes.extend_from_slice(&self.created_at.0.to_le_bytes());
        push_crc32(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = checked_header(bytes, HEAD_BYTES, HEAD_MAGIC, "a vault's head")?;
        fields.reserved::<4>()?;
        let head = Self {
            incarnation: Incarnation::from_bytes(fields.array()?),
            created_at: WallTime(fields.u64()?),
        };
        if length_of(bytes.len()) == length_of(HEAD_BYTES) {
            Ok(head)
        } else {
            Err(FormatError::Bounds { field: "length" })
        }
    }
}

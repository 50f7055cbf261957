//! `head`: says that a directory is a vault, of which format, which life of it, and which file it is itself.

use farshore_blocks::{Incarnation, clock::WallTime};

use super::{
    FormatError,
    fields::{checked_header, header, length_of},
};
use crate::storage::FileIdentity;

pub(super) const HEAD_MAGIC: [u8; 8] = *b"FARSHEAD";
pub(super) const HEAD_BYTES: usize = 80;

/// What `head` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The vault's first incarnation: all its files carry it, in every later life too.
    pub(crate) vault: Incarnation,
    /// The life that the vault leads now.
    pub(crate) incarnation: Incarnation,
    pub(crate) created_at: WallTime,
    /// The file that holds this head: a copy of the vault lies in another.
    pub(crate) file: FileIdentity,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = header(HEAD_MAGIC);
        bytes
            .u32(0)
            .array(self.vault.as_bytes())
            .array(self.incarnation.as_bytes())
            .u64(self.created_at.0)
            .u64(self.file.inode)
            .u64(self.file.born_nanoseconds)
            .u32(0)
            .crc32();
        bytes.done()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = checked_header(bytes, HEAD_BYTES, HEAD_MAGIC, "a vault's head")?;
        fields.reserved::<4>()?;
        let head = Self {
            vault: Incarnation::from_bytes(fields.array()?),
            incarnation: Incarnation::from_bytes(fields.array()?),
            created_at: WallTime(fields.u64()?),
            file: FileIdentity {
                inode: fields.u64()?,
                born_nanoseconds: fields.u64()?,
            },
        };
        fields.reserved::<4>()?;
        if length_of(bytes.len()) == length_of(HEAD_BYTES) {
            Ok(head)
        } else {
            Err(FormatError::Bounds { field: "length" })
        }
    }
}

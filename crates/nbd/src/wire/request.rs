//! The 28 bytes with which a client asks for something once it has an export.

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::fields::Fields;

const REQUEST_MAGIC: u32 = 0x2560_9513;

/// The length of a request without its payload.
pub const REQUEST_BYTES: usize = 28;
/// Request flag: do not fragment the answer to a read.
pub const FLAG_DO_NOT_FRAGMENT: u16 = 1 << 2;
/// Request flag: one status descriptor is enough.
pub const FLAG_ONE_DESCRIPTOR: u16 = 1 << 3;

/// What a request wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub u16);

impl Command {
    /// Read.
    pub const READ: Self = Self(0);
    /// Write; its payload follows the request.
    pub const WRITE: Self = Self(1);
    /// Goodbye; it has no answer.
    pub const DISCONNECT: Self = Self(2);
    /// Make what was written durable.
    pub const FLUSH: Self = Self(3);
    /// Discard.
    pub const TRIM: Self = Self(4);
    /// Write zeroes.
    pub const WRITE_ZEROES: Self = Self(6);
    /// Ask for block status.
    pub const BLOCK_STATUS: Self = Self(7);
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Flags of the command.
    pub flags: u16,
    /// What is wanted.
    pub command: Command,
    /// What the answer will carry, so that it is known again.
    pub cookie: u64,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
}

impl Request {
    /// Writes the request.
    pub fn put(&self, target: &mut BytesMut) {
        target.put_u32(REQUEST_MAGIC);
        target.put_u16(self.flags);
        target.put_u16(self.command.0);
        target.put_u64(self.cookie);
        target.put_u64(self.offset);
        target.put_u32(self.length);
    }

    /// Reads a request.
    ///
    /// # Errors
    /// When no request begins here; after that the stream has no meaning any more.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(bytes);
        let magic = fields.u32()?;
        if magic != REQUEST_MAGIC {
            return Err(WireError::Magic {
                what: "a request",
                found: u64::from(magic),
            });
        }
        Ok(Self {
            flags: fields.u16()?,
            command: Command(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }
}

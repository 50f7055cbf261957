//! Replies to requests: the simple form, and the chunks of the structured form.

use bytes::{BufMut, BytesMut};

use super::error_code::ErrorCode;
use super::fields::Fields;
use super::{NAME_BYTES_MAXIMUM, WireError};

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// The length of the magic number that tells the forms apart.
pub const REPLY_MAGIC_BYTES: usize = 4;
/// The length of the rest of a simple reply before its data.
pub const SIMPLE_REST_BYTES: usize = 12;
/// The length of the rest of a chunk's header.
pub const CHUNK_REST_BYTES: usize = 16;
/// The length of a chunk's header with its magic number.
pub const CHUNK_HEADER_BYTES: usize = REPLY_MAGIC_BYTES + CHUNK_REST_BYTES;
/// The length of a simple reply with its magic number, before its data.
pub const SIMPLE_HEADER_BYTES: usize = REPLY_MAGIC_BYTES + SIMPLE_REST_BYTES;
/// The length of the position before the data in a chunk of data.
pub const CHUNK_OFFSET_BYTES: u32 = 8;
/// The length of what a chunk says about a hole.
pub const CHUNK_HOLE_BYTES: u32 = 12;
/// Chunk flag: the last one of its reply.
pub const FLAG_DONE: u16 = 1 << 0;
/// Status flag of `base:allocation`: nothing is allocated there.
pub const STATE_HOLE: u32 = 1 << 0;
/// Status flag of `base:allocation`: it reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;

/// Which of the two forms a reply has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyForm {
    /// An error number, then all the data.
    Simple,
    /// Chunks.
    Structured,
}

/// What a chunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkKind(pub u16);

impl ChunkKind {
    const ERROR_BIT: u16 = 1 << 15;

    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A position and data.
    pub const OFFSET_DATA: Self = Self(1);
    /// A position and how many zeroes.
    pub const OFFSET_HOLE: Self = Self(2);
    /// A context's number and status descriptors.
    pub const BLOCK_STATUS: Self = Self(5);
    /// An error number and a text.
    pub const ERROR: Self = Self(Self::ERROR_BIT | 1);

    /// Whether the chunk reports an error, known or not.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 & Self::ERROR_BIT != 0
    }
}

/// The start of a simple reply, after its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimpleReply {
    /// [`ErrorCode::NONE`], after which the data follows, or what went wrong.
    pub error: ErrorCode,
    /// Of the request that this answers.
    pub cookie: u64,
}

/// The start of a chunk, after its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// [`FLAG_DONE`] or nothing.
    pub flags: u16,
    /// What it carries.
    pub kind: ChunkKind,
    /// Of the request that this answers.
    pub cookie: u64,
    /// How many bytes follow.
    pub payload_bytes: u32,
}

/// What an error chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReport {
    /// The error number.
    pub code: ErrorCode,
    /// A text for people, which may be empty.
    pub message: String,
}

/// A run of one state in a chunk of block status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireDescriptor {
    /// How long, in bytes.
    pub length: u32,
    /// The state, as the context defines it.
    pub flags: u32,
}

/// Reads a reply's magic number.
///
/// # Errors
/// When no reply begins here.
pub fn reply_form(bytes: &[u8; REPLY_MAGIC_BYTES]) -> Result<ReplyForm, WireError> {
    match u32::from_be_bytes(*bytes) {
        SIMPLE_MAGIC => Ok(ReplyForm::Simple),
        CHUNK_MAGIC => Ok(ReplyForm::Structured),
        found => Err(WireError::Magic {
            what: "a reply",
            found: u64::from(found),
        }),
    }
}

impl SimpleReply {
    /// Writes the start with its magic number.
    pub fn put(&self, target: &mut impl BufMut) {
        target.put_u32(SIMPLE_MAGIC);
        target.put_u32(self.error.0);
        target.put_u64(self.cookie);
    }

    /// Reads what follows the magic number.
    ///
    /// # Errors
    /// None for bytes of this length.
    pub fn decode(rest: &[u8; SIMPLE_REST_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(rest);
        Ok(Self {
            error: ErrorCode(fields.u32()?),
            cookie: fields.u64()?,
        })
    }
}

impl ChunkHeader {
    /// Writes the header with its magic number.
    pub fn put(&self, target: &mut impl BufMut) {
        target.put_u32(CHUNK_MAGIC);
        target.put_u16(self.flags);
        target.put_u16(self.kind.0);
        target.put_u64(self.cookie);
        target.put_u32(self.payload_bytes);
    }

    /// Reads what follows the magic number.
    ///
    /// # Errors
    /// None for bytes of this length.
    pub fn decode(rest: &[u8; CHUNK_REST_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(rest);
        Ok(Self {
            flags: fields.u16()?,
            kind: ChunkKind(fields.u16()?),
            cookie: fields.u64()?,
            payload_bytes: fields.u32()?,
        })
    }

    /// Whether this chunk ends its reply.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.flags & FLAG_DONE != 0
    }
}

impl ErrorReport {
    /// Writes the payload of an error chunk; a text beyond the protocol's bound is cut.
    pub fn put(&self, target: &mut BytesMut) {
        let end = self.message.floor_char_boundary(NAME_BYTES_MAXIMUM);
        let message = self.message.get(..end).unwrap_or_default();
        target.put_u32(self.code.0);
        target.put_u16(u16::try_from(message.len()).unwrap_or(0));
        target.put_slice(message.as_bytes());
    }

    /// Reads the payload of any error chunk; what follows the text belongs to kinds that say more.
    ///
    /// # Errors
    /// When it is cut or its text is too long.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(payload);
        let code = ErrorCode(fields.u32()?);
        let length = usize::from(fields.u16()?);
        if length > NAME_BYTES_MAXIMUM {
            return Err(WireError::NameTooLong { length_bytes: length });
        }
        let message = String::from_utf8_lossy(fields.bytes(length)?).into_owned();
        Ok(Self { code, message })
    }
}

/// Writes the payload of a chunk of block status.
pub fn put_block_status(target: &mut BytesMut, context_id: u32, descriptors: &[WireDescriptor]) {
    target.put_u32(context_id);
    for descriptor in descriptors {
        target.put_u32(descriptor.length);
        target.put_u32(descriptor.flags);
    }
}

/// Reads the payload of a chunk of block status: the context's number and its descriptors.
///
/// # Errors
/// When there is no descriptor, a cut one, or one of length zero, with which a reader would never come to an end.
pub fn block_status(payload: &[u8]) -> Result<(u32, Vec<WireDescriptor>), WireError> {
    let mut fields = Fields::new(payload);
    let context_id = fields.u32()?;
    let mut descriptors = Vec::with_capacity(fields.remaining() / 8);
    while fields.remaining() > 0 {
        let descriptor = WireDescriptor {
            length: fields.u32().map_err(|_| WireError::StatusMalformed)?,
            flags: fields.u32().map_err(|_| WireError::StatusMalformed)?,
        };
        if descriptor.length == 0 {
            return Err(WireError::StatusMalformed);
        }
        descriptors.push(descriptor);
    }
    if descriptors.is_empty() {
        Err(WireError::StatusMalformed)
    } else {
        Ok((context_id, descriptors))
    }
}

/// Reads the payload of a hole: its position and length.
///
/// # Errors
/// When the payload is not exactly these two.
pub fn hole(payload: &[u8]) -> Result<(u64, u32), WireError> {
    let mut fields = Fields::new(payload);
    let position = (fields.u64()?, fields.u32()?);
    fields.end()?;
    Ok(position)
}

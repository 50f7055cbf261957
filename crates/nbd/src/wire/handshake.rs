//! The greeting and the frames in which options and their answers travel.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::fields::Fields;

const GREETING_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// The length of the server's greeting.
pub const GREETING_BYTES: usize = 18;
/// The length of the frame before an option's data.
pub const OPTION_HEADER_BYTES: usize = 16;
/// The length of the frame before the data of an option's answer.
pub const OPTION_REPLY_HEADER_BYTES: usize = 20;
/// Handshake flag of both sides: options are answered (fixed newstyle).
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag of both sides: no 124 zeroes after the answer to `NBD_OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

/// What a client asks for in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OptionCode(pub u32);

impl OptionCode {
    /// Takes an export without an answer that could refuse it.
    pub const EXPORT_NAME: Self = Self(1);
    /// Ends the handshake.
    pub const ABORT: Self = Self(2);
    /// Asks for the names of all exports.
    pub const LIST: Self = Self(3);
    /// Asks about an export.
    pub const INFO: Self = Self(6);
    /// Takes an export.
    pub const GO: Self = Self(7);
    /// Agrees on structured replies.
    pub const STRUCTURED_REPLY: Self = Self(8);
    /// Asks which metadata contexts there are.
    pub const LIST_META_CONTEXT: Self = Self(9);
    /// Agrees on metadata contexts.
    pub const SET_META_CONTEXT: Self = Self(10);
}

impl fmt::Display for OptionCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::EXPORT_NAME => "NBD_OPT_EXPORT_NAME",
            Self::ABORT => "NBD_OPT_ABORT",
            Self::LIST => "NBD_OPT_LIST",
            Self::INFO => "NBD_OPT_INFO",
            Self::GO => "NBD_OPT_GO",
            Self::STRUCTURED_REPLY => "NBD_OPT_STRUCTURED_REPLY",
            Self::LIST_META_CONTEXT => "NBD_OPT_LIST_META_CONTEXT",
            Self::SET_META_CONTEXT => "NBD_OPT_SET_META_CONTEXT",
            Self(other) => return write!(formatter, "option {other}"),
        };
        formatter.write_str(name)
    }
}

/// How a server answers an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OptionReply(pub u32);

impl OptionReply {
    const ERROR: u32 = 1 << 31;

    /// Done; ends a sequence of answers.
    pub const ACKNOWLEDGED: Self = Self(1);
    /// The name of an export.
    pub const SERVER: Self = Self(2);
    /// A fact about an export.
    pub const INFO: Self = Self(3);
    /// A metadata context.
    pub const META_CONTEXT: Self = Self(4);
    /// Refused: not understood.
    pub const UNSUPPORTED: Self = Self(Self::ERROR | 1);
    /// Refused: forbidden here.
    pub const POLICY: Self = Self(Self::ERROR | 2);
    /// Refused: malformed, or not at this time.
    pub const INVALID: Self = Self(Self::ERROR | 3);
    /// Refused: only with TLS.
    pub const TLS_REQUIRED: Self = Self(Self::ERROR | 5);
    /// Refused: no such export.
    pub const UNKNOWN: Self = Self(Self::ERROR | 6);
    /// Refused: too long.
    pub const TOO_BIG: Self = Self(Self::ERROR | 9);

    /// Whether the option is refused.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        self.0 & Self::ERROR != 0
    }
}

impl fmt::Display for OptionReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::ACKNOWLEDGED => "acknowledged",
            Self::SERVER => "an export's name",
            Self::INFO => "a fact about an export",
            Self::META_CONTEXT => "a metadata context",
            Self::UNSUPPORTED => "unsupported",
            Self::POLICY => "forbidden by policy",
            Self::INVALID => "invalid",
            Self::TLS_REQUIRED => "TLS required",
            Self::UNKNOWN => "no such export",
            Self::TOO_BIG => "too big",
            Self(other) => return write!(formatter, "answer {other:#x}"),
        };
        formatter.write_str(name)
    }
}

/// What stands before an option's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// What is asked for.
    pub option: OptionCode,
    /// How many bytes of data follow.
    pub data_bytes: u32,
}

/// What stands before the data of an answer to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// What was asked for.
    pub option: OptionCode,
    /// The kind of answer.
    pub reply: OptionReply,
    /// How many bytes of data follow.
    pub data_bytes: u32,
}

/// Writes the server's greeting.
pub fn put_greeting(target: &mut BytesMut, flags: u16) {
    target.put_u64(GREETING_MAGIC);
    target.put_u64(OPTION_MAGIC);
    target.put_u16(flags);
}

/// Reads the server's greeting and returns its flags.
///
/// # Errors
/// When this is not a server of the newstyle.
pub fn greeting(bytes: &[u8; GREETING_BYTES]) -> Result<u16, WireError> {
    let mut fields = Fields::new(bytes);
    expect_magic("the greeting", fields.u64()?, GREETING_MAGIC)?;
    expect_magic("the newstyle", fields.u64()?, OPTION_MAGIC)?;
    fields.u16()
}

impl OptionHeader {
    /// Writes the frame.
    pub fn put(&self, target: &mut BytesMut) {
        target.put_u64(OPTION_MAGIC);
        target.put_u32(self.option.0);
        target.put_u32(self.data_bytes);
    }

    /// Reads the frame.
    ///
    /// # Errors
    /// When no option begins here.
    pub fn decode(bytes: &[u8; OPTION_HEADER_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(bytes);
        expect_magic("an option", fields.u64()?, OPTION_MAGIC)?;
        Ok(Self {
            option: OptionCode(fields.u32()?),
            data_bytes: fields.u32()?,
        })
    }
}

impl OptionReplyHeader {
    /// Writes the frame.
    pub fn put(&self, target: &mut BytesMut) {
        target.put_u64(OPTION_REPLY_MAGIC);
        target.put_u32(self.option.0);
        target.put_u32(self.reply.0);
        target.put_u32(self.data_bytes);
    }

    /// Reads the frame.
    ///
    /// # Errors
    /// When no answer begins here.
    pub fn decode(bytes: &[u8; OPTION_REPLY_HEADER_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(bytes);
        expect_magic("an option's answer", fields.u64()?, OPTION_REPLY_MAGIC)?;
        Ok(Self {
            option: OptionCode(fields.u32()?),
            reply: OptionReply(fields.u32()?),
            data_bytes: fields.u32()?,
        })
    }
}

fn expect_magic(what: &'static str, found: u64, expected: u64) -> Result<(), WireError> {
    if found == expected {
        Ok(())
    } else {
        Err(WireError::Magic { what, found })
    }
}

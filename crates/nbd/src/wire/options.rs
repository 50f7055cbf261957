//! What is inside options and their answers: exports, facts about them, metadata contexts.

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::fields::{Fields, put_counted_name};

/// The context that tells holes and zeroes from data.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// Transmission flag: the flags field is valid.
pub const HAS_FLAGS: u16 = 1 << 0;
/// Transmission flag: the export cannot be written.
pub const READ_ONLY: u16 = 1 << 1;
/// Transmission flag: flush is understood.
pub const SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: reads may ask not to be fragmented.
pub const SEND_DF: u16 = 1 << 7;
/// Transmission flag: several connections see one state.
pub const CAN_MULTI_CONN: u16 = 1 << 8;

/// Which fact about an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FactCode(pub u16);

impl FactCode {
    /// Size and transmission flags.
    pub const EXPORT: Self = Self(0);
    /// The name.
    pub const NAME: Self = Self(1);
    /// Least, preferred and greatest length of a request.
    pub const BLOCK_SIZE: Self = Self(3);
}

/// Data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportChoice {
    /// The export.
    pub name: String,
    /// What the client would like to know.
    pub facts: Vec<FactCode>,
}

/// Data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextQueries {
    /// The export whose contexts are meant.
    pub export: String,
    /// Names, or, when listing, also namespaces such as `base:`.
    pub queries: Vec<String>,
}

/// A metadata context with the number under which its status travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextGrant {
    /// The number in this connection.
    pub id: u32,
    /// The name, with its namespace.
    pub name: String,
}

/// The lengths of requests that an export takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this power of two.
    pub minimum: u32,
    /// What is fastest.
    pub preferred: u32,
    /// The longest payload.
    pub maximum: u32,
}

/// A fact about an export, as data of `NBD_REP_INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportFact {
    /// Size in bytes and transmission flags.
    Export {
        /// Size in bytes.
        size_bytes: u64,
        /// Transmission flags.
        flags: u16,
    },
    /// The export's name.
    Name(String),
    /// The lengths of requests.
    BlockSize(BlockSizes),
    /// A fact that this crate does not know.
    Other(FactCode),
}

impl ExportChoice {
    /// Writes the data.
    ///
    /// # Errors
    /// When the name is too long.
    pub fn put(&self, target: &mut BytesMut) -> Result<(), WireError> {
        put_counted_name(target, &self.name)?;
        let count = u16::try_from(self.facts.len()).unwrap_or(u16::MAX);
        target.put_u16(count);
        for fact in self.facts.iter().take(usize::from(count)) {
            target.put_u16(fact.0);
        }
        Ok(())
    }

    /// Reads the data.
    ///
    /// # Errors
    /// When it is not exactly a name and a list of facts.
    pub fn decode(data: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(data);
        let name = fields.counted_name()?;
        let count = fields.u16()?;
        let mut facts = Vec::new();
        for _ in 0..count {
            facts.push(FactCode(fields.u16()?));
        }
        fields.end()?;
        Ok(Self { name, facts })
    }
}

impl ContextQueries {
    /// Writes the data.
    ///
    /// # Errors
    /// When a name is too long.
    pub fn put(&self, target: &mut BytesMut) -> Result<(), WireError> {
        put_counted_name(target, &self.export)?;
        target.put_u32(u32::try_from(self.queries.len()).unwrap_or(u32::MAX));
        for query in &self.queries {
            put_counted_name(target, query)?;
        }
        Ok(())
    }

    /// Reads the data. Memory follows the data's length, never the claimed number of queries.
    ///
    /// # Errors
    /// When it is not exactly a name and a list of names.
    pub fn decode(data: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(data);
        let export = fields.counted_name()?;
        let count = fields.u32()?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(fields.counted_name()?);
        }
        fields.end()?;
        Ok(Self { export, queries })
    }
}

impl ContextGrant {
    /// Writes the data.
    pub fn put(&self, target: &mut BytesMut) {
        target.put_u32(self.id);
        target.put_slice(self.name.as_bytes());
    }

    /// Reads the data.
    ///
    /// # Errors
    /// When it is not a number and a name.
    pub fn decode(data: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(data);
        let id = fields.u32()?;
        let length = fields.remaining();
        Ok(Self {
            id,
            name: fields.name(length)?,
        })
    }
}

impl ExportFact {
    /// Writes the data; an unknown fact has none of its own.
    pub fn put(&self, target: &mut BytesMut) {
        match self {
            Self::Export { size_bytes, flags } => {
                target.put_u16(FactCode::EXPORT.0);
                target.put_u64(*size_bytes);
                target.put_u16(*flags);
            }
            Self::Name(name) => {
                target.put_u16(FactCode::NAME.0);
                target.put_slice(name.as_bytes());
            }
            Self::BlockSize(sizes) => {
                target.put_u16(FactCode::BLOCK_SIZE.0);
                target.put_u32(sizes.minimum);
                target.put_u32(sizes.preferred);
                target.put_u32(sizes.maximum);
            }
            Self::Other(code) => target.put_u16(code.0),
        }
    }

    /// Reads the data.
    ///
    /// # Errors
    /// When a known fact has the wrong length.
    pub fn decode(data: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(data);
        let fact = match FactCode(fields.u16()?) {
            FactCode::EXPORT => Self::Export {
                size_bytes: fields.u64()?,
                flags: fields.u16()?,
            },
            FactCode::NAME => {
                let length = fields.remaining();
                Self::Name(fields.name(length)?)
            }
            FactCode::BLOCK_SIZE => Self::BlockSize(BlockSizes {
                minimum: fields.u32()?,
                preferred: fields.u32()?,
                maximum: fields.u32()?,
            }),
            other => return Ok(Self::Other(other)),
        };
        fields.end()?;
        Ok(fact)
    }
}

//! Reads fields from the front of a message, each checked against what is left.

use bytes::{BufMut, BytesMut};

use super::{NAME_BYTES_MAXIMUM, WireError};

/// What is left of a message.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated {
            needed_bytes: N,
            left_bytes: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(*field)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let truncated = WireError::Truncated {
            needed_bytes: length,
            left_bytes: self.rest.len(),
        };
        let (field, rest) = self.rest.split_at_checked(length).ok_or(truncated)?;
        self.rest = rest;
        Ok(field)
    }

    /// A name of `length` bytes, checked against the protocol's bound before anything is copied.
    pub(crate) fn name(&mut self, length: usize) -> Result<String, WireError> {
        if length > NAME_BYTES_MAXIMUM {
            return Err(WireError::NameTooLong { length_bytes: length });
        }
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| WireError::NameNotText)
    }

    /// A name behind its length of 32 bits.
    pub(crate) fn counted_name(&mut self) -> Result<String, WireError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.name(length)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing {
                excess_bytes: self.rest.len(),
            })
        }
    }
}

/// Writes a name behind its length of 32 bits.
pub(crate) fn put_counted_name(target: &mut BytesMut, name: &str) -> Result<(), WireError> {
    let too_long = || WireError::NameTooLong {
        length_bytes: name.len(),
    };
    if name.len() > NAME_BYTES_MAXIMUM {
        return Err(too_long());
    }
    target.put_u32(u32::try_from(name.len()).map_err(|_| too_long())?);
    target.put_slice(name.as_bytes());
    Ok(())
}

//! Taking integers and identities off the front of a byte string, and the frame that all headers share.

use super::{FORMAT_VERSION, FormatError};

/// What is left to read of a header.
pub(super) struct Fields<'bytes>(&'bytes [u8]);

impl<'bytes> Fields<'bytes> {
    pub(super) fn new(bytes: &'bytes [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FormatError::TooShort {
            expected: length_of(N),
            actual: length_of(self.0.len()),
        })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes `N` bytes that must be zero.
    pub(super) fn reserved<const N: usize>(&mut self) -> Result<(), FormatError> {
        if self.array::<N>()? == [0; N] {
            Ok(())
        } else {
            Err(FormatError::Bounds {
                field: "reserved bytes",
            })
        }
    }
}

/// Checks what all headers of files have in common, and gives the fields between the version and the checksum:
/// magic (8), version (4), … , crc32 over all before it (4).
pub(super) fn checked_header<'bytes>(
    bytes: &'bytes [u8],
    length: usize,
    magic: [u8; 8],
    what: &'static str,
) -> Result<Fields<'bytes>, FormatError> {
    let too_short = FormatError::TooShort {
        expected: length_of(length),
        actual: length_of(bytes.len()),
    };
    let Some((covered, crc)) = bytes
        .get(..length)
        .and_then(|header| header.split_last_chunk::<4>())
    else {
        return Err(too_short);
    };
    let mut fields = Fields::new(covered);
    if fields.array::<8>()? != magic {
        return Err(FormatError::Magic { expected: what });
    }
    let version = fields.u32()?;
    if version != FORMAT_VERSION {
        return Err(FormatError::Version { actual: version });
    }
    check_crc32(covered, u32::from_le_bytes(*crc))?;
    Ok(fields)
}

pub(super) fn check_crc32(bytes: &[u8], expected: u32) -> Result<(), FormatError> {
    let actual = crc32fast::hash(bytes);
    if actual == expected {
        Ok(())
    } else {
        Err(FormatError::Checksum { expected, actual })
    }
}

/// Closes a header with the checksum of all before it.
pub(super) fn push_crc32(bytes: &mut Vec<u8>) {
    let crc32 = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc32.to_le_bytes());
}

pub(super) fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

//! Integers, identities and byte strings to and from the bytes of a file, and the frame that all headers share.

use super::{FORMAT_VERSION, FormatError};

/// What is left to read of a header or a body.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'bytes>(&'bytes [u8]);

impl<'bytes> Fields<'bytes> {
    pub(crate) fn new(bytes: &'bytes [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FormatError::TooShort {
            expected: length_of(N),
            actual: length_of(self.0.len()),
        })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes so many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'bytes [u8], FormatError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(FormatError::TooShort {
            expected: length_of(length),
            actual: length_of(self.0.len()),
        })?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes a length and so many bytes.
    pub(crate) fn byte_string(&mut self) -> Result<&'bytes [u8], FormatError> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Takes a length and so many bytes of UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'bytes str, FormatError> {
        std::str::from_utf8(self.byte_string()?).map_err(|_| FormatError::Bounds { field: "text" })
    }

    /// Takes a count and so many items of at least `least_bytes` each: a count that the bytes cannot hold is
    /// refused before anything is set aside for it.
    pub(crate) fn list<Item>(
        &mut self,
        least_bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<Item, FormatError>,
    ) -> Result<Vec<Item>, FormatError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > self.0.len() / least_bytes.max(1) {
            return Err(FormatError::Bounds { field: "count" });
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// Takes `N` bytes that must be zero.
    pub(crate) fn reserved<const N: usize>(&mut self) -> Result<(), FormatError> {
        self.rest_is_zero_in(N)
    }

    /// Takes so many bytes that must be zero.
    pub(crate) fn rest_is_zero_in(&mut self, length: usize) -> Result<(), FormatError> {
        if self.bytes(length)?.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err(FormatError::Bounds {
                field: "reserved bytes",
            })
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), FormatError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Bounds { field: "length" })
        }
    }
}

/// Bytes that are being put together.
#[derive(Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn array(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.array(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    pub(crate) fn zeroes(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len().saturating_add(count), 0);
        self
    }

    /// Zeroes up to `length` in all.
    pub(crate) fn fill_to(&mut self, length: usize) -> &mut Self {
        self.zeroes(length.saturating_sub(self.0.len()))
    }

    /// A length and the bytes.
    pub(crate) fn byte_string(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).array(bytes)
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A count and the items.
    pub(crate) fn list<Item>(
        &mut self,
        items: impl ExactSizeIterator<Item = Item>,
        mut each: impl FnMut(&mut Self, Item),
    ) -> &mut Self {
        self.count(items.len());
        for item in items {
            each(self, item);
        }
        self
    }

    /// Closes with the checksum of all before it.
    pub(crate) fn crc32(&mut self) -> &mut Self {
        let crc32 = crc32fast::hash(&self.0);
        self.u32(crc32)
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Begins a header: magic (8), version (4).
pub(crate) fn header(magic: [u8; 8]) -> Encoder {
    let mut header = Encoder::default();
    header.array(&magic).u32(FORMAT_VERSION);
    header
}

/// Checks what all headers of files have in common, and gives the fields between the version and the checksum:
/// magic (8), version (4), … , crc32 over all before it (4).
pub(crate) fn checked_header<'bytes>(
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

pub(crate) fn check_crc32(bytes: &[u8], expected: u32) -> Result<(), FormatError> {
    let actual = crc32fast::hash(bytes);
    if actual == expected {
        Ok(())
    } else {
        Err(FormatError::Checksum { expected, actual })
    }
}

pub(crate) fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

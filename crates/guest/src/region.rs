//! Reading a region: what each of its slots holds, without any opinion of what it should hold.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::{
    disk_layout::DiskRange,
    record::{Content, RECORD_BYTES, RECORD_LENGTH, Stream},
};

/// How much of a region is in memory at once.
const READ_BYTES: usize = 256 * RECORD_BYTES;

/// Bytes that can be read at any offset: an image, an export, a buffer.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When these bytes do not exist or cannot be read.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What every slot of a region holds, in the order of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionScan {
    /// The stream whose records belong here.
    pub stream: Stream,
    /// One content a slot.
    pub slots: Vec<Content>,
}

/// A region could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {length} bytes at {offset} of {stream:?}")]
pub struct ScanError {
    stream: Stream,
    offset: u64,
    length: usize,
    #[source]
    source: io::Error,
}

impl RegionScan {
    /// Reads the whole region that lies at `range` of `disk`.
    ///
    /// # Errors
    /// When the disk is shorter than the range, or cannot be read.
    pub fn read(disk: &impl ReadAt, range: DiskRange, stream: Stream) -> Result<Self, ScanError> {
        let mut slots = Vec::new();
        let end = range.offset + range.length - range.length % RECORD_LENGTH;
        let mut offset = range.offset;
        let mut buffer = vec![0; READ_BYTES];
        while offset < end {
            let length = usize::try_from(end - offset).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            buffer.truncate(length);
            disk.read_exact_at(&mut buffer, offset)
                .map_err(|source| ScanError {
                    stream,
                    offset,
                    length,
                    source,
                })?;
            slots.extend(buffer.chunks(RECORD_BYTES).map(Content::of));
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
        Ok(Self { stream, slots })
    }
}

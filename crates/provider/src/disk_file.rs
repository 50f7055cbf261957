//! A file or device that holds a disk's bytes as they are, read beside whoever writes it.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use farshore_blocks::Extent;
use rustix::{buffer::spare_capacity, fs::OFlags, io::pread};

/// What addresses, positions and lengths are multiples of where the page cache is gone past.
const ALIGNMENT: u64 = 4096;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Through the host's page cache.
    Cached,
    /// Past it, as a writer does that goes past it: what it wrote is seen for certain, and the cache is left to others.
    Direct,
}

/// An open one; cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskFile {
    file: Arc<File>,
    caching: Caching,
}

impl DiskFile {
    /// Opens it for reading.
    ///
    /// # Errors
    /// When it cannot be opened in this way.
    pub fn open(path: &Path, caching: Caching) -> io::Result<Self> {
        let flags = match caching {
            Caching::Cached => OFlags::empty(),
            Caching::Direct => OFlags::DIRECT,
        };
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Self {
            file: Arc::new(file),
            caching,
        })
    }

    /// One that is open already, to be read through the page cache.
    #[must_use]
    pub fn cached(file: File) -> Self {
        Self {
            file: Arc::new(file),
            caching: Caching::Cached,
        }
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The bytes of `extent`. It blocks.
    ///
    /// # Errors
    /// When they cannot be read, or the file ends before them.
    pub fn read(&self, extent: Extent) -> io::Result<Bytes> {
        match self.caching {
            Caching::Cached => self.read_cached(extent),
            Caching::Direct => self.read_direct(extent),
        }
    }

    /// As [`DiskFile::read`], on a thread for what blocks.
    ///
    /// # Errors
    /// As there.
    pub async fn read_beside(&self, extent: Extent) -> io::Result<Bytes> {
        let disk = self.clone();
        let read = tokio::task::spawn_blocking(move || disk.read(extent)).await;
        read.map_err(io::Error::other)?
    }

    fn read_cached(&self, extent: Extent) -> io::Result<Bytes> {
        let length = usize::try_from(extent.length().0).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(length);
        let mut at = extent.start().0;
        while bytes.len() < length {
            let read = match pread(&*self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            at = at.saturating_add(u64::try_from(read).map_err(io::Error::other)?);
        }
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    }

    /// Reads the whole units around `extent` into memory that is aligned as they are.
    fn read_direct(&self, extent: Extent) -> io::Result<Bytes> {
        let units = units_around(extent);
        let before = usize::try_from(extent.start().0 - units.start).map_err(io::Error::other)?;
        let wanted = usize::try_from(extent.length().0).map_err(io::Error::other)?;
        let length = usize::try_from(units.end - units.start).map_err(io::Error::other)?;
        let alignment = usize::try_from(ALIGNMENT).map_err(io::Error::other)?;
        let mut memory = vec![0; length.saturating_add(alignment)];
        let skipped = memory.as_ptr().align_offset(alignment).min(alignment);
        let aligned = memory
            .get_mut(skipped..skipped.saturating_add(length))
            .unwrap_or_default();
        let read = read_to_end_of(&self.file, aligned, units.start)?;
        if read < before.saturating_add(wanted) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = skipped.saturating_add(before);
        Ok(Bytes::from(memory).slice(start..start.saturating_add(wanted)))
    }
}

/// Fills `memory` as far as the file goes; gives how far.
fn read_to_end_of(file: &File, memory: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read: usize = 0;
    while let Some(rest) = memory.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(read).map_err(io::Error::other)?;
        match file.read_at(rest, position.saturating_add(at)) {
            Ok(0) => break,
            Ok(more) => read = read.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn units_around(extent: Extent) -> Range<u64> {
    let start = extent.start().0 / ALIGNMENT * ALIGNMENT;
    let end = extent.end().0;
    start..end.checked_next_multiple_of(ALIGNMENT).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use farshore_blocks::{ByteCount, ByteOffset};

    use super::*;

    fn extent(start: u64, length: u64) -> Extent {
        Extent::new(ByteOffset(start), ByteCount(length)).unwrap()
    }

    #[test]
    fn the_same_bytes_are_read_through_the_page_cache_and_past_it() {
        let directory = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let path = directory.path().join("disk");
        let content: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        for caching in [Caching::Cached, Caching::Direct] {
            let disk = DiskFile::open(&path, caching).unwrap();
            for (start, length) in [
                (0, 100_000),
                (0, 4096),
                (4096, 8192),
                (512, 512),
                (4095, 2),
                (98_304, 1696),
            ] {
                let read = disk.read(extent(start, length)).unwrap();
                let range = usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap();
                assert!(read == content[range], "{caching:?}: {length} at {start}");
            }
            for (start, length) in [(99_999, 2), (200_000, 512)] {
                let failed = disk.read(extent(start, length)).unwrap_err();
                assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof, "{caching:?}");
            }
        }
    }
}

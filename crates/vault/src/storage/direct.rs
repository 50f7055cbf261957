//! A file that is written past the page cache where the file system allows it.
//!
//! Buffered writes of a replica would push everything else out of the cache, and cost a copy and a write-back on
//! cores that have better things to do. What is not aligned, and what a file system refuses, is written buffered.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use super::{AlignedBuffer, Content, StoredFile, aligned::is_aligned, behind::WriteBehind, writable};

/// Writes of so many bytes are left to a thread of their own; smaller ones are over sooner than it wakes.
const LARGE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct DirectFile {
    buffered: File,
    direct: Option<File>,
    /// What writes large buffers meanwhile, once there was one.
    behind: Option<WriteBehind>,
}

impl DirectFile {
    pub(super) fn open(path: &Path, content: Content) -> io::Result<Self> {
        let buffered = writable(content).open(path)?;
        let flag = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = writable(Content::Kept).custom_flags(flag).open(path);
        Ok(Self {
            buffered,
            direct: direct.ok(),
            behind: None,
        })
    }

    /// The thread that writes large buffers; none where the file system does not take direct writes.
    fn behind(&mut self) -> Option<&WriteBehind> {
        if self.behind.is_none() {
            self.behind = Some(WriteBehind::new(self.direct.as_ref()?.try_clone().ok()?));
        }
        self.behind.as_ref()
    }

    fn drain(&self) -> io::Result<()> {
        self.behind.as_ref().map_or(Ok(()), WriteBehind::drain)
    }
}

impl StoredFile for DirectFile {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.drain()?;
        if let Some(direct) = self.direct.as_ref().filter(|_| is_aligned(bytes, position)) {
            match direct.write_all_at(bytes, position) {
                // Some file systems refuse only now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                other => return other,
            }
        }
        self.buffered.write_all_at(bytes, position)
    }

    fn write_buffer_at(&mut self, buffer: AlignedBuffer, position: u64) -> io::Result<()> {
        let large = buffer.bytes().len() >= LARGE_BYTES && is_aligned(buffer.bytes(), position);
        // The first write tells whether the file system takes direct writes at all.
        if !large || position == 0 {
            return self.write_at(buffer.bytes(), position);
        }
        match self.behind() {
            Some(behind) => behind.write(buffer, position),
            None => self.write_at(buffer.bytes(), position),
        }
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.drain()?;
        self.buffered.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.drain()?;
        self.buffered.sync_data()
    }
}

//! The seam through which a vault changes its directory, so that a test can cut the power between any two steps.
//!
//! Reading does not pass through it: what a reader sees after a crash is what the file system holds.

mod aligned;
mod behind;
mod direct;

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::files;
use rustix::fs::{AtFlags, StatxFlags, statx};

pub(crate) use aligned::AlignedBuffer;
use direct::DirectFile;

/// The file system refused or failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} `{}`", path.display())]
pub struct StorageError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl StorageError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether there was no room (or no quota) left: trying again helps once there is.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// What a vault does to directories.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// Creates a directory; one that is there already is left alone.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Opens a file for writing; it is created if it is not there, and emptied if `content` says so.
    fn open_file(&self, path: &Path, content: Content) -> io::Result<Box<dyn StoredFile>>;
    /// Opens a file for large aligned writes, past the page cache where the file system allows it.
    fn open_aligned(&self, path: &Path, content: Content) -> io::Result<Box<dyn StoredFile>>;
    /// Replaces a small file, durably and all or nothing, by content that knows the file that holds it.
    fn replace_file(&self, path: &Path, content: &dyn Fn(FileIdentity) -> Vec<u8>) -> io::Result<()>;
    /// Which file lies at a path.
    fn identity_of(&self, path: &Path) -> io::Result<FileIdentity>;
    /// Removes a file; durable once the directory is synced.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes creations and removals in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// What a vault does to a file that it writes.
pub(crate) trait StoredFile: fmt::Debug + Send {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// The same, perhaps behind the caller's back: what fails is then told by what follows, at the latest by a sync.
    fn write_buffer_at(&mut self, buffer: AlignedBuffer, position: u64) -> io::Result<()> {
        self.write_at(buffer.bytes(), position)
    }
    fn set_length(&mut self, length: u64) -> io::Result<()>;
    /// Makes content and length durable (not the name: that is the directory's).
    fn sync(&mut self) -> io::Result<()>;
}

/// Tells a file from a copy of it, on one file system. A file system that is restored block by block has it all the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) inode: u64,
    /// When the inode was made; 0 where the file system does not say.
    pub(crate) born_nanoseconds: u64,
}

/// What becomes of what a file already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Kept,
    Dropped,
}

/// The machine's own file system.
#[derive(Debug)]
pub(crate) struct LocalStorage;

impl Storage for LocalStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn open_file(&self, path: &Path, content: Content) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(writable(content).open(path)?))
    }

    fn open_aligned(&self, path: &Path, content: Content) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(DirectFile::open(path, content)?))
    }

    fn replace_file(&self, path: &Path, content: &dyn Fn(FileIdentity) -> Vec<u8>) -> io::Result<()> {
        files::replace_file_by(path, |file| Ok(content(identity_of(file)?)))
    }

    fn identity_of(&self, path: &Path) -> io::Result<FileIdentity> {
        identity_of(&File::open(path)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

fn writable(content: Content) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(content == Content::Dropped);
    options
}

fn identity_of(file: &File) -> io::Result<FileIdentity> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
    let known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    let seconds = u64::try_from(found.stx_btime.tv_sec).unwrap_or(0);
    let nanoseconds = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(found.stx_btime.tv_nsec));
    Ok(FileIdentity {
        inode: found.stx_ino,
        born_nanoseconds: if known { nanoseconds } else { 0 },
    })
}

impl StoredFile for File {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_all_at(bytes, position)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A storage whose errors say what was tried on which path.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<dyn Storage>);

/// A file of a [`Disk`], open for writing.
#[derive(Debug)]
pub(crate) struct DiskFile {
    path: PathBuf,
    file: Box<dyn StoredFile>,
}

impl Disk {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self(storage)
    }

    pub(crate) fn create_directory(&self, path: &Path) -> Result<(), StorageError> {
        self.0
            .create_directory(path)
            .map_err(|error| StorageError::new("create the directory", path, error))
    }

    pub(crate) fn open_file(&self, path: &Path, content: Content) -> Result<DiskFile, StorageError> {
        let file = self
            .0
            .open_file(path, content)
            .map_err(|error| StorageError::new("open for writing", path, error))?;
        Ok(DiskFile {
            path: path.to_owned(),
            file,
        })
    }

    /// Opens a file for large aligned writes.
    pub(crate) fn open_aligned(&self, path: &Path, content: Content) -> Result<DiskFile, StorageError> {
        let file = self
            .0
            .open_aligned(path, content)
            .map_err(|error| StorageError::new("open for writing", path, error))?;
        Ok(DiskFile {
            path: path.to_owned(),
            file,
        })
    }

    pub(crate) fn replace_file(
        &self,
        path: &Path,
        content: &dyn Fn(FileIdentity) -> Vec<u8>,
    ) -> Result<(), StorageError> {
        self.0
            .replace_file(path, content)
            .map_err(|error| StorageError::new("replace", path, error))
    }

    pub(crate) fn identity_of(&self, path: &Path) -> Result<FileIdentity, StorageError> {
        self.0
            .identity_of(path)
            .map_err(|error| StorageError::new("ask the identity of", path, error))
    }

    /// Removes a file; one that is not there is as good as removed.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        match self.0.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::new("remove", path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn sync_directory(&self, path: &Path) -> Result<(), StorageError> {
        self.0
            .sync_directory(path)
            .map_err(|error| StorageError::new("sync the directory", path, error))
    }
}

impl DiskFile {
    pub(crate) fn write_at(&mut self, bytes: &[u8], position: u64) -> Result<(), StorageError> {
        self.file
            .write_at(bytes, position)
            .map_err(|error| StorageError::new("write", &self.path, error))
    }

    /// As [`write_at`](Self::write_at), perhaps behind the caller's back.
    pub(crate) fn write_buffer_at(
        &mut self,
        buffer: AlignedBuffer,
        position: u64,
    ) -> Result<(), StorageError> {
        self.file
            .write_buffer_at(buffer, position)
            .map_err(|error| StorageError::new("write", &self.path, error))
    }

    pub(crate) fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        self.file
            .set_length(length)
            .map_err(|error| StorageError::new("set the length of", &self.path, error))
    }

    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.file
            .sync()
            .map_err(|error| StorageError::new("sync", &self.path, error))
    }
}

//! The seam through which a vault changes its directory, so that a test can cut the power between any two steps.
//!
//! Reading does not pass through it: what a reader sees after a crash is what the file system holds.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::files;

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
    /// Replaces a small file, durably and all or nothing.
    fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Removes a file; durable once the directory is synced.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes creations and removals in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// What a vault does to a file that it writes.
pub(crate) trait StoredFile: fmt::Debug + Send {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn set_length(&mut self, length: u64) -> io::Result<()>;
    /// Makes content and length durable (not the name: that is the directory's).
    fn sync(&mut self) -> io::Result<()>;
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
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(content == Content::Dropped)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        files::replace_file(path, content)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
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

    pub(crate) fn replace_file(&self, path: &Path, content: &[u8]) -> Result<(), StorageError> {
        self.0
            .replace_file(path, content)
            .map_err(|error| StorageError::new("replace", path, error))
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

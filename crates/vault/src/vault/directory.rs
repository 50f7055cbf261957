//! The vault's directory: whether it is one, whether it may become one, who has it locked, and how full it is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

use farshore_blocks::ByteCount;
use rustix::fs::{FlockOperation, flock};

use super::VaultError;
use crate::{damage::FileError, format::Head, layout::VaultLayout, storage::StorageError};

pub(crate) fn read_head(layout: &VaultLayout) -> Result<Head, VaultError> {
    let path = layout.head();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = layout.root().to_owned();
            return Err(VaultError::NotAVault { path });
        }
        Err(error) => return Err(StorageError::new("read", &path, error).into()),
    };
    Head::decode(&bytes).map_err(|error| FileError::damaged(&path, 0, error).into())
}

pub(super) fn parent_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

pub(super) fn take_lock(layout: &VaultLayout) -> Result<File, VaultError> {
    let path = layout.lock();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|error| StorageError::new("open", &path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(VaultError::Locked {
            path: layout.root().to_owned(),
        }),
        Err(error) => Err(StorageError::new("lock", &path, error.into()).into()),
    }
}

/// A directory may hold only what an interrupted creation left.
pub(super) fn refuse_foreign_content(path: &Path) -> Result<(), VaultError> {
    let failed = |error| StorageError::new("list", path, error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let ours = name == "lock" || name == "head.new";
        let empty_chains = name == "chains" && fs::read_dir(entry.path()).map_err(failed)?.next().is_none();
        if !ours && !empty_chains {
            let path = path.to_owned();
            return Err(VaultError::NotEmpty { path });
        }
    }
    Ok(())
}

/// How many bytes all files below a directory hold.
pub(super) fn bytes_below(directory: &Path) -> Result<ByteCount, StorageError> {
    let failed = |error| StorageError::new("list", directory, error);
    let mut total: u64 = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since it was listed: an abandoned cycle's segment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let bytes = if metadata.is_dir() {
            bytes_below(&entry.path())?.0
        } else {
            metadata.len()
        };
        total = total.saturating_add(bytes);
    }
    Ok(ByteCount(total))
}

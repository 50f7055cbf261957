//! The vault's directory: whether it is one, whether it may become one, who has it locked, and how full it is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    process,
    time::Duration,
};

use farshore_blocks::{ByteCount, Incarnation, clock::WallTime};
use rustix::fs::{FlockOperation, flock};

use super::VaultError;
use crate::{
    damage::{FileError, about_to_read},
    format::Head,
    layout::{VaultLayout, journal_generation},
    storage::{Disk, StorageError},
};

/// How often the lock is tried.
const LOCK_ATTEMPTS: u32 = 10;
/// How long between two attempts.
const LOCK_PATIENCE: Duration = Duration::from_millis(10);

pub(crate) fn read_head(layout: &VaultLayout) -> Result<Head, VaultError> {
    let path = layout.head();
    about_to_read(&path)?;
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

/// Writes a head that names the very file that holds it.
pub(super) fn write_head(
    disk: &Disk,
    layout: &VaultLayout,
    vault: Incarnation,
    incarnation: Incarnation,
) -> Result<Head, VaultError> {
    let created_at = WallTime::now();
    let head_in = |file| Head {
        vault,
        incarnation,
        created_at,
        file,
    };
    let path = layout.head();
    disk.replace_file(&path, &|file| head_in(file).encode())?;
    Ok(head_in(disk.identity_of(&path)?))
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
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // For whoever wants to know; nothing depends on it.
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.write_all_at(process::id().to_string().as_bytes(), 0));
                return Ok(file);
            }
            // A reader that looks whether a writer lives holds it for an instant.
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PATIENCE),
            Err(error) => return Err(StorageError::new("lock", &path, error.into()).into()),
        }
    }
    let process = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
    Err(VaultError::Locked {
        path: layout.root().to_owned(),
        process,
    })
}

/// A directory may hold only what an interrupted creation left.
pub(super) fn refuse_foreign_content(path: &Path) -> Result<(), VaultError> {
    let failed = |error| StorageError::new("list", path, error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let ours = name == "lock" || name == "head.new";
        let empty_chains = name == "chains" && fs::read_dir(entry.path()).map_err(failed)?.next().is_none();
        let first_journal = name == "journal" && holds_a_beginning(&entry.path()).map_err(failed)?;
        if !ours && !empty_chains && !first_journal {
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

/// Whether a directory of journals holds no more than what creating a vault puts there.
fn holds_a_beginning(journals: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(journals)? {
        if journal_generation(&entry?.path()) != Some(1) {
            return Ok(false);
        }
    }
    Ok(true)
}

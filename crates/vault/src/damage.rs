//! Why a file of the vault cannot be reached or believed.

#[cfg(test)]
pub(crate) mod faults;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{format::FormatError, storage::StorageError};

/// Bytes of a file are not those that were written.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is damaged at byte {position}", path.display())]
pub struct Damaged {
    /// Which file.
    pub path: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// What is wrong there.
    #[source]
    pub source: FormatError,
}

/// A file could not be reached, or its bytes not believed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The bytes are wrong.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl FileError {
    pub(crate) fn damaged(path: &Path, position: u64, source: FormatError) -> Self {
        Self::Damaged(Damaged {
            path: path.to_owned(),
            position,
            source,
        })
    }
}

/// Comes before every read of a file of the vault.
pub(crate) fn about_to_read(path: &Path) -> Result<(), StorageError> {
    #[cfg(test)]
    faults::pass(path)?;
    let _ = path;
    Ok(())
}

/// Fills `buffer` from `position`; an end of the file in it is damage, not a failure of the file system.
pub(crate) fn read_exactly(
    file: &File,
    path: &Path,
    buffer: &mut [u8],
    position: u64,
) -> Result<(), FileError> {
    about_to_read(path)?;
    match file.read_exact_at(buffer, position) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let actual = file
                .metadata()
                .map_err(|error| StorageError::new("ask the length of", path, error))?
                .len();
            let expected = position.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
            Err(FileError::damaged(
                path,
                position,
                FormatError::TooShort { expected, actual },
            ))
        }
        Err(error) => Err(StorageError::new("read", path, error).into()),
    }
}

//! Why a file of the vault cannot be reached or believed.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use crate::{
    format::{FormatError, Identity, RecordKind, decode_record},
    storage::StorageError,
};

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

/// Fills `buffer` from `position`; an end of the file in it is damage, not a failure of the file system.
pub(crate) fn read_exactly(
    file: &File,
    path: &Path,
    buffer: &mut [u8],
    position: u64,
) -> Result<(), FileError> {
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

/// Reads a file that is one record; `None` if there is no such file.
pub(crate) fn read_record<Body: DeserializeOwned>(
    path: &Path,
    kind: RecordKind,
    identity: Identity,
) -> Result<Option<Body>, FileError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::new("read", path, error).into()),
    };
    let decoded =
        decode_record(&bytes, kind, identity).map_err(|error| FileError::damaged(path, 0, error))?;
    if decoded.length != bytes.len() || decoded.ordinal != 0 {
        return Err(FileError::damaged(
            path,
            0,
            FormatError::Bounds { field: "length" },
        ));
    }
    Ok(Some(decoded.body))
}

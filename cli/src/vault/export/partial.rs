//! An image that is being written: under another name, beside the one that it takes once it is whole.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use farshore_blocks::files::sync_directory_of;
use tempfile::NamedTempFile;

use crate::exit::CliError;

/// The file; it is gone when this is dropped before it was persisted.
#[derive(Debug)]
pub(super) struct Partial {
    file: NamedTempFile,
}

impl Partial {
    /// Makes it in the directory of `path`, so that it can take that name. Only its owner may read it: it is a disk.
    pub(super) fn beside(path: &Path) -> Result<Self, CliError> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .tempfile_in(directory);
        let file = file.map_err(|source| failed("create a file in", directory, source))?;
        Ok(Self { file })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<(), CliError> {
        let synced = self.file().sync_all();
        synced.map_err(|source| failed("sync", self.path(), source))
    }

    /// Takes its name, durably; an existing file only if `force` says so.
    pub(super) fn persist(self, path: &Path, force: bool) -> Result<(), CliError> {
        let persisted = if force {
            self.file.persist(path)
        } else {
            self.file.persist_noclobber(path)
        };
        match persisted {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(path)),
            Err(error) => return Err(failed("create", path, error.error)),
        }
        sync_directory_of(path).map_err(|source| failed("sync the directory of", path, source))
    }
}

/// That the file is there, and what would be accepted.
pub(super) fn exists(path: &Path) -> CliError {
    CliError::Refused {
        message: format!(
            "{} exists: name another file, or say --force to replace it",
            path.display()
        ),
        reason: "exists".to_owned(),
    }
}

/// Makes the directory of all images; one that is there is used.
pub(super) fn make_directory(path: &Path) -> Result<(), CliError> {
    fs::create_dir_all(path).map_err(|source| failed("create the directory", path, source))
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> CliError {
    CliError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

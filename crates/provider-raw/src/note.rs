//! What is remembered of disks between processes: how they looked when a scan of them began, or when a point was taken.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use farshore_blocks::{Sequence, files::replace_file};
use serde::{Deserialize, Serialize};

use crate::disk::Stamp;

/// Towards or since which point the disks looked like this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Known {
    /// When the scan towards this point began.
    Scan(Sequence, Vec<Stamp>),
    /// In this point.
    Since(Sequence, Vec<Stamp>),
}

/// The file in which it is noted. It is a hint: without it everything is compared once more.
#[derive(Debug)]
pub(crate) struct Note {
    path: PathBuf,
}

impl Note {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join("disks.json"),
        }
    }

    /// What cannot be read counts as nothing.
    pub(crate) fn read(&self) -> Option<Known> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    pub(crate) fn write(&self, known: &Known) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        replace_file(&self.path, &serde_json::to_vec(known)?)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

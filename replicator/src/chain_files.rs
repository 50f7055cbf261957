//! What is kept of each chain in the state directory: one JSON file per chain, replaced as a whole, so that a crash
//! leaves the old content or the new.

use std::{
    fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use farshore_blocks::{ChainId, files::replace_file};
use serde::{Serialize, de::DeserializeOwned};

/// Why what is kept of chains could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ChainFileError {
    /// The file system failed.
    #[error("state file {path} cannot be used")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("state file {path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file is named after no chain.
    #[error("state file {path} is not named after a chain")]
    Misnamed {
        /// Which file.
        path: PathBuf,
    },
}

/// A directory of such files.
#[derive(Debug)]
pub(crate) struct ChainFiles<Kept> {
    directory: PathBuf,
    kept: PhantomData<fn() -> Kept>,
}

impl<Kept> Clone for ChainFiles<Kept> {
    fn clone(&self) -> Self {
        Self {
            directory: self.directory.clone(),
            kept: PhantomData,
        }
    }
}

impl<Kept: Serialize + DeserializeOwned> ChainFiles<Kept> {
    /// Opens `directory`, making it if it is new.
    pub(crate) fn open(directory: PathBuf) -> Result<Self, ChainFileError> {
        fs::create_dir_all(&directory).map_err(|source| ChainFileError::Io {
            path: directory.clone(),
            source,
        })?;
        Ok(Self {
            directory,
            kept: PhantomData,
        })
    }

    /// All that is kept, in the order of chains.
    pub(crate) fn load(&self) -> Result<Vec<(ChainId, Kept)>, ChainFileError> {
        let unusable = |source| ChainFileError::Io {
            path: self.directory.clone(),
            source,
        };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(unusable)? {
            let path = entry.map_err(unusable)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                all.push((chain_of(&path)?, read(&path)?));
            }
        }
        all.sort_by_key(|(chain, _)| *chain);
        Ok(all)
    }

    /// What is kept of `chain`.
    pub(crate) fn load_one(&self, chain: ChainId) -> Result<Option<Kept>, ChainFileError> {
        match read(&self.path(chain)) {
            Err(ChainFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Keeps this of `chain`, durably, in place of what was kept before.
    pub(crate) fn keep(&self, chain: ChainId, kept: &Kept) -> Result<(), ChainFileError> {
        let path = self.path(chain);
        let text = serde_json::to_vec_pretty(kept).map_err(|source| ChainFileError::Damaged {
            path: path.clone(),
            source,
        })?;
        replace_file(&path, &text).map_err(|source| ChainFileError::Io { path, source })
    }

    /// Forgets what is kept of `chain`, if anything is.
    pub(crate) fn forget(&self, chain: ChainId) -> Result<(), ChainFileError> {
        let path = self.path(chain);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ChainFileError::Io { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, chain: ChainId) -> PathBuf {
        self.directory.join(format!("{chain}.json"))
    }
}

fn chain_of(path: &Path) -> Result<ChainId, ChainFileError> {
    let name = path.file_stem().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok())
        .ok_or_else(|| ChainFileError::Misnamed {
            path: path.to_owned(),
        })
}

fn read<Kept: DeserializeOwned>(path: &Path) -> Result<Kept, ChainFileError> {
    let text = fs::read(path).map_err(|source| ChainFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| ChainFileError::Damaged {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainId = ChainId::from_bytes([3; 16]);

    #[test]
    fn what_is_kept_is_there_after_a_restart_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let open = || ChainFiles::<u32>::open(directory.path().join("numbers")).unwrap();
        open().keep(CHAIN, &4).unwrap();
        open().keep(CHAIN, &5).unwrap();
        assert_eq!(open().load().unwrap(), [(CHAIN, 5)]);
        open().forget(CHAIN).unwrap();
        open().forget(CHAIN).unwrap();
        assert_eq!(open().load().unwrap(), []);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = ChainFiles::<u32>::open(directory.path().to_owned()).unwrap();
        fs::write(directory.path().join(format!("{CHAIN}.json")), "four").unwrap();
        assert!(files.load().unwrap_err().to_string().contains(&CHAIN.to_string()));
        fs::write(directory.path().join("four.json"), "4").unwrap();
        assert!(files.load().is_err());
    }
}

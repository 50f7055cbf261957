//! What this replicator was told to protect, kept on disk so that it goes on without an orchestrator.
//!
//! One JSON file per chain in `<state directory>/assignments/`, replaced as a whole; a crash leaves the old
//! content or the new.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use farshore_blocks::{ByteCount, ChainId, Epoch, files::replace_file};
use farshore_provider::MachineSpecification;
use serde::{Deserialize, Serialize};

/// Whether replication runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Standing {
    /// Assigned; not enabled yet.
    Installed,
    /// Replicating.
    Enabled,
    /// The target has refused this epoch for good.
    Fenced,
}

/// One volume, with the size that it had when it was assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AssignedVolume {
    pub(crate) name: String,
    pub(crate) size: ByteCount,
}

/// One protected VM, as its source's replicator must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Assignment {
    pub(crate) chain: ChainId,
    pub(crate) epoch: Epoch,
    pub(crate) standing: Standing,
    pub(crate) machine: MachineSpecification,
    pub(crate) monitor: PathBuf,
    pub(crate) target_endpoint: String,
    pub(crate) interval: Duration,
    /// Bytes a second; `None` is not limited.
    pub(crate) bandwidth: Option<ByteCount>,
    pub(crate) volumes: Vec<AssignedVolume>,
}

/// Why assignments could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum AssignmentError {
    /// The file system failed.
    #[error("assignment file {path} cannot be used")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("assignment file {path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

/// The directory of assignments.
#[derive(Debug, Clone)]
pub(crate) struct AssignmentStore {
    directory: PathBuf,
}

impl AssignmentStore {
    /// Opens the store under `state_directory`, making it if it is new.
    pub(crate) fn open(state_directory: &Path) -> Result<Self, AssignmentError> {
        let directory = state_directory.join("assignments");
        fs::create_dir_all(&directory).map_err(|source| AssignmentError::Io {
            path: directory.clone(),
            source,
        })?;
        Ok(Self { directory })
    }

    /// Every assignment, in the order of chains.
    pub(crate) fn load(&self) -> Result<Vec<Assignment>, AssignmentError> {
        let unusable = |source| AssignmentError::Io {
            path: self.directory.clone(),
            source,
        };
        let mut assignments = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(unusable)? {
            let path = entry.map_err(unusable)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                assignments.push(read(&path)?);
            }
        }
        assignments.sort_by_key(|assignment| assignment.chain);
        Ok(assignments)
    }

    /// Keeps `assignment`, durably, in place of an earlier one of its chain.
    pub(crate) fn keep(&self, assignment: &Assignment) -> Result<(), AssignmentError> {
        let path = self.path(assignment.chain);
        let text = serde_json::to_vec_pretty(assignment).map_err(|source| AssignmentError::Damaged {
            path: path.clone(),
            source,
        })?;
        replace_file(&path, &text).map_err(|source| AssignmentError::Io { path, source })
    }

    /// Forgets the assignment of `chain`, if there is one.
    pub(crate) fn forget(&self, chain: ChainId) -> Result<(), AssignmentError> {
        let path = self.path(chain);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(AssignmentError::Io { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, chain: ChainId) -> PathBuf {
        self.directory.join(format!("{chain}.json"))
    }
}

fn read(path: &Path) -> Result<Assignment, AssignmentError> {
    let text = fs::read(path).map_err(|source| AssignmentError::Io {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| AssignmentError::Damaged {
        path: path.to_owned(),
        source,
    })
}

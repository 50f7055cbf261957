//! What a failover from a vault has done so far, so that a repetition goes on from there: `failovers/<id>.json` below
//! the directory of recovered VMs.
//!
//! | in the file | written | after a crash |
//! |---|---|---|
//! | the holder's nonce | before the fence | the same holder is granted the same epoch again |
//! | epoch, point and network | after the fence, before the VM | the VM is started from the same point |

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use farshore_blocks::{ChainId, Epoch, HolderNonce, Sequence, files::replace_file};
use farshore_provider::{NetworkAttachment, RecoveryId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::exit::CliError;

const DIRECTORY: &str = "failovers";

/// A failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct FailoverRecord {
    /// Absolute.
    pub(in crate::vault) vault: PathBuf,
    pub(in crate::vault) chain: ChainId,
    pub(in crate::vault) vm: String,
    /// To whom the chain is granted.
    pub(in crate::vault) holder: HolderNonce,
    /// Once it was granted.
    pub(in crate::vault) tenure: Option<Tenure>,
}

/// What was granted and what was started with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct Tenure {
    pub(in crate::vault) epoch: Epoch,
    pub(in crate::vault) sequence: Sequence,
    pub(in crate::vault) network: NetworkAttachment,
}

/// The record's file, held by one process at a time.
#[derive(Debug)]
pub(in crate::vault) struct RecordFile {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl RecordFile {
    /// Takes the record of `id` below `into`.
    pub(in crate::vault) fn take(into: &Path, id: &RecoveryId) -> Result<Self, CliError> {
        let directory = into.join(DIRECTORY);
        fs::create_dir_all(&directory)
            .map_err(|source| failed("create the directory", &directory, source))?;
        let lock_path = directory.join(format!("{id}.lock"));
        let lock = File::create(&lock_path).map_err(|source| failed("create", &lock_path, source))?;
        // A lock on a file that its last holder has removed keeps nobody away.
        let is_there = || {
            let there = fs::metadata(&lock_path).ok().map(|there| there.ino());
            there.is_some() && there == lock.metadata().ok().map(|ours| ours.ino())
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() || !is_there() {
            return Err(CliError::Refused {
                message: format!("another `vault failover` of `{id}` is under way: wait for its end"),
                reason: "in-use".to_owned(),
            });
        }
        Ok(Self {
            path: directory.join(format!("{id}.json")),
            lock_path,
            _lock: lock,
        })
    }

    /// What it says, if anything was done.
    pub(in crate::vault) fn load(&self) -> Result<Option<FailoverRecord>, CliError> {
        load(&self.path)
    }

    /// Makes it durable.
    pub(in crate::vault) fn save(&self, record: &FailoverRecord) -> Result<(), CliError> {
        let text = serde_json::to_vec_pretty(record).map_err(|error| CliError::Part(error.into()))?;
        replace_file(&self.path, &text).map_err(|source| failed("write", &self.path, source))
    }

    /// Forgets the failover.
    pub(in crate::vault) fn remove(self) -> Result<(), CliError> {
        for path in [&self.path, &self.lock_path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|source| failed("remove", path, source))?,
            }
        }
        Ok(())
    }
}

/// All failovers below `into`.
pub(super) fn all(into: &Path) -> Result<Vec<(RecoveryId, FailoverRecord)>, CliError> {
    let directory = into.join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| failed("list", &directory, source))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed("list", &directory, source))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(id) = name.strip_suffix(".json").and_then(RecoveryId::new) else {
            continue;
        };
        records.extend(load(&path)?.map(|record| (id, record)));
    }
    Ok(records)
}

fn load(path: &Path) -> Result<Option<FailoverRecord>, CliError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed("understand", path, error.into())),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> CliError {
    CliError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FailoverRecord {
        FailoverRecord {
            vault: "/v".into(),
            chain: ChainId::from_bytes([3; 16]),
            vm: "db".to_owned(),
            holder: HolderNonce::from_bytes([4; 16]),
            tenure: Some(Tenure {
                epoch: Epoch {
                    number: 2,
                    holder: HolderNonce::from_bytes([4; 16]),
                },
                sequence: Sequence(7),
                network: NetworkAttachment::Bridge {
                    bridge: "prod0".to_owned(),
                },
            }),
        }
    }

    #[test]
    fn a_record_is_found_again_until_it_is_removed() {
        let into = tempfile::tempdir().unwrap();
        let id = RecoveryId::new("db-03030303").unwrap();
        assert_eq!(all(into.path()).unwrap(), []);
        let file = RecordFile::take(into.path(), &id).unwrap();
        assert_eq!(file.load().unwrap(), None);
        file.save(&record()).unwrap();
        assert_eq!(file.load().unwrap(), Some(record()));
        assert_eq!(all(into.path()).unwrap(), [(id, record())]);
        file.remove().unwrap();
        assert_eq!(fs::read_dir(into.path().join(DIRECTORY)).unwrap().count(), 0);
    }

    #[test]
    fn one_process_has_a_record_at_a_time() {
        let into = tempfile::tempdir().unwrap();
        let id = RecoveryId::new("db-03030303").unwrap();
        let file = RecordFile::take(into.path(), &id).unwrap();
        assert_eq!(RecordFile::take(into.path(), &id).unwrap_err().exit_status(), 3);
        drop(file);
        RecordFile::take(into.path(), &id).unwrap();
    }
}

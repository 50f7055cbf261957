//! The fence of one chain: its durable epoch. A write lands only under exactly that epoch.
//!
//! Whoever writes holds the fence for as long as the write takes, and a grant waits for that: once a grant has
//! returned, nothing of an older epoch lands any more.

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use farshore_blocks::{Epoch, HolderNonce};

use crate::{
    damage::{FileError, read_record},
    format::{FormatError, Identity, RecordKind, encode_record},
    storage::Disk,
};

/// A write came under an epoch that is not the chain's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a write under epoch {given} is refused: {}", accepted(.current.as_ref()))]
pub struct WrongEpoch {
    /// The epoch of the write.
    pub given: Epoch,
    /// The epoch that is accepted, if one was ever granted.
    pub current: Option<Epoch>,
}

fn accepted(current: Option<&Epoch>) -> String {
    match current {
        Some(current) => format!("only epoch {current} is accepted"),
        None => "no epoch was granted yet".to_owned(),
    }
}

/// The durable epoch of one chain.
#[derive(Debug)]
pub(crate) struct Fence {
    path: PathBuf,
    identity: Identity,
    disk: Disk,
    epoch: RwLock<Option<Epoch>>,
}

impl Fence {
    /// Reads the epoch from `path` in the chain's `directory`, and makes sure that what it read is durable: a
    /// grant that was stopped in between may have left it visible and no more.
    pub(crate) fn load(
        directory: &Path,
        path: PathBuf,
        identity: Identity,
        disk: Disk,
    ) -> Result<Self, FileError> {
        disk.sync_directory(directory)?;
        let epoch = read_record(&path, RecordKind::Epoch, identity)?;
        Ok(Self {
            path,
            identity,
            disk,
            epoch: RwLock::new(epoch),
        })
    }

    pub(crate) fn current(&self) -> Option<Epoch> {
        *self.epoch.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants the next epoch; it is durable before this returns. Who holds the newest one already keeps it.
    pub(crate) fn grant(&self, holder: HolderNonce) -> Result<Epoch, FileError> {
        let mut current = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = current.filter(|epoch| epoch.holder == holder) {
            return Ok(held);
        }
        let number = current.map_or(Some(1), |epoch| epoch.number.checked_add(1));
        let exhausted = || {
            FileError::damaged(
                &self.path,
                0,
                FormatError::Bounds {
                    field: "epoch number",
                },
            )
        };
        let granted = Epoch {
            number: number.ok_or_else(exhausted)?,
            holder,
        };
        let record = encode_record(RecordKind::Epoch, self.identity, 0, &granted)
            .map_err(|error| FileError::damaged(&self.path, 0, error))?;
        self.disk.replace_file(&self.path, &record)?;
        *current = Some(granted);
        Ok(granted)
    }

    /// Lets a write under `given` pass and keeps the epoch as it is until what is returned is dropped.
    pub(crate) fn admit(&self, given: Epoch) -> Result<RwLockReadGuard<'_, Option<Epoch>>, WrongEpoch> {
        let current = self.epoch.read().unwrap_or_else(PoisonError::into_inner);
        if current.is_some_and(|current| given.may_write(&current)) {
            Ok(current)
        } else {
            Err(WrongEpoch {
                given,
                current: *current,
            })
        }
    }
}

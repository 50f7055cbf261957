//! The fence of one chain: its durable epoch. A write lands only under exactly that epoch.
//!
//! Whoever writes holds the fence for as long as the write takes, and a grant waits for that: once a grant has
//! returned, nothing of an older epoch lands any more.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use farshore_blocks::{ChainId, Epoch, HolderNonce};

use crate::{
    edit::{ChainEdit, Edit},
    journal::{CommitError, Committer},
    storage::StorageError,
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
    chain: ChainId,
    committer: Arc<Committer>,
    epoch: RwLock<Option<Epoch>>,
}

impl Fence {
    pub(crate) fn new(chain: ChainId, committer: Arc<Committer>, epoch: Option<Epoch>) -> Self {
        Self {
            chain,
            committer,
            epoch: RwLock::new(epoch),
        }
    }

    pub(crate) fn current(&self) -> Option<Epoch> {
        *self.epoch.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants the next epoch; it is durable before this returns. Who holds the newest one already keeps it.
    pub(crate) fn grant(&self, holder: HolderNonce) -> Result<Epoch, StorageError> {
        let mut current = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = current.filter(|epoch| epoch.holder == holder) {
            self.committer.confirm()?;
            return Ok(held);
        }
        let number = current.map_or(1, |epoch| epoch.number.saturating_add(1));
        let granted = Epoch { number, holder };
        let edit = ChainEdit::EpochGranted(granted);
        let committed = self.committer.commit(vec![Edit::from((self.chain, edit))]);
        if committed.as_ref().err().is_none_or(CommitError::happened) {
            *current = Some(granted);
        }
        Ok(committed.map(|()| granted)?)
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

//! By what the points of each chain are kept, as the orchestrator told it, on disk so that it holds without one.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::ChainId;
use farshore_vault::{RetentionPolicy, VaultError};

use super::TargetsError;
use crate::chain_files::{ChainFileError, ChainFiles};

/// The policies that were told, in `<state directory>/retention/`; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Retentions {
    files: ChainFiles<RetentionPolicy>,
    told: Arc<Mutex<BTreeMap<ChainId, RetentionPolicy>>>,
}

impl Retentions {
    pub(super) fn open(state_directory: &Path) -> Result<Self, ChainFileError> {
        let files = ChainFiles::open(state_directory.join("retention"))?;
        let told = files.load()?.into_iter().collect();
        Ok(Self {
            files,
            told: Arc::new(Mutex::new(told)),
        })
    }

    pub(super) fn of(&self, chain: ChainId) -> Option<RetentionPolicy> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&chain).cloned()
    }

    /// What is on disk changes first: nothing is told that a restart forgets. One change at a time, so that what was told last
    /// is what is on disk.
    pub(super) fn set(
        &self,
        chain: ChainId,
        policy: RetentionPolicy,
        tell: impl FnOnce(&RetentionPolicy) -> Result<(), VaultError>,
    ) -> Result<(), TargetsError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&chain) == Some(&policy) {
            return Ok(());
        }
        self.files.keep(chain, &policy)?;
        tell(&policy)?;
        told.insert(chain, policy);
        Ok(())
    }
}

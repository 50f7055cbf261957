//! The target's side of replication: the vault, who is writing which chain, what is kept of it, and the gRPC service that
//! sources dial.

mod refusal;
mod retention;
mod seats;
mod service;
mod session;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::{ChainId, Epoch, HolderNonce, Incarnation, clock::WallTime};
use farshore_vault::{ChainDescription, PointRecord, RetentionPolicy, Vault, VaultError, VaultReader};

use crate::chain_files::ChainFileError;
use retention::Retentions;
use seats::Seats;
pub(crate) use service::ReplicationService;

/// A replicator's vault and what is known of its chains; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    vault: Vault,
    seats: Seats,
    retentions: Retentions,
    known: Arc<Mutex<BTreeMap<ChainId, ChainStanding>>>,
}

/// What is shown of one chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChainStanding {
    pub(crate) vm: String,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) points: u64,
    pub(crate) newest: Option<PointRecord>,
    /// In this machine's clock; never before the newest point's instant, never better than the truth.
    pub(crate) valid_through: Option<WallTime>,
    pub(crate) source_connected: bool,
    /// How often a fenced source was refused since this process began.
    pub(crate) refused_fenced: u64,
}

/// Why the target's side could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetsError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    State(#[from] ChainFileError),
}

impl Targets {
    /// Takes the vault over, looks at every chain once, and tells the vault again what was told of retention before.
    pub(crate) fn open(vault: Vault, state_directory: &Path) -> Result<Self, TargetsError> {
        let targets = Self {
            vault,
            seats: Seats::default(),
            retentions: Retentions::open(state_directory)?,
            known: Arc::new(Mutex::new(BTreeMap::new())),
        };
        for (chain, description) in targets.vault.chains()? {
            targets.look_at(chain, &description)?;
            if let Some(policy) = targets.retention(chain) {
                targets.tell_vault(chain, &policy)?;
            }
        }
        Ok(targets)
    }

    /// Keeps the points of `chain` by `policy` from now on, also after a restart. Again with the same policy changes
    /// nothing.
    pub(crate) fn set_retention(&self, chain: ChainId, policy: RetentionPolicy) -> Result<(), TargetsError> {
        if !self.knows(chain) {
            return Err(VaultError::UnknownChain(chain).into());
        }
        self.retentions
            .set(chain, policy, |policy| self.tell_vault(chain, policy))
    }

    /// By what the points of `chain` are kept; `None` while it was told nothing, and then all of them are.
    pub(crate) fn retention(&self, chain: ChainId) -> Option<RetentionPolicy> {
        self.retentions.of(chain)
    }

    /// The one place where the vault learns by what a chain's points are kept: at every start, and at every change.
    fn tell_vault(&self, chain: ChainId, policy: &RetentionPolicy) -> Result<(), VaultError> {
        tracing::info!(vault = %self.incarnation(), %chain, ?policy, "the retention of a chain is set");
        Ok(())
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.vault.incarnation()
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    pub(crate) fn reader(&self) -> VaultReader {
        self.vault.reader()
    }

    /// Makes room for a chain and grants its epoch; the same holder gets the same epoch again.
    pub(crate) fn prepare(
        &self,
        chain: ChainId,
        description: &ChainDescription,
        holder: HolderNonce,
    ) -> Result<Epoch, VaultError> {
        self.vault.create_chain(chain, description)?;
        let epoch = self.vault.grant_epoch(chain, holder)?;
        self.look_at(chain, description)?;
        Ok(epoch)
    }

    /// Grants the chain to `holder`: whoever wrote it before is refused from then on.
    pub(crate) fn fence(&self, chain: ChainId, holder: HolderNonce) -> Result<Epoch, VaultError> {
        let epoch = self.vault.grant_epoch(chain, holder)?;
        self.change(chain, |standing| standing.epoch = Some(epoch));
        Ok(epoch)
    }

    /// What is known of every chain.
    pub(crate) fn standings(&self) -> Vec<(ChainId, ChainStanding)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .map(|(chain, standing)| (*chain, standing.clone()))
            .collect()
    }

    fn look_at(&self, chain: ChainId, description: &ChainDescription) -> Result<(), VaultError> {
        let points = self.vault.reader().points(chain)?;
        let newest = points.last().cloned();
        let standing = ChainStanding {
            vm: description.vm.clone(),
            epoch: self.vault.current_epoch(chain)?,
            points: u64::try_from(points.len()).unwrap_or(u64::MAX),
            valid_through: newest.as_ref().map(instant_here),
            newest,
            source_connected: false,
            refused_fenced: 0,
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(chain, standing);
        Ok(())
    }

    fn knows(&self, chain: ChainId) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(&chain)
    }

    fn change(&self, chain: ChainId, change: impl FnOnce(&mut ChainStanding)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = known.get_mut(&chain) {
            change(standing);
        }
    }

    fn sealed(&self, chain: ChainId, point: &PointRecord) {
        self.change(chain, |standing| {
            let known = standing.newest.as_ref().map(|newest| newest.sequence);
            if known < Some(point.sequence) {
                standing.points = standing.points.saturating_add(1);
                standing.valid_through = standing.valid_through.max(Some(instant_here(point)));
                standing.newest = Some(point.clone());
            }
        });
    }
}

/// When the point's instant was by this machine's clock, at the earliest: its data is at most this old.
fn instant_here(point: &PointRecord) -> WallTime {
    earliest_here(
        point.captured_at,
        point.clock_offset_nanoseconds,
        point.clock_uncertainty,
    )
}

/// A time of the source's clock in this machine's clock, less the uncertainty. `offset_nanoseconds` is the source's
/// clock less this one's.
fn earliest_here(there: WallTime, offset_nanoseconds: i64, uncertainty: std::time::Duration) -> WallTime {
    let uncertain = i128::try_from(uncertainty.as_nanos()).unwrap_or(i128::MAX);
    let here = i128::from(there.0)
        .saturating_sub(i128::from(offset_nanoseconds))
        .saturating_sub(uncertain);
    WallTime(u64::try_from(here.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;

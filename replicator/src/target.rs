//! The target's side of replication: the vault, who is writing which chain, and the gRPC service that sources dial.

mod refusal;
mod seats;
mod service;
mod session;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::{ChainId, Epoch, HolderNonce, Incarnation, clock::WallTime};
use farshore_vault::{ChainDescription, PointRecord, Vault, VaultError, VaultReader};

use seats::Seats;
pub(crate) use service::ReplicationService;

/// A replicator's vault and what is known of its chains; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    vault: Vault,
    seats: Seats,
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

impl Targets {
    /// Takes the vault over and looks at every chain once.
    pub(crate) fn new(vault: Vault) -> Result<Self, VaultError> {
        let targets = Self {
            vault,
            seats: Seats::default(),
            known: Arc::new(Mutex::new(BTreeMap::new())),
        };
        for (chain, description) in targets.vault.chains()? {
            targets.look_at(chain, &description)?;
        }
        Ok(targets)
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

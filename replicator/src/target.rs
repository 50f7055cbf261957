//! The target's side of replication: the vault, who is writing which chain, what is kept of it and what of that is
//! damaged, the vault's upkeep, and the gRPC service that sources dial.

mod carriers;
mod comparing;
mod damage;
mod dialling;
mod fence_requests;
mod refusal;
mod retention;
mod seats;
mod seeds;
mod service;
mod session;
mod upkeep;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farshore_blocks::{ChainId, Epoch, HolderNonce, Incarnation, Sequence, clock::WallTime};
use farshore_transfer::Shares;
use farshore_vault::{
    ChainDescription, Pin, PinRefused, PointRecord, RetentionPolicy, Vault, VaultError, VaultReader,
};

use crate::chain_files::ChainFileError;
use damage::Damages;
pub(crate) use damage::{ChainDamage, DamagedPlace, NewestNeeds};
pub(crate) use dialling::{DialledSource, Dialling, DiallingError};
pub(crate) use fence_requests::answer as answer_fence_requests;
use retention::Retentions;
use seats::Seats;
use seeds::Seeds;
pub(crate) use seeds::{ChainSeeds, check as check_seed};
pub(crate) use service::ReplicationService;
pub(crate) use upkeep::Upkeep;

/// How often at most the vault is told that a chain's newest point still is what the source holds: each time costs
/// a sync, and only a restarted replicator needs it.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);

/// A replicator's vault and what is known of its chains; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    vault: Vault,
    reader: VaultReader,
    seats: Seats,
    retentions: Retentions,
    seeds: Seeds,
    damages: Damages,
    /// What all sources together may have under way.
    windows: Shares,
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
    /// What of that the vault was told last.
    pub(crate) noted: Option<WallTime>,
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
            reader: vault.reader()?,
            vault,
            seats: Seats::default(),
            retentions: Retentions::open(state_directory)?,
            seeds: Seeds::open(state_directory)?,
            damages: Damages::open(state_directory)?,
            windows: Shares::within(session::WINDOWS),
            known: Arc::new(Mutex::new(BTreeMap::new())),
        };
        for (chain, description) in targets.vault.chains() {
            targets.look_at(chain, &description)?;
            if targets.newest(chain).is_some() {
                // A crash may have come between a first seal and this.
                targets.seeds.forget(chain)?;
            }
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
        self.vault.set_retention(chain, policy)
    }

    /// Keeps a point whatever the policy says, or no longer.
    pub(crate) fn set_pin(
        &self,
        chain: ChainId,
        point: Sequence,
        pin: Option<Pin>,
    ) -> Result<(), PinRefused> {
        match pin {
            Some(pin) => self.vault.pin(chain, point, pin),
            None => self.vault.unpin(chain, point),
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.vault.incarnation()
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// One reader for all, so that the journal is read once.
    pub(crate) fn reader(&self) -> &VaultReader {
        &self.reader
    }

    /// What the scrub found of `chain`.
    pub(crate) fn damage(&self, chain: ChainId) -> ChainDamage {
        self.damages.of(chain)
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

    /// Sees what the vault has of a chain. Of what only this process knows nothing changes.
    fn look_at(&self, chain: ChainId, description: &ChainDescription) -> Result<(), VaultError> {
        // Held while the vault is asked, so that what is sealed meanwhile is taken in after this, and counted once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let points = self.reader.points(chain)?;
        let noted = self.reader.still_valid(chain)?;
        let standing = match known.entry(chain) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(ChainStanding {
                vm: description.vm.clone(),
                epoch: None,
                points: 0,
                newest: None,
                valid_through: None,
                noted,
                source_connected: false,
                refused_fenced: 0,
            }),
        };
        standing.epoch = self.vault.current_epoch(chain)?;
        standing.points = u64::try_from(points.len()).unwrap_or(u64::MAX);
        standing.newest = points.into_iter().next_back();
        if let Some(newest) = &standing.newest {
            let known = standing.valid_through.max(noted);
            standing.valid_through = known.max(Some(instant_here(newest)));
        }
        Ok(())
    }

    fn newest(&self, chain: ChainId) -> Option<Sequence> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&chain)?.newest.as_ref().map(|newest| newest.sequence)
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

    /// The source still held at `here`, by this machine's clock, what its point `newest` has. The vault is told now and
    /// then.
    fn still_valid(&self, chain: ChainId, newest: Option<Sequence>, here: WallTime) {
        let mut due = None;
        self.change(chain, |standing| {
            standing.valid_through = standing.valid_through.max(Some(here));
            if standing
                .noted
                .is_none_or(|noted| here.since(noted) >= NOTE_INTERVAL)
            {
                standing.noted = Some(here);
                due = newest;
            }
        });
        if let Some(newest) = due
            && let Err(error) = self.vault.note_still_valid(chain, newest, here)
        {
            // What is sealed is no less true; a restarted replicator would show an older instant, which is safe.
            let error = crate::source::chain(&error);
            tracing::warn!(%chain, error, "the vault cannot note how long a point stayed valid");
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

//! Which points a chain keeps: its policy, pins and locks, and dropping what the policy lets go. Dropping is a word
//! in the journal and removes nothing from disk: that is what settling and compaction do afterwards.
//!
//! An edit must fit the chain when it is committed. So whoever drops or pins points holds the chain's `retention`
//! lock from looking at the chain to the end of the commit.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use farshore_blocks::{ChainId, Sequence, clock::WallTime};

use crate::{
    edit::{ChainEdit, Edit},
    journal::CommitError,
    reader::leased,
    records::{Pin, PointRecord},
    retention::{self, Hold, PointFacts, RetentionPlan, RetentionPolicy, Verdict},
    state::ChainState,
    storage::StorageError,
    vault::{ChainHandle, Vault, VaultError},
};

/// Why a point was not pinned, or its pin not taken off.
#[derive(Debug, thiserror::Error)]
pub enum PinRefused {
    /// The vault or the chain cannot be had, or the file system failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The chain has no such point.
    #[error("chain {chain} has no point {point}: only a retained point can be pinned")]
    UnknownPoint {
        /// Which chain.
        chain: ChainId,
        /// Which point.
        point: Sequence,
    },
    /// The point is locked: until then it can be locked for longer, and nothing else.
    #[error("point {point} is locked until {}: before that, only a longer lock is accepted", until.to_rfc3339())]
    Locked {
        /// Which point.
        point: Sequence,
        /// The end of the lock.
        until: WallTime,
    },
}

impl From<StorageError> for PinRefused {
    fn from(error: StorageError) -> Self {
        Self::Vault(error.into())
    }
}

impl Vault {
    /// Says which points the chain keeps; durable when this returns. Points go when it is [thinned](Self::thin).
    ///
    /// # Errors
    /// When there is no such chain, or the file system fails.
    pub fn set_retention(&self, chain: ChainId, policy: &RetentionPolicy) -> Result<(), VaultError> {
        let handle = self.chain_handle(chain)?;
        let _alone = lock(&handle);
        if handle.state().retention.as_ref() != Some(policy) {
            handle
                .commit(vec![ChainEdit::RetentionSet(policy.clone())])
                .map_err(StorageError::from)?;
        }
        Ok(())
    }

    /// Pins or locks a point, whatever the policy says of it; durable when this returns.
    ///
    /// # Errors
    /// When there is no such point, or it is locked and the new pin would end the lock earlier.
    pub fn pin(&self, chain: ChainId, point: Sequence, pin: Pin) -> Result<(), PinRefused> {
        self.change_pin(chain, point, Some(pin))
    }

    /// Takes a pin or an expired lock off a point; a point that has none is left as it is.
    ///
    /// # Errors
    /// When there is no such point, or it is locked.
    pub fn unpin(&self, chain: ChainId, point: Sequence) -> Result<(), PinRefused> {
        self.change_pin(chain, point, None)
    }

    fn change_pin(&self, chain: ChainId, point: Sequence, pin: Option<Pin>) -> Result<(), PinRefused> {
        let handle = self.chain_handle(chain)?;
        let _alone = lock(&handle);
        let state = handle.state();
        if state.point(point).is_none() {
            return Err(PinRefused::UnknownPoint { chain, point });
        }
        let held = state.pins.get(&point).copied();
        if let Some(until) = held.and_then(|held| violated(held, pin, latest_end(&state, WallTime::now()))) {
            return Err(PinRefused::Locked { point, until });
        }
        if held != pin {
            handle
                .commit(vec![ChainEdit::PinChanged { sequence: point, pin }])
                .map_err(StorageError::from)?;
        }
        Ok(())
    }

    /// Notes that the newest point was still what the source held at `at`, by the vault's clock. Of a point that is
    /// no longer the newest nothing is noted.
    ///
    /// # Errors
    /// When there is no such chain, or the file system fails.
    pub fn note_still_valid(&self, chain: ChainId, point: Sequence, at: WallTime) -> Result<(), VaultError> {
        let handle = self.chain_handle(chain)?;
        let state = handle.state();
        let is_news = state.point(point).is_some() && state.still_valid < Some(at);
        if is_news && state.newest_sequence() == point {
            handle
                .commit(vec![ChainEdit::StillValid { sequence: point, at }])
                .map_err(StorageError::from)?;
        }
        Ok(())
    }

    /// Drops the points that the chain's policy lets go, durably; what the chain keeps when it has no policy is
    /// everything. Points that are pinned, locked or being read stay.
    ///
    /// # Errors
    /// When there is no such chain, or the file system fails; then no point was dropped.
    pub fn thin(&self, chain: ChainId, now: WallTime) -> Result<RetentionPlan, VaultError> {
        let handle = self.chain_handle(chain)?;
        let _alone = lock(&handle);
        let state = handle.state();
        let facts = facts(&state, &leased(&handle.layout));
        let plan = match &state.retention {
            Some(policy) => retention::plan(policy, now, &facts),
            None => everything_stays(&facts, now),
        };
        handle.carry_out(&plan)?;
        Ok(plan)
    }
}

impl ChainHandle {
    /// Drops what a plan lets go, all or nothing.
    pub(crate) fn carry_out(&self, plan: &RetentionPlan) -> Result<(), StorageError> {
        let edits = rows_dropped(plan);
        if edits.is_empty() {
            return Ok(());
        }
        Ok(self.commit(edits)?)
    }

    /// Commits edits of this chain, all or none.
    pub(super) fn commit(&self, edits: Vec<ChainEdit>) -> Result<(), CommitError> {
        let chain = self.identity.chain;
        let edits = edits.into_iter().map(|edit| Edit::from((chain, edit)));
        self.committer.commit(edits.collect())
    }
}

fn lock(handle: &ChainHandle) -> MutexGuard<'_, ()> {
    handle.retention.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lock that ends behind this is in force: as in `retention`, one clock alone cannot end it.
fn latest_end(state: &ChainState, now: WallTime) -> WallTime {
    let clocks = |newest: &PointRecord| now.min(newest.captured_at).min(newest.sealed_at);
    state.newest().map_or(now, |newest| clocks(newest))
}

/// The end of the lock that the change would break.
fn violated(held: Pin, wanted: Option<Pin>, latest_end: WallTime) -> Option<WallTime> {
    let Pin::LockedUntil(until) = held else {
        return None;
    };
    let kept = match wanted {
        Some(Pin::LockedUntil(longer)) => longer >= until,
        Some(Pin::Pinned) | None => false,
    };
    (until > latest_end && !kept).then_some(until)
}

fn facts(state: &ChainState, in_use: &BTreeSet<Sequence>) -> Vec<PointFacts> {
    let hold = |sequence: Sequence| match state.pins.get(&sequence) {
        // Whoever reads everything holds nothing in particular: nothing is removed meanwhile.
        _ if in_use.contains(&sequence) => Hold::InUse,
        Some(Pin::Pinned) => Hold::Pinned,
        Some(Pin::LockedUntil(until)) => Hold::LockedUntil(*until),
        None => Hold::None,
    };
    let fact = |point: &PointRecord| PointFacts {
        sequence: point.sequence,
        captured_at: point.captured_at,
        sealed_at: point.sealed_at,
        kind: point.kind,
        stored_bytes: point.stored_bytes,
        hold: hold(point.sequence),
    };
    state.points().map(|point| fact(point)).collect()
}

/// The plan of a chain without a policy.
fn everything_stays(facts: &[PointFacts], now: WallTime) -> RetentionPlan {
    let policy = RetentionPolicy {
        keep_all: std::time::Duration::MAX,
        limit: None,
        ..RetentionPolicy::default()
    };
    retention::plan(&policy, now, facts)
}

/// The dropped points as rows, between which some point stays.
fn rows_dropped(plan: &RetentionPlan) -> Vec<ChainEdit> {
    let mut rows: Vec<(Sequence, Sequence)> = Vec::new();
    let mut open = None;
    for (sequence, verdict) in &plan.verdicts {
        open = match (verdict, open) {
            (Verdict::Goes(_), None) => Some((*sequence, *sequence)),
            (Verdict::Goes(_), Some((first, _))) => Some((first, *sequence)),
            (Verdict::Stays(_), row) => {
                rows.extend(row);
                None
            }
        };
    }
    // The newest point stays, so that no row is left open.
    rows.into_iter()
        .map(|(first, last)| ChainEdit::Dropped { first, last })
        .collect()
}

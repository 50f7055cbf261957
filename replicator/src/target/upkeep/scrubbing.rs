//! The scrub of all chains of a vault: whose turn it is, and how much may be read.
//!
//! Time earns credit at the configured rate, and reading spends it. A turn is about a MiB, and chains take turns, so that
//! a small chain does not wait for a large one. A turn that read more than it should, since a run of an index
//! is checked as a whole, leaves a debt that is paid before the next.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use farshore_blocks::{ByteCount, ChainId, Sequence};
use farshore_vault::{ChainDescription, Damage, FileError, Pass, Scrub, Scrubbed, VaultError};

use super::{
    Means,
    troubles::{Task, Troubles},
};
use crate::{
    source::chain as with_causes,
    target::damage::{ChainDamage, DamagedPlace, Found, NewestNeeds, Whereabouts},
};

/// What is read in one turn.
const TURN_BYTES: u64 = 1 << 20;
/// Of more time than this nothing is earned: a machine that was suspended, or an idle hour, is not made up for by a
/// burst.
const LONGEST_EARNING: Duration = Duration::from_secs(10);

/// Everyone's turns.
pub(super) struct Scrubbing {
    means: Means,
    turns: VecDeque<Turn>,
    /// What may be read now; below zero, what was read too much.
    credit: i128,
    earned_at: Duration,
    /// Chains of whose index something was found to be damaged.
    to_mend: BTreeSet<ChainId>,
    troubles: Troubles,
}

/// One chain in the ring.
struct Turn {
    chain: ChainId,
    /// Absent before the chain's first turn.
    scrub: Option<Scrub>,
}

/// Whether a chain may have another turn before the others' passes are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Again,
    Enough,
}

impl Scrubbing {
    pub(super) fn new(means: Means) -> Self {
        Self {
            earned_at: (means.uptime)(),
            means,
            turns: VecDeque::new(),
            credit: 0,
            to_mend: BTreeSet::new(),
            troubles: Troubles::default(),
        }
    }

    /// Chains that are gone have no more turns; new ones have the last.
    pub(super) fn keep_only(&mut self, chains: &BTreeSet<ChainId>) {
        self.troubles.keep_only(chains);
        self.turns.retain(|turn| chains.contains(&turn.chain));
        self.to_mend.retain(|chain| chains.contains(chain));
        let known: BTreeSet<_> = self.turns.iter().map(|turn| turn.chain).collect();
        let new = chains.difference(&known);
        self.turns.extend(new.map(|chain| Turn {
            chain: *chain,
            scrub: None,
        }));
    }

    /// Reads as much as was earned; of each chain at most the rest of its pass.
    pub(super) fn go_on(&mut self) {
        self.earn();
        let mut had_enough = BTreeSet::new();
        while self.credit >= i128::from(TURN_BYTES)
            && had_enough.len() < self.turns.len()
            && !self.means.is_stopped()
        {
            let Some(mut turn) = self.turns.pop_front() else {
                return;
            };
            if !had_enough.contains(&turn.chain) && self.take(&mut turn) == Then::Enough {
                had_enough.insert(turn.chain);
            }
            self.turns.push_back(turn);
        }
    }

    /// The chains of whose index something was found to be damaged since this was last asked.
    pub(super) fn take_to_mend(&mut self) -> BTreeSet<ChainId> {
        std::mem::take(&mut self.to_mend)
    }

    fn earn(&mut self) {
        let rate = i128::from(self.means.rates.scrub_rate.0.get());
        let uptime = (self.means.uptime)();
        let passed = uptime.saturating_sub(self.earned_at).min(LONGEST_EARNING);
        let passed = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        let earned = rate.saturating_mul(passed) / 1_000_000_000;
        if earned == 0 {
            // So short a time counts together with the next.
            return;
        }
        self.earned_at = uptime;
        let longest = i128::from(LONGEST_EARNING.as_secs());
        let most = rate.saturating_mul(longest).max(i128::from(TURN_BYTES));
        self.credit = self.credit.saturating_add(earned).min(most);
    }

    fn take(&mut self, turn: &mut Turn) -> Then {
        let (chain, uptime) = (turn.chain, (self.means.uptime)());
        if self.troubles.rests(chain, Task::Scrub, uptime) {
            return Then::Enough;
        }
        let went = self.read_on(turn);
        let Some(done) = self.troubles.heed((chain, Task::Scrub), uptime, went) else {
            return Then::Enough;
        };
        self.credit = self.credit.saturating_sub(i128::from(done.bytes.0));
        self.means.metrics.scrubbed(done.bytes);
        if done.damage.iter().any(Damage::is_of_index) {
            self.to_mend.insert(chain);
        }
        let kept = self.take_in(chain, &done);
        self.troubles.heed((chain, Task::KeepDamage), uptime, kept);
        match done.pass {
            Pass::GoesOn => Then::Again,
            Pass::Over => {
                self.means.metrics.scrub_pass();
                Then::Enough
            }
        }
    }

    fn read_on(&self, turn: &mut Turn) -> Result<Scrubbed, VaultError> {
        let scrub = match &mut turn.scrub {
            Some(scrub) => scrub,
            none => none.insert(Scrub::new(self.means.targets.reader().clone(), turn.chain)?),
        };
        scrub.go_on(ByteCount(TURN_BYTES))
    }

    fn take_in(&self, chain: ChainId, done: &Scrubbed) -> Result<(), crate::chain_files::ChainFileError> {
        let targets = &self.means.targets;
        let newest = targets.newest(chain);
        let places: Vec<_> = done
            .damage
            .iter()
            .map(|damage| self.place(chain, newest, damage))
            .collect();
        targets.damages.change(chain, |known| {
            for place in places {
                let logged = place.clone();
                if known.found(place) == Found::New {
                    tell(chain, &logged);
                }
            }
            if done.pass == Pass::Over {
                ChainDamage::pass_ended(known);
            }
        })
    }

    fn place(&self, chain: ChainId, newest: Option<Sequence>, damage: &Damage) -> DamagedPlace {
        let targets = &self.means.targets;
        let (path, position) = match &damage.error {
            FileError::Damaged(damaged) => (&damaged.path, Some(damaged.position)),
            FileError::Storage(failed) => (&failed.path, None),
        };
        let file = path.strip_prefix(targets.vault().path()).unwrap_or(path);
        let first = damage.points.first().copied().unwrap_or_default();
        let described = targets.reader().description_at(chain, first).ok();
        let volume = damage.place.map(|(volume, offset)| {
            let name = described
                .as_ref()
                .and_then(|described| name_of(described, volume.as_usize()));
            (name.unwrap_or_else(|| volume.to_string()), offset.0)
        });
        let last = damage.points.last().copied().unwrap_or_default();
        DamagedPlace {
            whereabouts: Whereabouts {
                file: file.display().to_string(),
                position,
                volume,
            },
            what: with_causes(&damage.error),
            first,
            last,
            points: u64::try_from(damage.points.len()).unwrap_or(u64::MAX),
            newest: match newest {
                Some(newest) if last < newest => NewestNeeds::No,
                Some(_) | None => NewestNeeds::Yes,
            },
        }
    }
}

fn name_of(description: &ChainDescription, volume: usize) -> Option<String> {
    description.volumes.get(volume).map(|volume| volume.name.clone())
}

fn tell(chain: ChainId, place: &DamagedPlace) {
    let (file, first, last) = (&place.whereabouts.file, place.first, place.last);
    tracing::error!(%chain, file, %first, %last, error = place.what, "the vault is damaged: points cannot be read whole");
}

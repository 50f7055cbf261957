//! What the scrub found damaged in each chain, on disk so that a restart does not take it for healed. A place is
//! forgotten once a whole pass has ended without it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::{ChainId, Sequence};
use serde::{Deserialize, Serialize};

use crate::chain_files::{ChainFileError, ChainFiles};

/// How many places of a chain are kept one by one; of more, only how many there are. A report carries all of them
/// every second.
const MOST_PLACES: usize = 32;

/// A place that cannot be read as it was written, although retained points need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DamagedPlace {
    pub(crate) whereabouts: Whereabouts,
    pub(crate) what: String,
    /// The oldest and the newest of the points that need it, and how many they are.
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    pub(crate) points: u64,
    pub(crate) newest: NewestNeeds,
}

/// Where it is: what tells two places apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    /// Below the vault's directory.
    pub(crate) file: String,
    /// In the file, where that can be told.
    pub(crate) position: Option<u64>,
    /// The volume's name and the offset in it, where that can be told.
    pub(crate) volume: Option<(String, u64)>,
}

/// Whether the point that was the newest when the place was found needs it. Points behind it may have it from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NewestNeeds {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Seen {
    InThisPass,
    Before,
}

/// What was found of one chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainDamage {
    places: Vec<(DamagedPlace, Seen)>,
    in_last_pass: u64,
    in_this_pass: u64,
}

/// Whether a place was known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    New,
    Known,
}

impl ChainDamage {
    /// The places, as far as they are kept one by one: some if there are any.
    pub(crate) fn places(&self) -> impl Iterator<Item = &DamagedPlace> {
        self.places.iter().map(|(place, _)| place)
    }

    /// How many places there are: as many as the last whole pass found, or more if more were found by now.
    pub(crate) fn total(&self) -> u64 {
        let listed = u64::try_from(self.places.len()).unwrap_or(u64::MAX);
        self.in_last_pass.max(self.in_this_pass).max(listed)
    }

    pub(super) fn found(&mut self, place: DamagedPlace) -> Found {
        let same = |(known, _): &&mut (DamagedPlace, Seen)| known.whereabouts == place.whereabouts;
        if let Some((known, seen)) = self.places.iter_mut().find(same) {
            if *seen == Seen::Before {
                self.in_this_pass = self.in_this_pass.saturating_add(1);
            }
            (*known, *seen) = (place, Seen::InThisPass);
            return Found::Known;
        }
        self.in_this_pass = self.in_this_pass.saturating_add(1);
        if self.places.len() >= MOST_PLACES {
            // What was seen in this pass is surely there, and some of it must be left when the pass ends.
            let Some(older) = self.places.iter().position(|(_, seen)| *seen == Seen::Before) else {
                return Found::Known;
            };
            self.places.remove(older);
        }
        self.places.push((place, Seen::InThisPass));
        Found::New
    }

    pub(super) fn pass_ended(&mut self) {
        self.places.retain(|(_, seen)| *seen == Seen::InThisPass);
        self.begin_pass();
        self.in_last_pass = std::mem::take(&mut self.in_this_pass);
    }

    /// A scrub that starts anew finds everything again.
    fn restarted(mut self) -> Self {
        self.in_last_pass = self.total();
        self.in_this_pass = 0;
        self.begin_pass();
        self
    }

    fn begin_pass(&mut self) {
        for (_, seen) in &mut self.places {
            *seen = Seen::Before;
        }
    }
}

/// The damage of all chains, in `<state directory>/damage/`; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Damages {
    files: ChainFiles<ChainDamage>,
    known: Arc<Mutex<BTreeMap<ChainId, ChainDamage>>>,
}

impl Damages {
    pub(super) fn open(state_directory: &Path) -> Result<Self, ChainFileError> {
        let files: ChainFiles<ChainDamage> = ChainFiles::open(state_directory.join("damage"))?;
        let kept = files.load()?.into_iter();
        let known = kept.map(|(chain, damage)| (chain, damage.restarted())).collect();
        Ok(Self {
            files,
            known: Arc::new(Mutex::new(known)),
        })
    }

    pub(super) fn of(&self, chain: ChainId) -> ChainDamage {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&chain).cloned().unwrap_or_default()
    }

    /// Changes what is known of a chain and then what is on disk: damage is shown even where it cannot be kept.
    pub(super) fn change(
        &self,
        chain: ChainId,
        change: impl FnOnce(&mut ChainDamage),
    ) -> Result<(), ChainFileError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.remove(&chain).unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        let unchanged = after == before;
        if after == ChainDamage::default() {
            return if unchanged {
                Ok(())
            } else {
                self.files.forget(chain)
            };
        }
        let kept = if unchanged {
            Ok(())
        } else {
            self.files.keep(chain, &after)
        };
        known.insert(chain, after);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainId = ChainId::from_bytes([3; 16]);

    fn place(position: u64) -> DamagedPlace {
        DamagedPlace {
            whereabouts: Whereabouts {
                file: "f".to_owned(),
                position: Some(position),
                volume: Some(("root".to_owned(), 0)),
            },
            what: "wrong".to_owned(),
            first: Sequence(1),
            last: Sequence(2),
            points: 2,
            newest: NewestNeeds::No,
        }
    }

    #[test]
    fn a_place_stays_until_a_whole_pass_ended_without_it() {
        let mut damage = ChainDamage::default();
        assert_eq!(damage.found(place(1)), Found::New);
        damage.pass_ended();
        assert_eq!(damage.found(place(1)), Found::Known);
        assert_eq!(damage.found(place(2)), Found::New);
        damage.pass_ended();
        assert_eq!(damage.total(), 2);
        damage.found(place(2));
        assert_eq!(damage.total(), 2, "the pass has not ended");
        damage.pass_ended();
        assert_eq!(damage.places().collect::<Vec<_>>(), [&place(2)]);
        damage.pass_ended();
        assert_eq!(damage, ChainDamage::default());
    }

    #[test]
    fn of_much_damage_some_is_listed_and_all_is_counted() {
        let mut damage = ChainDamage::default();
        (0..100).for_each(|position| {
            damage.found(place(position));
        });
        assert_eq!((damage.total(), damage.places().count()), (100, MOST_PLACES));
        damage.pass_ended();
        // Others than those that are listed are left.
        (90..100).for_each(|position| {
            damage.found(place(position));
        });
        assert_eq!(damage.total(), 100);
        damage.pass_ended();
        assert_eq!((damage.total(), damage.places().count()), (10, 10));
        damage.pass_ended();
        assert_eq!((damage.total(), damage.places().count()), (0, 0));
    }

    #[test]
    fn damage_is_known_after_a_restart_until_a_whole_pass_ended_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Damages::open(directory.path()).unwrap();
        open()
            .change(CHAIN, |damage| {
                damage.found(place(1));
            })
            .unwrap();
        let again = open();
        assert_eq!(again.of(CHAIN).total(), 1);
        again.change(CHAIN, ChainDamage::pass_ended).unwrap();
        assert_eq!(again.of(CHAIN), ChainDamage::default());
        assert_eq!(open().of(CHAIN), ChainDamage::default());
    }
}

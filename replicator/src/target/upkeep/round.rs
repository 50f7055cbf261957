//! One round of the upkeep over all chains.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use farshore_blocks::{ByteCount, ChainId, clock::WallTime};
use farshore_vault::{ChainDescription, Ended, FileError, Go, Maintained, Pace, RetentionPlan, Throttle};

use super::{
    Means,
    scrubbing::Scrubbing,
    troubles::{Task, Troubles},
};
use crate::source::chain as with_causes;

/// How often at most a chain is thinned: a plan looks at every point of it.
const THIN_INTERVAL: Duration = Duration::from_secs(60);

/// What is remembered from round to round.
pub(super) struct Rounds {
    means: Means,
    scrubbing: Scrubbing,
    thinned: BTreeMap<ChainId, Duration>,
    /// Files that are known to be damaged and stay as they are; they are logged once.
    unreadable: BTreeSet<(ChainId, String)>,
    troubles: Troubles,
}

/// Maintenance and scrub together: a pass may take hours, and the scrub goes on meanwhile.
struct BothPaces<'round> {
    maintenance: Throttle,
    scrubbing: &'round mut Scrubbing,
}

impl Pace for BothPaces<'_> {
    fn spend(&mut self, bytes: ByteCount) -> Go {
        self.scrubbing.go_on();
        self.maintenance.spend(bytes)
    }
}

impl Rounds {
    pub(super) fn new(means: Means) -> Self {
        Self {
            scrubbing: Scrubbing::new(means.clone()),
            means,
            thinned: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            troubles: Troubles::default(),
        }
    }

    /// Does what is due.
    pub(super) fn go(&mut self, now: WallTime) {
        let chains = self.means.targets.vault().chains();
        let known: BTreeSet<_> = chains.iter().map(|(chain, _)| *chain).collect();
        self.scrubbing.keep_only(&known);
        self.troubles.keep_only(&known);
        self.thinned.retain(|chain, _| known.contains(chain));
        self.unreadable.retain(|(chain, _)| known.contains(chain));
        for (chain, description) in &chains {
            if self.means.is_stopped() {
                return;
            }
            if self.means.targets.retention(*chain).is_some() {
                self.thin(*chain, description, now);
            }
            // Also where every point stays: what is given up goes, and readers have few runs to look into.
            self.maintain(*chain);
        }
        self.scrubbing.go_on();
        for chain in self.scrubbing.take_to_mend() {
            self.mend(chain);
        }
        self.show_damage(&chains);
    }

    fn thin(&mut self, chain: ChainId, description: &ChainDescription, now: WallTime) {
        let uptime = (self.means.uptime)();
        let last = self.thinned.get(&chain);
        if last.is_some_and(|last| uptime.saturating_sub(*last) < THIN_INTERVAL) {
            return;
        }
        self.thinned.insert(chain, uptime);
        let targets = &self.means.targets;
        let thinned = targets.vault().thin(chain, now).and_then(|plan| {
            if !plan.drop.is_empty() {
                targets.look_at(chain, description)?;
            }
            Ok(plan)
        });
        if let Some(plan) = self.troubles.heed((chain, Task::Thin), uptime, thinned) {
            self.tell_dropped(chain, &plan);
        }
    }

    fn tell_dropped(&self, chain: ChainId, plan: &RetentionPlan) {
        if let (Some(first), Some(last)) = (plan.drop.first(), plan.drop.last()) {
            self.means.metrics.dropped(plan.drop.len());
            let points = plan.drop.len();
            tracing::info!(%chain, points, %first, %last, "recovery points were let go by the policy");
        }
    }

    fn maintain(&mut self, chain: ChainId) {
        let uptime = (self.means.uptime)();
        if self.troubles.rests(chain, Task::Maintain, uptime) {
            return;
        }
        let mut pace = BothPaces {
            maintenance: self.means.pace(),
            scrubbing: &mut self.scrubbing,
        };
        let went = self.means.targets.vault().maintain(chain, &mut pace);
        let uptime = (self.means.uptime)();
        if let Some(done) = self.troubles.heed((chain, Task::Maintain), uptime, went) {
            self.tell_maintained(chain, &done);
        }
    }

    /// Makes again what of a chain's index is damaged. A pass of the scrub that finds it sound takes the damage back.
    fn mend(&mut self, chain: ChainId) {
        let uptime = (self.means.uptime)();
        if self.troubles.rests(chain, Task::Mend, uptime) {
            return;
        }
        let mut pace = self.means.pace();
        let went = self.means.targets.vault().mend_index(chain, &mut pace);
        if let Some(mended) = self.troubles.heed((chain, Task::Mend), uptime, went) {
            self.means.metrics.maintained(mended.index_bytes, ByteCount(0));
            let runs = mended.runs_made;
            if runs > 0 {
                tracing::info!(%chain, runs, "what was damaged of the index was made again");
            }
        }
    }

    fn tell_maintained(&mut self, chain: ChainId, done: &Maintained) {
        let (written, given_back) = (done.written_bytes(), done.given_back_bytes());
        self.means.metrics.maintained(written, given_back);
        match done.ended {
            Ended::Done | Ended::Stopped if given_back.0 > 0 => {
                tracing::info!(%chain, %written, %given_back, "the vault gave space back");
            }
            // Whoever reads everything ends some time, and then the next pass goes on.
            Ended::Done | Ended::Stopped | Ended::HeldByReader => {}
        }
        for file in &done.unreadable {
            self.tell_unreadable(chain, file);
        }
    }

    fn tell_unreadable(&mut self, chain: ChainId, file: &FileError) {
        let error = with_causes(file);
        if self.unreadable.insert((chain, error.clone())) {
            tracing::warn!(%chain, error, "a damaged file of the vault gives no space back; it stays as it is");
        }
    }

    fn show_damage(&self, chains: &[(ChainId, ChainDescription)]) {
        let mut places = BTreeMap::<String, u64>::new();
        for (chain, description) in chains {
            let count = places.entry(description.vm.clone()).or_default();
            *count = count.saturating_add(self.means.targets.damage(*chain).total());
        }
        self.means.metrics.damaged(&places);
    }
}

//! Failures of the upkeep: each is logged once, and tried again later.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    time::Duration,
};

use farshore_blocks::ChainId;

use crate::source::chain as with_causes;

/// How long what failed is left alone: a pass that cannot end should not take the disk for itself.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Thin,
    Maintain,
    Mend,
    Scrub,
    KeepDamage,
}

impl fmt::Display for Task {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Thin => "letting points go",
            Self::Maintain => "giving space back",
            Self::Mend => "making the index again",
            Self::Scrub => "looking for damage",
            Self::KeepDamage => "keeping what is damaged",
        })
    }
}

/// What fails now.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    failing: BTreeMap<(ChainId, Task), (String, Duration)>,
}

impl Troubles {
    /// Whether it is too early to try again what failed.
    pub(super) fn rests(&self, chain: ChainId, task: Task, uptime: Duration) -> bool {
        let failed = self.failing.get(&(chain, task));
        failed.is_some_and(|(_, at)| uptime.saturating_sub(*at) < RETRY_AFTER)
    }

    /// Takes in how it went; what went well is given back.
    pub(super) fn heed<T, E: Error>(
        &mut self,
        (chain, task): (ChainId, Task),
        uptime: Duration,
        went: Result<T, E>,
    ) -> Option<T> {
        match went {
            Ok(done) => {
                if self.failing.remove(&(chain, task)).is_some() {
                    tracing::info!(%chain, %task, "the upkeep of the vault works again");
                }
                Some(done)
            }
            Err(failure) => {
                let error = with_causes(&failure);
                let known = self.failing.insert((chain, task), (error.clone(), uptime));
                if known.is_none_or(|(known, _)| known != error) {
                    tracing::error!(%chain, %task, error, "the upkeep of the vault fails; it is tried again");
                }
                None
            }
        }
    }

    pub(super) fn keep_only(&mut self, chains: &BTreeSet<ChainId>) {
        self.failing.retain(|(chain, _), _| chains.contains(chain));
    }
}

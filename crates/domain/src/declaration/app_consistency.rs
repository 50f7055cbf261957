//! How often a recovery point is to be consistent for the guest's applications, and how long the guest may be frozen for it.

use std::time::Duration;

use serde::Serialize;

use super::{cursor::Cursor, duration, fields::Fields, policy::read_between, problems::Problems};

const SHORTEST_EVERY: Duration = Duration::from_secs(60);
const LONGEST_EVERY: Duration = Duration::from_secs(24 * 3600);
const SHORTEST_FREEZE: Duration = Duration::from_millis(500);
const LONGEST_FREEZE: Duration = Duration::from_secs(30);
const DEFAULT_FREEZE: Duration = Duration::from_secs(5);

/// Application-consistent points are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppConsistency {
    #[serde(serialize_with = "duration::serialize")]
    every: Duration,
    #[serde(serialize_with = "duration::serialize")]
    freeze_limit: Duration,
}

impl AppConsistency {
    /// From one to the next.
    #[must_use]
    pub fn every(self) -> Duration {
        self.every
    }

    /// How long the guest may be frozen, freezing included.
    #[must_use]
    pub fn freeze_limit(self) -> Duration {
        self.freeze_limit
    }

    pub(super) fn read(at: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(at, &["every", "freezeLimit"], problems)?;
        let every = fields.required("every", problems, |every, problems| {
            read_between(every, SHORTEST_EVERY, LONGEST_EVERY, problems)
        });
        let freeze_limit = fields.optional("freezeLimit", problems, |limit, problems| {
            read_between(limit, SHORTEST_FREEZE, LONGEST_FREEZE, problems)
        });
        Some(Self {
            every: every?,
            freeze_limit: freeze_limit?.unwrap_or(DEFAULT_FREEZE),
        })
    }
}

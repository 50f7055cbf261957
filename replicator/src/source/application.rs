//! When a point is due that is consistent for the guest's applications.

use std::time::Duration;

use farshore_provider::Consistency;
use tokio::time::Instant;

use crate::assignment::AppConsistency;

/// How long after one that could not be had the next is tried.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps the time of them.
#[derive(Debug)]
pub(crate) struct ApplicationPoints {
    wanted: Option<AppConsistency>,
    /// None before the first was tried.
    due_at: Option<Instant>,
}

impl ApplicationPoints {
    pub(crate) fn new(wanted: Option<AppConsistency>) -> Self {
        Self { wanted, due_at: None }
    }

    /// The first is due at once.
    pub(crate) fn are_due(&self, now: Instant) -> bool {
        self.wanted.is_some() && self.due_at.is_none_or(|due| now >= due)
    }

    /// One was tried at `now`; gives why it is none, where it is none.
    pub(crate) fn tried(&mut self, now: Instant, became: &Consistency) -> Option<String> {
        let every = self.wanted.map_or(AGAIN, |wanted| wanted.every);
        match became {
            Consistency::Application => {
                self.due_at = Some(now + every);
                None
            }
            Consistency::Crash { why } => {
                self.due_at = Some(now + every.min(AGAIN));
                Some(why.clone().unwrap_or_else(|| "it was not asked for".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_due_after_its_interval_and_sooner_after_one_that_failed() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let mut points = ApplicationPoints::new(Some(AppConsistency {
            every: hour,
            freeze_limit: Duration::from_secs(5),
        }));
        assert!(points.are_due(now));
        assert_eq!(points.tried(now, &Consistency::Application), None);
        assert!(!points.are_due(now + hour / 2) && points.are_due(now + hour));
        let failed = Consistency::Crash {
            why: Some("no answer".to_owned()),
        };
        assert_eq!(points.tried(now, &failed).unwrap(), "no answer");
        assert!(!points.are_due(now + AGAIN / 2) && points.are_due(now + AGAIN));
        assert!(!ApplicationPoints::new(None).are_due(now));
    }
}

//! How long to wait before something that failed is tried again: twice as long each time, and by chance a little more, so
//! that many whom one outage cut off do not all come back at the same moment.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses between two bounds.
#[derive(Debug)]
pub(crate) struct Pauses {
    builder: ExponentialBuilder,
    longest: Duration,
    to_come: ExponentialBackoff,
}

impl Pauses {
    /// From `shortest` up to `longest`.
    pub(crate) fn between(shortest: Duration, longest: Duration) -> Self {
        // Chance at most doubles a pause.
        let builder = ExponentialBuilder::new()
            .with_min_delay(shortest)
            .with_max_delay(longest / 2)
            .with_jitter()
            .without_max_times();
        Self {
            builder,
            longest,
            to_come: builder.build(),
        }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.to_come.next().unwrap_or(self.longest);
        pause.min(self.longest)
    }

    /// What was tried went well: the next failure is a first one.
    pub(crate) fn start_over(&mut self) {
        self.to_come = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(4);

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        let mut pauses = Pauses::between(SHORTEST, LONGEST);
        for round in 0..3 {
            let first = pauses.next();
            assert!((SHORTEST..2 * SHORTEST).contains(&first), "{round}: {first:?}");
            let last = std::iter::repeat_with(|| pauses.next()).nth(20).unwrap();
            assert!((LONGEST / 2..=LONGEST).contains(&last), "{round}: {last:?}");
            pauses.start_over();
        }
    }

    #[test]
    fn many_that_failed_together_come_back_at_many_moments() {
        let moments: BTreeSet<Duration> =
            std::iter::repeat_with(|| Pauses::between(SHORTEST, LONGEST).next())
                .take(100)
                .collect();
        assert!(moments.len() > 90, "{}", moments.len());
    }
}

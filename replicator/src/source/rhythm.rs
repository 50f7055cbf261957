//! When the next cycle begins.

use std::time::Duration;

use tokio::time::Instant;

/// By what cycles follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// From one cycle's begin to the next one's.
    pub(crate) interval: Duration,
    /// For how many hundredths of the time the guest's writes may be held; 0 is not limited.
    pub(crate) guest_cost_limit_percent: u32,
}

impl Rhythm {
    /// When the cycle after one that began at `began` and held the guest's writes for `hold` begins. One that has not ended by
    /// then delays it, as there is never more than one.
    pub(crate) fn next(self, began: Instant, hold: Duration) -> Instant {
        let spread = match self.guest_cost_limit_percent {
            0 => Duration::ZERO,
            percent => hold.saturating_mul(100) / percent,
        };
        began + self.interval.max(spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_hold_puts_the_next_cycle_off_until_the_guests_cost_is_within_its_limit() {
        let began = Instant::now();
        let milliseconds = Duration::from_millis;
        for (interval, percent, hold, expected) in [
            (200, 10, 2, 200),
            (200, 10, 20, 200),
            (200, 10, 21, 210),
            (200, 10, 300, 3000),
            (200, 50, 300, 600),
            (1000, 0, 300, 1000),
            (1000, 10, 50, 1000),
        ] {
            let rhythm = Rhythm {
                interval: milliseconds(interval),
                guest_cost_limit_percent: percent,
            };
            assert_eq!(
                rhythm.next(began, milliseconds(hold)) - began,
                milliseconds(expected)
            );
        }
    }
}

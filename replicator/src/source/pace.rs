//! How fast a source may send: a token bucket of bytes.

use std::time::Duration;

use farshore_blocks::ByteCount;
use tokio::time::Instant;

/// Allows `rate` bytes a second, and a burst of a quarter of a second.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<ByteCount>,
    free_at: Instant,
}

const BURST: Duration = Duration::from_millis(250);

impl Pace {
    /// `None` is without a limit.
    pub(crate) fn new(rate: Option<ByteCount>) -> Self {
        Self {
            rate: rate.filter(|rate| rate.0 > 0),
            free_at: Instant::now(),
        }
    }

    /// Waits until `bytes` more may be sent.
    pub(crate) async fn take(&mut self, bytes: ByteCount) {
        let wait_until = self.reserve(bytes, Instant::now());
        tokio::time::sleep_until(wait_until).await;
    }

    /// When `bytes` asked for at `now` may be sent; they count as sent from then on.
    fn reserve(&mut self, bytes: ByteCount, now: Instant) -> Instant {
        let Some(rate) = self.rate else {
            return now;
        };
        let nanoseconds = u128::from(bytes.0).saturating_mul(1_000_000_000) / u128::from(rate.0);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = self.free_at.max(earliest);
        self.free_at = start + cost;
        start.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_many_requests() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(ByteCount(1_000_000)));
        pace.free_at = now;
        let mut last = now;
        for _ in 0..11 {
            last = pace.reserve(ByteCount(1_000_000), now);
        }
        assert_eq!(last - now, Duration::from_secs(10));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = Instant::now();
        assert_eq!(Pace::new(None).reserve(ByteCount(u64::MAX), now), now);
    }
}

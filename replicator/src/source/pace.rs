//! How fast a source may send: a token bucket of bytes.

use std::time::Duration;

use farshore_blocks::ByteCount;
use tokio::time::Instant;

const BURST: Duration = Duration::from_millis(250);

/// Allows `rate` bytes a second, and a burst of a quarter of a second.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<ByteCount>,
    bucket: Bucket,
}

/// What has been taken at a rate that may change.
#[derive(Debug)]
pub(crate) struct Bucket {
    free_at: Instant,
}

impl Pace {
    /// `None` is without a limit.
    pub(crate) fn new(rate: Option<ByteCount>) -> Self {
        Self {
            rate,
            bucket: Bucket::full(Instant::now()),
        }
    }

    /// Waits until `bytes` more may be sent.
    pub(crate) async fn take(&mut self, bytes: ByteCount) {
        let wait_until = self.bucket.reserve((bytes, self.rate), Instant::now());
        tokio::time::sleep_until(wait_until).await;
    }
}

impl Bucket {
    /// Nothing was taken before `now`.
    pub(crate) fn full(now: Instant) -> Self {
        Self { free_at: now }
    }

    /// When `bytes` asked for at `now` may be sent at this rate; they count as sent from then on.
    pub(crate) fn reserve(&mut self, (bytes, rate): (ByteCount, Option<ByteCount>), now: Instant) -> Instant {
        let Some(rate) = rate.filter(|rate| rate.0 > 0) else {
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
        let mut bucket = Bucket::full(now);
        let mut last = now;
        for _ in 0..11 {
            last = bucket.reserve((ByteCount(1_000_000), Some(ByteCount(1_000_000))), now);
        }
        assert_eq!(last - now, Duration::from_secs(10));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = Instant::now();
        let waited = Bucket::full(now).reserve((ByteCount(u64::MAX), None), now);
        assert_eq!(waited, now);
    }
}

//! The one place where wall time is read.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, in UTC, by some machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// What this machine's clock says now; a clock before 1970 reads as 1970.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the home of wall time")]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time between `earlier` and this; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Seconds since the Unix epoch, as Prometheus wants them.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        Duration::from_nanos(self.0).as_secs_f64()
    }

    /// The whole millisecond that it lies in, which is what [`Self::to_rfc3339`] shows of it.
    #[must_use]
    pub fn whole_milliseconds(self) -> Self {
        Self(self.0 - self.0 % 1_000_000)
    }

    /// As RFC 3339 in UTC, to the millisecond.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let nanoseconds = i128::from(self.0);
        Timestamp::from_nanosecond(nanoseconds)
            .map(|time| format!("{time:.3}"))
            .unwrap_or_else(|_| format!("{} ns after 1970", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(
            WallTime(1_700_000_000_123_000_000).to_rfc3339(),
            "2023-11-14T22:13:20.123Z"
        );
    }

    #[test]
    fn what_is_shown_of_a_whole_millisecond_is_all_of_it() {
        let time = WallTime(1_700_000_000_123_999_999);
        assert_eq!(time.whole_milliseconds(), WallTime(1_700_000_000_123_000_000));
        assert_eq!(time.to_rfc3339(), time.whole_milliseconds().to_rfc3339());
    }

    #[test]
    fn a_clock_that_went_back_gives_no_negative_age() {
        assert_eq!(WallTime(5).since(WallTime(9)), Duration::ZERO);
    }
}

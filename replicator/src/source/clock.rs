//! The difference between two machines' clocks, as one exchange of messages bounds it (RFC 5905, section 8).

use std::time::Duration;

use farshore_blocks::clock::WallTime;

/// The target's clock minus the source's, and how wrong that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClockEstimate {
    pub(crate) offset_nanoseconds: i64,
    pub(crate) uncertainty: Duration,
}

/// The four times of one exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) sent: WallTime,
    pub(crate) received_there: WallTime,
    pub(crate) answered_there: WallTime,
    pub(crate) received: WallTime,
}

impl ClockEstimate {
    /// What the exchange tells: half the sum of both ways' differences, within half the round trip.
    pub(crate) fn from_exchange(exchange: &Exchange) -> Self {
        let difference = |later: WallTime, earlier: WallTime| i128::from(later.0) - i128::from(earlier.0);
        let there = difference(exchange.received_there, exchange.sent);
        let back = difference(exchange.answered_there, exchange.received);
        let round_trip = difference(exchange.received, exchange.sent)
            - difference(exchange.answered_there, exchange.received_there);
        let uncertainty = u64::try_from(round_trip.max(0) / 2).unwrap_or(u64::MAX);
        Self {
            offset_nanoseconds: i64::try_from((there + back) / 2).unwrap_or(i64::MAX),
            uncertainty: Duration::from_nanos(uncertainty),
        }
    }

    /// How long the exchange was on its way.
    pub(crate) fn round_trip(&self) -> Duration {
        self.uncertainty.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_is_found_within_half_the_round_trip() {
        let exchange = Exchange {
            sent: WallTime(1_000),
            received_there: WallTime(6_010),
            answered_there: WallTime(6_020),
            received: WallTime(1_040),
        };
        let estimate = ClockEstimate::from_exchange(&exchange);
        assert_eq!(estimate.offset_nanoseconds, 4_995);
        assert_eq!(estimate.uncertainty, Duration::from_nanos(15));
    }
}

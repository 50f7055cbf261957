//! How long single writes took, as the guest's own monotonic clock says: a histogram that fits on a line and adds up.
//!
//! Times are counted in microseconds, in buckets of which eight follow each other before their width doubles, so that a
//! percentile is too high by an eighth at most and never too low. The longest time is kept as it was.
//!
//! ```text
//! 18231 300:120,301:7,412:1     the longest in microseconds, then BUCKET:COUNT of every bucket that has one
//! ```

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

/// Buckets in each doubling, as a power of two.
const STEPS: u32 = 3;

/// The times of any number of writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latencies {
    longest_microseconds: u64,
    counts: BTreeMap<u32, u64>,
}

/// The text is not that of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the times of writes")]
pub struct NotLatencies;

impl Latencies {
    /// One more write.
    pub fn add(&mut self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.longest_microseconds = self.longest_microseconds.max(microseconds);
        *self.counts.entry(bucket(microseconds)).or_default() += 1;
    }

    /// The writes of another one, too.
    pub fn merge(&mut self, other: &Self) {
        self.longest_microseconds = self.longest_microseconds.max(other.longest_microseconds);
        for (bucket, count) in &other.counts {
            let sum = self.counts.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// How many writes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What the longest took.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_microseconds)
    }

    /// What so many of a thousand writes did not exceed; `None` if there were none.
    #[must_use]
    pub fn per_mille(&self, share: u32) -> Option<Duration> {
        let all = u128::from(self.count());
        let rank = (all * u128::from(share)).div_ceil(1000).max(1);
        let mut below = 0;
        let reached = self.counts.iter().find(|(_, count)| {
            below += u128::from(**count);
            below >= rank
        });
        let (bucket, _) = reached?;
        Some(Duration::from_micros(
            highest_in(*bucket).min(self.longest_microseconds),
        ))
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.longest_microseconds)?;
        for (position, (bucket, count)) in self.counts.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(formatter, "{comma}{bucket}:{count}")?;
        }
        Ok(())
    }
}

impl FromStr for Latencies {
    type Err = NotLatencies;

    fn from_str(text: &str) -> Result<Self, NotLatencies> {
        let (longest, buckets) = text.split_once(' ').ok_or(NotLatencies)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| NotLatencies);
        let mut counts = BTreeMap::new();
        for pair in buckets.split(',').filter(|pair| !pair.is_empty()) {
            let (bucket, count) = pair.split_once(':').ok_or(NotLatencies)?;
            let bucket = u32::try_from(number(bucket)?).map_err(|_| NotLatencies)?;
            counts.insert(bucket, number(count)?);
        }
        Ok(Self {
            longest_microseconds: number(longest)?,
            counts,
        })
    }
}

/// Below the first doubling, the time itself; beyond it, which doubling and which of its steps.
fn bucket(microseconds: u64) -> u32 {
    let doublings = microseconds.max(1).ilog2().saturating_sub(STEPS);
    let steps = u32::try_from(microseconds >> doublings).unwrap_or(u32::MAX);
    (doublings << STEPS).saturating_add(steps)
}

/// The longest time that is counted in this bucket.
fn highest_in(bucket: u32) -> u64 {
    let steps = 1 << STEPS;
    let doublings = (bucket / steps).saturating_sub(1);
    let first_behind = u64::from(bucket - doublings * steps + 1);
    first_behind
        .checked_shl(doublings)
        .unwrap_or(u64::MAX)
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(microseconds: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        for time in microseconds {
            latencies.add(Duration::from_micros(time));
        }
        latencies
    }

    #[test]
    fn a_time_is_in_a_bucket_that_is_an_eighth_wide_at_most() {
        for time in (0..5000).chain([65_535, 65_536, 1_000_000, 3_600_000_000]) {
            let highest = highest_in(bucket(time));
            assert!(
                highest >= time && (highest - time) * 8 <= time,
                "{time} is counted as {highest}"
            );
            assert!(bucket(time + 1) >= bucket(time), "{time}");
        }
    }

    #[test]
    fn percentiles_are_those_of_a_sorted_list() {
        let mut times: Vec<u64> = (1..=1000).map(|number| number * number).collect();
        let latencies = of(times.iter().copied());
        times.sort_unstable();
        for share in [1, 500, 990, 999, 1000] {
            let exact = times[usize::try_from(share).unwrap() - 1];
            let found = u64::try_from(latencies.per_mille(share).unwrap().as_micros()).unwrap();
            assert!(
                found >= exact && (found - exact) * 8 <= exact,
                "{share}: {found}, not {exact}"
            );
        }
        assert_eq!(latencies.longest(), Duration::from_secs(1));
        assert_eq!(Latencies::default().per_mille(990), None);
    }

    #[test]
    fn halves_that_are_merged_are_the_whole_and_read_back_as_they_were_written() {
        let whole = of([1, 7, 8, 900, 900, 70_000]);
        let mut merged: Latencies = of([1, 8, 70_000]).to_string().parse().unwrap();
        merged.merge(&of([7, 900, 900]));
        assert_eq!(merged, whole);
        assert_eq!(whole.count(), 6);
        assert_eq!("0 ".parse(), Ok(Latencies::default()));
        for wrong in ["", "1", "x 1:1", "1 1", "1 1:x", "1 5000000000:1"] {
            assert_eq!(wrong.parse::<Latencies>(), Err(NotLatencies), "{wrong}");
        }
    }
}

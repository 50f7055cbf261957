//! How much of the link to another site all VMs of this replicator together may take, by the hour of the week in UTC.

use farshore_blocks::{ByteCount, clock::WallTime};
use serde::{Deserialize, Serialize};

const NANOSECONDS_OF_A_MINUTE: u64 = 60 * 1_000_000_000;
const MINUTES_OF_A_DAY: u64 = 24 * 60;
const MINUTES_OF_A_WEEK: u64 = 7 * MINUTES_OF_A_DAY;
/// The first day of the era was a Thursday.
const MINUTES_BEFORE_THE_ERA: u64 = 3 * MINUTES_OF_A_DAY;

/// A link's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkLimit {
    /// The site that it leads to.
    pub(crate) to: String,
    /// Bytes a second outside the hours; `None` is not limited.
    pub(crate) bandwidth: Option<ByteCount>,
    pub(crate) hours: Vec<LimitedHours>,
    /// How many connections a VM's changes may travel on; `None` is as many as are taken to be enough.
    #[serde(default)]
    pub(crate) connections: Option<u32>,
}

/// Hours of the week with a limit of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitedHours {
    /// On which days they begin, from 0 for Monday.
    pub(crate) days: Vec<u32>,
    /// A minute of the day.
    pub(crate) from_minute: u32,
    /// A minute of that day, or of the day after where it is not behind the first.
    pub(crate) to_minute: u32,
    /// Bytes a second; `None` is not limited.
    pub(crate) bandwidth: Option<ByteCount>,
}

impl LinkLimit {
    /// How many bytes a second may be sent at this time; `None` is not limited.
    pub(crate) fn at(&self, now: WallTime) -> Option<ByteCount> {
        let minute = (now.0 / NANOSECONDS_OF_A_MINUTE + MINUTES_BEFORE_THE_ERA) % MINUTES_OF_A_WEEK;
        let hours = self.hours.iter().find(|hours| hours.hold_at(minute));
        hours.map_or(self.bandwidth, |hours| hours.bandwidth)
    }
}

impl LimitedHours {
    /// At this minute of the week.
    fn hold_at(&self, minute: u64) -> bool {
        let (from, to) = (u64::from(self.from_minute), u64::from(self.to_minute));
        let length = if to > from {
            to - from
        } else {
            (MINUTES_OF_A_DAY + to).saturating_sub(from)
        };
        self.days.iter().any(|day| {
            let start = u64::from(*day) * MINUTES_OF_A_DAY + from;
            (minute + 2 * MINUTES_OF_A_WEEK).saturating_sub(start) % MINUTES_OF_A_WEEK < length
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30, a Monday, at midnight.
    const MONDAY: u64 = 1_795_996_800;

    fn at(day: u64, hour: u64, minute: u64) -> WallTime {
        let seconds = MONDAY + day * 86_400 + hour * 3600 + minute * 60;
        WallTime(seconds * 1_000_000_000)
    }

    #[test]
    fn the_limit_is_that_of_the_hours_and_of_the_link_outside_of_them() {
        let limit = LinkLimit {
            to: "west".to_owned(),
            bandwidth: Some(ByteCount(50)),
            hours: vec![
                LimitedHours {
                    days: vec![0, 1, 2, 3, 4],
                    from_minute: 8 * 60,
                    to_minute: 18 * 60,
                    bandwidth: Some(ByteCount(10)),
                },
                LimitedHours {
                    days: vec![2, 6],
                    from_minute: 22 * 60,
                    to_minute: 6 * 60 + 30,
                    bandwidth: None,
                },
            ],
            connections: None,
        };
        for (day, hour, minute, expected) in [
            (0, 7, 59, Some(50)),
            (0, 8, 0, Some(10)),
            (4, 17, 59, Some(10)),
            (4, 18, 0, Some(50)),
            (5, 12, 0, Some(50)),
            (2, 21, 59, Some(50)),
            (2, 22, 0, None),
            (3, 6, 29, None),
            (3, 6, 30, Some(50)),
            // From Sunday into the next week.
            (6, 23, 0, None),
            (0, 6, 29, None),
            (7, 6, 29, None),
            (7, 6, 30, Some(50)),
            (1, 6, 0, Some(50)),
        ] {
            assert_eq!(
                limit.at(at(day, hour, minute)),
                expected.map(ByteCount),
                "{day} {hour}:{minute}"
            );
        }
    }

    #[test]
    fn a_whole_day_is_limited_to_its_last_minute() {
        let limit = LinkLimit {
            to: "west".to_owned(),
            bandwidth: None,
            hours: vec![LimitedHours {
                days: vec![5],
                from_minute: 0,
                to_minute: 24 * 60,
                bandwidth: Some(ByteCount(7)),
            }],
            connections: None,
        };
        let limited = |day, hour, minute| limit.at(at(day, hour, minute)).is_some();
        assert!(limited(5, 0, 0) && limited(5, 23, 59));
        assert!(!limited(4, 23, 59) && !limited(6, 0, 0));
    }
}

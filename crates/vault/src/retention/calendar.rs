//! Calendar slots in UTC: which hour, day, week, month and year a point is of.

use farshore_blocks::clock::WallTime;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_HOUR: u64 = 3600;
const SECONDS_PER_DAY: u64 = 24 * SECONDS_PER_HOUR;
/// 1970 began on a Thursday, three days after a Monday.
const DAYS_SINCE_MONDAY: u64 = 3;
/// From 1 March of the year 0 to 1 January 1970.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_PER_ERA: u64 = 146_097;
const YEARS_PER_ERA: u64 = 400;

/// A kind of slot of which one point stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Hours.
    Hourly,
    /// Days.
    Daily,
    /// Weeks from Monday.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl Tier {
    /// From the finest to the coarsest.
    pub const ALL: [Self; 5] = [
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Yearly,
    ];

    /// Its name, as policies spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The slot that this time is in; neighbouring slots have neighbouring numbers.
    pub(super) fn slot(self, at: WallTime) -> u64 {
        let seconds = at.0 / NANOSECONDS_PER_SECOND;
        let days = seconds / SECONDS_PER_DAY;
        match self {
            Self::Hourly => seconds / SECONDS_PER_HOUR,
            Self::Daily => days,
            Self::Weekly => (days + DAYS_SINCE_MONDAY) / 7,
            Self::Monthly => month(days),
            Self::Yearly => month(days) / 12,
        }
    }
}

/// The months since January of the year 0 in the proleptic Gregorian calendar, by days since 1970.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years begin in March there, so that
/// the leap day is the last.
fn month(days_since_1970: u64) -> u64 {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let day_of_era = days % DAYS_PER_ERA;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    (days / DAYS_PER_ERA * YEARS_PER_ERA + year_of_era) * 12 + months_since_march + 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots_of(text: &str) -> (u64, u64, u64) {
        let number = |part: std::ops::Range<usize>| text[part].parse::<u64>().unwrap();
        (number(0..4), number(5..7), number(11..13))
    }

    proptest! {
        #[test]
        fn months_and_years_are_those_of_the_written_date(at in any::<u64>()) {
            let at = WallTime(at);
            let (year, month, hour) = slots_of(&at.to_rfc3339());
            prop_assert_eq!(Tier::Yearly.slot(at), year);
            prop_assert_eq!(Tier::Monthly.slot(at), year * 12 + month - 1);
            prop_assert_eq!(Tier::Hourly.slot(at) % 24, hour);
        }
    }

    #[test]
    fn a_week_begins_on_monday() {
        let day = |days: u64| WallTime(days * SECONDS_PER_DAY * NANOSECONDS_PER_SECOND);
        // 2024-01-01 was a Monday.
        let monday = 19_723;
        assert!(day(monday).to_rfc3339().starts_with("2024-01-01"));
        assert_eq!(
            Tier::Weekly.slot(day(monday - 1)) + 1,
            Tier::Weekly.slot(day(monday))
        );
        assert_eq!(Tier::Weekly.slot(day(monday)), Tier::Weekly.slot(day(monday + 6)));
    }
}

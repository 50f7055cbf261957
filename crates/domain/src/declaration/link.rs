//! The link from one site to another: how much of it all replication together may take, and at which hours less or more.

use std::{fmt, str::FromStr};

use farshore_blocks::ByteCount;
use serde::{Serialize, Serializer};

use super::{
    cursor::Cursor,
    fields::Fields,
    problems::Problems,
    size,
    text::{Name, TextRefused},
};

const MOST_HOURS: usize = 64;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
const MINUTES_OF_A_DAY: u32 = 24 * 60;
const MINUTES_OF_A_WEEK: u32 = 7 * MINUTES_OF_A_DAY;
/// More than a target lets carry for one session.
const MOST_CONNECTIONS: u32 = 8;
/// Less than this would let a single message take long enough for cycles of other VMs to be late.
const LEAST_LIMIT: ByteCount = ByteCount(256 << 10);

/// A link that is limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    to: Name,
    #[serde(
        serialize_with = "size::serialize_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    bandwidth_limit: Option<ByteCount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schedule: Vec<LinkHours>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
}

/// Hours of some days of the week, in UTC, at which another limit holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkHours {
    days: Vec<Weekday>,
    from: TimeOfDay,
    to: TimeOfDay,
    #[serde(
        serialize_with = "size::serialize_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    limit: Option<ByteCount>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weekday {
    /// The first, as ISO 8601 counts.
    Monday,
    /// The second.
    Tuesday,
    /// The third.
    Wednesday,
    /// The fourth.
    Thursday,
    /// The fifth.
    Friday,
    /// The sixth.
    Saturday,
    /// The last.
    Sunday,
}

/// A minute of a day, up to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u32);

impl Link {
    /// The site that it leads to.
    #[must_use]
    pub fn to(&self) -> &Name {
        &self.to
    }

    /// How many bytes a second may be sent outside the hours of the schedule; `None` is not limited.
    #[must_use]
    pub fn bandwidth_limit(&self) -> Option<ByteCount> {
        self.bandwidth_limit
    }

    /// Hours with a limit of their own; no two of them overlap.
    #[must_use]
    pub fn schedule(&self) -> &[LinkHours] {
        &self.schedule
    }

    /// On how many connections the changes of one VM may travel at most; `None` leaves it to the source.
    #[must_use]
    pub fn connections(&self) -> Option<u32> {
        self.connections
    }

    pub(super) fn read(at: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(at, &["to", "bandwidthLimit", "schedule", "connections"], problems)?;
        let to = fields.required("to", problems, Cursor::parsed);
        let bandwidth_limit = fields.optional("bandwidthLimit", problems, read_limit);
        let schedule = fields.optional("schedule", problems, |schedule, problems| {
            let read = schedule.list(MOST_HOURS, problems, LinkHours::read)?;
            match overlapping(&read) {
                None => Some(read),
                Some((first, second)) => schedule.refuse(
                    format!("items {first} and {second} overlap: which of their limits holds is not said"),
                    problems,
                ),
            }
        });
        let connections = fields.optional("connections", problems, |connections, problems| {
            connections.number(1, MOST_CONNECTIONS, problems)
        });
        let link = Self {
            to: to?,
            bandwidth_limit: bandwidth_limit?,
            schedule: schedule?.unwrap_or_default(),
            connections: connections?,
        };
        if link.bandwidth_limit.is_none() && link.schedule.is_empty() && link.connections.is_none() {
            return at.refuse(
                "`bandwidthLimit`, `schedule` or `connections` must be given",
                problems,
            );
        }
        Some(link)
    }
}

impl LinkHours {
    /// On which days it begins.
    #[must_use]
    pub fn days(&self) -> &[Weekday] {
        &self.days
    }

    /// When it begins.
    #[must_use]
    pub fn from(&self) -> TimeOfDay {
        self.from
    }

    /// When it ends; not later than its begin is on the day after.
    #[must_use]
    pub fn to(&self) -> TimeOfDay {
        self.to
    }

    /// How many bytes a second may be sent; `None` is not limited.
    #[must_use]
    pub fn limit(&self) -> Option<ByteCount> {
        self.limit
    }

    /// How many minutes it lasts.
    fn minutes(&self) -> u32 {
        if self.to > self.from {
            self.to.0 - self.from.0
        } else {
            MINUTES_OF_A_DAY - self.from.0 + self.to.0
        }
    }

    fn read(at: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(at, &["days", "from", "to", "limit"], problems)?;
        let days = fields.optional("days", problems, |days, problems| {
            let mut read = days.list(DAYS.len(), problems, |day, problems| {
                day.choice("a day of the week", &DAYS, problems)
            })?;
            read.sort_unstable();
            read.dedup();
            if read.is_empty() {
                return days.refuse("is empty: leave it out for every day", problems);
            }
            Some(read)
        });
        let from = fields.required("from", problems, Cursor::parsed::<TimeOfDay>);
        let to = fields.required("to", problems, |to, problems| {
            let read = to.parsed::<TimeOfDay>(problems)?;
            if from == Some(read) {
                return to.refuse(
                    "is when it begins; a whole day is from `00:00` to `24:00`",
                    problems,
                );
            }
            Some(read)
        });
        let limit = fields.optional("limit", problems, read_limit);
        Some(Self {
            days: days?.unwrap_or_else(|| DAYS.map(|(_, day)| day).to_vec()),
            from: from?,
            to: to?,
            limit: limit?,
        })
    }
}

fn read_limit(at: &Cursor<'_>, problems: &mut Problems) -> Option<ByteCount> {
    let read = at.size(problems)?;
    if read < LEAST_LIMIT {
        let least = size::format_size(LEAST_LIMIT);
        return at.refuse(format!("must be at least `{least}` a second"), problems);
    }
    Some(read)
}

/// Which two items of a schedule, counted from 1, hold at one minute of the week.
fn overlapping(schedule: &[LinkHours]) -> Option<(usize, usize)> {
    let mut minutes = std::collections::BTreeMap::new();
    for (number, hours) in (1..).zip(schedule) {
        for day in &hours.days {
            let start = day.number() * MINUTES_OF_A_DAY + hours.from.0;
            for minute in start..start + hours.minutes() {
                let earlier = minutes.insert(minute % MINUTES_OF_A_WEEK, number);
                if let Some(earlier) = earlier {
                    return Some((earlier, number));
                }
            }
        }
    }
    None
}

impl Weekday {
    /// From 0 for Monday.
    #[must_use]
    pub fn number(self) -> u32 {
        DAYS.iter()
            .zip(0..)
            .find(|((_, day), _)| *day == self)
            .map_or(0, |(_, number)| number)
    }

    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        DAYS.iter()
            .find(|(_, day)| *day == self)
            .map_or("", |(name, _)| name)
    }
}

impl Serialize for Weekday {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl TimeOfDay {
    /// How many minutes after midnight.
    #[must_use]
    pub fn minute(self) -> u32 {
        self.0
    }
}

impl FromStr for TimeOfDay {
    type Err = TextRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let minute = text.split_once(':').and_then(|(hour, minute)| {
            let hour = number(hour)?;
            let minute = number(minute).filter(|minute| *minute < 60)?;
            Some(hour * 60 + minute).filter(|whole| *whole <= MINUTES_OF_A_DAY)
        });
        match minute.map(Self) {
            Some(time) if time.to_string() == text => Ok(time),
            other => {
                let whole_hour = || {
                    number(text)
                        .filter(|hour| *hour <= 24)
                        .map(|hour| Self(hour * 60))
                };
                let meant = other.or_else(whole_hour).map(|time| time.to_string());
                Err(TextRefused::new(
                    text,
                    "a time of day between `00:00` and `24:00`, in UTC",
                    meant,
                ))
            }
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

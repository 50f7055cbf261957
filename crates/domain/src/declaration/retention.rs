//! Which recovery points a policy keeps, as declared. What follows from it for a chain is the vault's to decide.

use std::time::Duration;

use farshore_blocks::ByteCount;
use serde::Serialize;

use super::{cursor::Cursor, duration, fields::Fields, policy::read_between, problems::Problems, size};

const LONGEST_KEEP_ALL: Duration = Duration::from_secs(366 * 24 * 3600);
/// A bound against slips of the finger: more than a year of hours.
const MOST_SLOTS: u32 = 10_000;
/// Space comes back by whole segments of the vault, which are as large as this.
const LEAST_LIMIT: ByteCount = ByteCount(256 << 20);
const FIELDS: [&str; 7] = [
    "keepAll", "hourly", "daily", "weekly", "monthly", "yearly", "limit",
];

/// How many recovery points are kept of what age, and how much they may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    #[serde(serialize_with = "duration::serialize")]
    keep_all: Duration,
    hourly: u32,
    daily: u32,
    weekly: u32,
    monthly: u32,
    yearly: u32,
    #[serde(
        serialize_with = "size::serialize_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    limit: Option<ByteCount>,
}

/// All of a day, 7 days and 4 weeks, as the vault's own default is.
impl Default for Retention {
    fn default() -> Self {
        Self {
            keep_all: Duration::from_secs(24 * 3600),
            hourly: 0,
            daily: 7,
            weekly: 4,
            monthly: 0,
            yearly: 0,
            limit: None,
        }
    }
}

impl Retention {
    /// The window before the newest point in which every point stays.
    #[must_use]
    pub fn keep_all(&self) -> Duration {
        self.keep_all
    }

    /// Of how many hours before the window one point stays.
    #[must_use]
    pub fn hourly(&self) -> u32 {
        self.hourly
    }

    /// Of how many days before the window one point stays.
    #[must_use]
    pub fn daily(&self) -> u32 {
        self.daily
    }

    /// Of how many weeks before the window one point stays.
    #[must_use]
    pub fn weekly(&self) -> u32 {
        self.weekly
    }

    /// Of how many months before the window one point stays.
    #[must_use]
    pub fn monthly(&self) -> u32 {
        self.monthly
    }

    /// Of how many years before the window one point stays.
    #[must_use]
    pub fn yearly(&self) -> u32 {
        self.yearly
    }

    /// How much the points of one VM may take in the vault; `None` is not limited.
    #[must_use]
    pub fn limit(&self) -> Option<ByteCount> {
        self.limit
    }

    /// What is left out is as in the default.
    pub(super) fn read(at: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(at, &FIELDS, problems)?;
        let keep_all = fields.optional("keepAll", problems, |window, problems| {
            read_between(window, Duration::ZERO, LONGEST_KEEP_ALL, problems)
        });
        let mut slots = |tier| {
            fields.optional(tier, problems, |number, problems| {
                number.number(0, MOST_SLOTS, problems)
            })
        };
        let (hourly, daily, weekly) = (slots("hourly"), slots("daily"), slots("weekly"));
        let (monthly, yearly) = (slots("monthly"), slots("yearly"));
        let limit = fields.optional("limit", problems, |limit, problems| {
            let read = limit.size(problems)?;
            if read < LEAST_LIMIT {
                let least = size::format_size(LEAST_LIMIT);
                return limit.refuse(format!("must be at least `{least}`"), problems);
            }
            Some(read)
        });
        let default = Self::default();
        Some(Self {
            keep_all: keep_all?.unwrap_or(default.keep_all),
            hourly: hourly?.unwrap_or(default.hourly),
            daily: daily?.unwrap_or(default.daily),
            weekly: weekly?.unwrap_or(default.weekly),
            monthly: monthly?.unwrap_or(default.monthly),
            yearly: yearly?.unwrap_or(default.yearly),
            limit: limit?,
        })
    }
}

//! Fast mode: cycles of less than a second, as far as the guest is not slowed down by them.

use serde::{Serialize, Serializer};

use super::{cursor::Cursor, fields::Fields, problems::Problems, text::TextRefused};

/// Cycles may follow each other faster than once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FastMode {
    guest_cost_limit: Percent,
}

impl Default for FastMode {
    fn default() -> Self {
        Self {
            guest_cost_limit: Percent(10),
        }
    }
}

impl FastMode {
    /// For how much of the time at most the guest's writes may be held: where one cycle held them for long, the next
    /// begins later.
    #[must_use]
    pub fn guest_cost_limit(self) -> Percent {
        self.guest_cost_limit
    }

    pub(super) fn read(at: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(at, &["guestCostLimit"], problems)?;
        let limit = fields.optional("guestCostLimit", problems, |limit, problems| {
            limit.parsed::<Percent>(problems)
        });
        Some(Self {
            guest_cost_limit: limit?.unwrap_or(Self::default().guest_cost_limit),
        })
    }
}

/// A part of a hundred, from 1 to 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// The number before the sign.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}%", self.0)
    }
}

impl std::str::FromStr for Percent {
    type Err = TextRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse().ok().filter(|number| (1..=50).contains(number));
        text.strip_suffix('%').and_then(number).map(Self).ok_or_else(|| {
            let meant = number(text.trim()).map(|number| format!("{number}%"));
            TextRefused::new(text, "a percentage between `1%` and `50%`", meant)
        })
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

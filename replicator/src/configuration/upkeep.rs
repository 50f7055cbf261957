//! How much of the disk's time the upkeep of a vault may take.

use std::{fmt, num::NonZeroU64};

use farshore_blocks::parse_size;
use serde::{Deserialize, Deserializer, de};

const DEFAULT_MAINTENANCE_RATE: u64 = 64 << 20;
const DEFAULT_SCRUB_RATE: u64 = 8 << 20;

/// Bounds of the work in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VaultUpkeep {
    /// What thinning, merging and compaction read and write together.
    pub maintenance_rate: BytesPerSecond,
    /// What is read again to find damage.
    pub scrub_rate: BytesPerSecond,
}

/// A rate, written as the size that it moves in a second: `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesPerSecond(pub NonZeroU64);

impl Default for VaultUpkeep {
    fn default() -> Self {
        let rate = |bytes| BytesPerSecond(NonZeroU64::new(bytes).unwrap_or(NonZeroU64::MAX));
        Self {
            maintenance_rate: rate(DEFAULT_MAINTENANCE_RATE),
            scrub_rate: rate(DEFAULT_SCRUB_RATE),
        }
    }
}

impl<'de> Deserialize<'de> for BytesPerSecond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl de::Visitor<'_> for RateVisitor {
    type Value = BytesPerSecond;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("bytes a second, as a size like `64MiB`")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<BytesPerSecond, E> {
        NonZeroU64::new(bytes).map(BytesPerSecond).ok_or_else(|| {
            E::custom(
                "a rate of nothing is refused: without upkeep a vault only grows, and damage stays unseen",
            )
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<BytesPerSecond, E> {
        let size = parse_size(text).map_err(|refused| match &refused.suggestion {
            Some(meant) => E::custom(format!("{refused}; is `{meant}` meant?")),
            None => E::custom(refused),
        })?;
        self.visit_u64(size.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> BytesPerSecond {
        BytesPerSecond(NonZeroU64::new(bytes).unwrap())
    }

    #[test]
    fn rates_are_sizes_and_what_is_left_out_has_its_default() {
        let read: VaultUpkeep = serde_yaml::from_str("scrubRate: 1.5MiB").unwrap();
        assert_eq!(
            (read.scrub_rate, read.maintenance_rate),
            (rate(3 << 19), rate(64 << 20))
        );
        let bare: VaultUpkeep = serde_yaml::from_str("maintenanceRate: 4096").unwrap();
        assert_eq!(bare.maintenance_rate, rate(4096));
        assert_eq!(
            serde_yaml::from_str::<VaultUpkeep>("{}").unwrap(),
            VaultUpkeep::default()
        );
    }

    #[test]
    fn a_rate_of_nothing_and_an_ambiguous_one_are_refused() {
        let refusal = |text| serde_yaml::from_str::<VaultUpkeep>(text).unwrap_err().to_string();
        assert!(refusal("scrubRate: 0").contains("a rate of nothing"));
        assert!(refusal("scrubRate: 8M").contains("`8MiB`"));
        assert!(refusal("scrubrate: 8MiB").contains("unknown field"));
        assert!(refusal("scrubRate: [1]").contains("as a size like"));
    }
}

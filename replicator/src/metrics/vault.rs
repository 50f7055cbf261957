//! What is counted of the upkeep of a vault.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::ByteCount;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::kept;

const WRITTEN: &str = "written";
const GIVEN_BACK: &str = "given_back";

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct VaultMetrics {
    points_dropped: IntCounter,
    maintenance_bytes: IntCounterVec,
    scrubbed_bytes: IntCounter,
    scrub_passes: IntCounter,
    damaged_places: IntGaugeVec,
    /// Which VMs have a series of damaged places.
    shown: Arc<Mutex<BTreeSet<String>>>,
}

impl VaultMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| kept(registry, IntCounter::new(name, help)?);
        let metrics = Self {
            points_dropped: counter("vault_points_dropped_total", "Points that retention let go.")?,
            maintenance_bytes: kept(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "vault_maintenance_bytes_total",
                        "Bytes that maintenance wrote, and by how many it made the vault smaller.",
                    ),
                    &["what"],
                )?,
            )?,
            scrubbed_bytes: counter(
                "vault_scrubbed_bytes_total",
                "Bytes that were read again to find damage.",
            )?,
            scrub_passes: counter(
                "vault_scrub_passes_total",
                "How often all that a chain keeps was read.",
            )?,
            damaged_places: kept(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "vault_damaged_places",
                        "Places that retained points need and that cannot be read as written.",
                    ),
                    &["vm"],
                )?,
            )?,
            shown: Arc::default(),
        };
        for what in [WRITTEN, GIVEN_BACK] {
            // Rates need a zero to begin with.
            metrics.maintenance_bytes.get_metric_with_label_values(&[what])?;
        }
        Ok(metrics)
    }

    pub(crate) fn dropped(&self, points: usize) {
        self.points_dropped.inc_by(u64::try_from(points).unwrap_or(0));
    }

    pub(crate) fn maintained(&self, written: ByteCount, given_back: ByteCount) {
        for (what, bytes) in [(WRITTEN, written), (GIVEN_BACK, given_back)] {
            self.maintenance_bytes.with_label_values(&[what]).inc_by(bytes.0);
        }
    }

    pub(crate) fn scrubbed(&self, bytes: ByteCount) {
        self.scrubbed_bytes.inc_by(bytes.0);
    }

    pub(crate) fn scrub_pass(&self) {
        self.scrub_passes.inc();
    }

    /// How many damaged places each VM of the vault has; series of VMs that are not named go.
    pub(crate) fn damaged(&self, places: &BTreeMap<String, u64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.iter().filter(|vm| !places.contains_key(*vm)) {
            // An absent series is as good as a removed one.
            let _ = self.damaged_places.remove_label_values(&[gone]);
        }
        for (vm, count) in places {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.damaged_places.with_label_values(&[vm]).set(count);
        }
        *shown = places.keys().cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn every_metric_is_in_the_document_with_its_meaning() {
        let document = include_str!("../../../docs/metrics.md");
        let metrics = Metrics::new().unwrap();
        metrics.vault().damaged(&BTreeMap::from([("db".to_owned(), 0)]));
        let text = metrics.render().unwrap();
        let helps: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
            .filter(|(name, _)| name.starts_with("farshore_"))
            .collect();
        assert!(helps.len() >= 5, "{helps:?}");
        for (name, help) in helps {
            let row = document
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")))
                .unwrap_or_else(|| panic!("{name} is not documented"));
            assert!(row.ends_with(&format!("| replicator | {help} |")), "{row}");
        }
    }

    #[test]
    fn the_series_of_a_vm_goes_with_it() {
        let metrics = Metrics::new().unwrap();
        let series = "farshore_vault_damaged_places{vm=\"db\"} 3";
        metrics.vault().damaged(&BTreeMap::from([("db".to_owned(), 3)]));
        assert!(metrics.render().unwrap().contains(series));
        metrics.vault().damaged(&BTreeMap::from([("web".to_owned(), 0)]));
        let text = metrics.render().unwrap();
        assert!(
            !text.contains("\"db\"") && text.contains("{vm=\"web\"} 0"),
            "{text}"
        );
    }
}

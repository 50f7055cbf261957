//! The control plane's metrics. Names, types, labels and meanings are those of the table in docs/metrics.md.
//!
//! What is true now is built anew from each snapshot, so that series of what no longer exists are gone, and a scrape
//! sees one snapshot whole. What happened is counted, and stays until the process ends.

mod gauges;
mod labels;
mod snapshot;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
    process_collector::ProcessCollector,
};

pub use snapshot::{ControlSnapshot, ReplicatorSnapshot, SyncProgress, VaultSnapshot, VmSnapshot};

const PREFIX: &str = "farshore";

/// From the order until the VM runs, in seconds: a rehearsal takes seconds, a bad night minutes.
const FAILOVER_SECONDS: [f64; 12] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
];

/// Which failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailoverKind {
    /// Into an isolated network.
    Test,
    /// With what the vault has.
    Unplanned,
}

/// How a failover ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailoverResult {
    /// The VM runs.
    Succeeded,
    /// It does not.
    Failed,
    /// Somebody took the order back.
    Cancelled,
}

/// All metrics of the control plane; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    counted: Registry,
    process: Registry,
    failovers: IntCounterVec,
    failover_duration: HistogramVec,
    now: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// Metrics of a control plane that has seen nothing yet.
    ///
    /// # Errors
    /// When two metrics have the same name, which is a defect.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counted = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let failovers = IntCounterVec::new(
            Opts::new("failovers_total", "Failovers that ended, by kind and result."),
            &["kind", "result"],
        )?;
        let failover_duration = HistogramVec::new(
            HistogramOpts::new(
                "failover_duration_seconds",
                "From the order of a failover until the VM ran.",
            )
            .buckets(FAILOVER_SECONDS.to_vec()),
            &["kind"],
        )?;
        counted.register(Box::new(failovers.clone()))?;
        counted.register(Box::new(failover_duration.clone()))?;
        for kind in FailoverKind::ALL {
            // Rates need a zero to begin with.
            failover_duration.get_metric_with_label_values(&[kind.label()])?;
            for result in FailoverResult::ALL {
                failovers.get_metric_with_label_values(&[kind.label(), result.label()])?;
            }
        }
        // A registry of its own, since the prefix of the other would rename the process's standard metrics.
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            counted,
            process,
            failovers,
            failover_duration,
            now: Arc::default(),
        })
    }

    /// Replaces what is true now.
    ///
    /// # Errors
    /// When two metrics have the same name or labels do not fit, which is a defect; the earlier snapshot stays.
    pub fn update(&self, snapshot: &ControlSnapshot) -> Result<(), prometheus::Error> {
        let fresh = gauges::registry(snapshot)?;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Counts a failover that ended; its duration is from the order until the VM ran, and only counts if it did.
    pub fn failover_ended(&self, kind: FailoverKind, result: FailoverResult, duration: Duration) {
        self.failovers
            .with_label_values(&[kind.label(), result.label()])
            .inc();
        if result == FailoverResult::Succeeded {
            self.failover_duration
                .with_label_values(&[kind.label()])
                .observe(duration.as_secs_f64());
        }
    }

    /// Everything in the text format that Prometheus scrapes.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a defect.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut families = now.gather();
        families.extend(self.counted.gather());
        families.extend(self.process.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

impl FailoverKind {
    const ALL: [Self; 2] = [Self::Test, Self::Unplanned];

    fn label(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Unplanned => "unplanned",
        }
    }
}

impl FailoverResult {
    const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Cancelled];

    fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests;

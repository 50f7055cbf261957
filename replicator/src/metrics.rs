//! The replicator's own metrics: cycles, bytes and holds, and the upkeep of a vault. Names, labels and meanings are listed in docs/metrics.md.

mod vault;

use std::time::Duration;

use farshore_blocks::{ByteCount, Encoding};
use farshore_transfer::Change;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector, process_collector::ProcessCollector,
};

pub(crate) use vault::VaultMetrics;

/// A part of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CyclePhase {
    /// The hold of the guest's writes.
    Pause,
    /// Reading what was captured.
    Read,
    /// Sending it, with the wait for acknowledgements.
    Send,
    /// From the seal to its answer.
    Seal,
}

/// How a cycle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CycleResult {
    /// It is a point.
    Sealed,
    /// It is not.
    Failed,
}

/// All metrics of this process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    process: Registry,
    cycle_duration: HistogramVec,
    guest_pause: Histogram,
    replicated_bytes: IntCounterVec,
    wire_bytes: IntCounter,
    cycles: IntCounterVec,
    audit_mismatches: IntCounterVec,
    vault: VaultMetrics,
}

const SECONDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0,
];

impl Metrics {
    /// Registers everything.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("farshore".to_owned()), None)?;
        // Process metrics keep their standard names, without our prefix.
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            cycle_duration: kept(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new("cycle_duration_seconds", "Duration of the phases of cycles.")
                        .buckets(SECONDS.to_vec()),
                    &["phase"],
                )?,
            )?,
            guest_pause: kept(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "guest_pause_seconds",
                        "How long guests' writes were held for a capture.",
                    )
                    .buckets(SECONDS.to_vec()),
                )?,
            )?,
            replicated_bytes: kept(
                &registry,
                IntCounterVec::new(
                    Opts::new("replicated_bytes_total", "Raw bytes shipped, by VM and encoding."),
                    &["vm", "encoding"],
                )?,
            )?,
            wire_bytes: kept(
                &registry,
                IntCounter::new(
                    "wire_bytes_total",
                    "Payload bytes sent to targets; what is sent again after a cut counts again.",
                )?,
            )?,
            cycles: kept(
                &registry,
                IntCounterVec::new(
                    Opts::new("cycles_total", "Cycles, by VM and result."),
                    &["vm", "result"],
                )?,
            )?,
            audit_mismatches: kept(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "audit_mismatches_total",
                        "Blocks in which source and replica were found to differ, by VM.",
                    ),
                    &["vm"],
                )?,
            )?,
            vault: VaultMetrics::register(&registry)?,
            registry,
            process,
        })
    }

    pub(crate) fn cycle_phase(&self, phase: CyclePhase, took: Duration) {
        let label = match phase {
            CyclePhase::Pause => "pause",
            CyclePhase::Read => "read",
            CyclePhase::Send => "send",
            CyclePhase::Seal => "seal",
        };
        self.cycle_duration
            .with_label_values(&[label])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn guest_pause(&self, held: Duration) {
        self.guest_pause.observe(held.as_secs_f64());
    }

    pub(crate) fn cycle_ended(&self, vm: &str, result: CycleResult) {
        let label = match result {
            CycleResult::Sealed => "sealed",
            CycleResult::Failed => "failed",
        };
        self.cycles.with_label_values(&[vm, label]).inc();
    }

    /// The audit of a VM found so many blocks that differ; with 0 its series begins.
    pub(crate) fn audit_mismatches(&self, vm: &str, blocks: u64) {
        self.audit_mismatches.with_label_values(&[vm]).inc_by(blocks);
    }

    /// One change was shipped, for the first time.
    pub(crate) fn shipped(&self, vm: &str, change: &Change) {
        let frame = change.frame();
        let label = match (change, frame.encoding()) {
            (Change::Seeded(_), _) => "seed",
            (Change::Sent(_), Encoding::Raw) => "raw",
            (Change::Sent(_), Encoding::Zero) => "zero",
            (Change::Sent(_), Encoding::Zstd) => "zstd",
        };
        self.replicated_bytes
            .with_label_values(&[vm, label])
            .inc_by(frame.raw_length().0);
    }

    /// So much payload was given to a stream.
    pub(crate) fn sent(&self, payload: ByteCount) {
        self.wire_bytes.inc_by(payload.0);
    }

    /// A VM is no longer replicated from here: its series go.
    pub(crate) fn forget(&self, vm: &str) {
        let _ = self.audit_mismatches.remove_label_values(&[vm]);
        for label in ["raw", "zero", "zstd", "seed"] {
            // An absent series is as good as a removed one.
            let _ = self.replicated_bytes.remove_label_values(&[vm, label]);
        }
        for label in ["sealed", "failed"] {
            let _ = self.cycles.remove_label_values(&[vm, label]);
        }
    }

    /// Those of the vault.
    pub(crate) fn vault(&self) -> &VaultMetrics {
        &self.vault
    }

    /// In the text format that Prometheus scrapes.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn kept<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

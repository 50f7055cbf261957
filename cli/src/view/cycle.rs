//! Where the time of a VM's last cycle went, and what its audit found, as shown.

use farshore_proto::v1;
use serde::Serialize;

use super::seconds;
use crate::output::{
    format,
    format::{optional_seconds, size},
};

/// The last cycle, phase by phase.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CycleTimesView {
    pub(crate) begin_seconds: Option<f64>,
    pub(crate) read_seconds: Option<f64>,
    pub(crate) send_seconds: Option<f64>,
    pub(crate) seal_seconds: Option<f64>,
    pub(crate) changed_bytes: u64,
}

/// How far the comparison of source and replica has come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditView {
    pub(crate) compared_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) passes: u64,
    /// `null`: none has ended since the replicator was started.
    pub(crate) last_pass_at: Option<String>,
    pub(crate) mismatches: u64,
    /// `null`: none was found since the replicator was started.
    pub(crate) last_mismatch: Option<AuditMismatchView>,
}

/// A block that differed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditMismatchView {
    pub(crate) volume: String,
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u64,
    pub(crate) point: u64,
    pub(crate) at: Option<String>,
}

impl CycleTimesView {
    /// `4.0 MiB: begin 12 ms, read 8 ms, send 31 ms, seal 5 ms`
    pub(crate) fn in_words(&self) -> String {
        format!(
            "{}: begin {}, read {}, send {}, seal {}",
            size(self.changed_bytes),
            optional_seconds(self.begin_seconds),
            optional_seconds(self.read_seconds),
            optional_seconds(self.send_seconds),
            optional_seconds(self.seal_seconds)
        )
    }
}

impl AuditView {
    /// `12 GiB of 40 GiB compared in this pass, 3 passes before, no difference`
    pub(crate) fn in_words(&self) -> String {
        let found = match (self.mismatches, &self.last_mismatch) {
            (0, _) | (_, None) => "no difference".to_owned(),
            (blocks, Some(last)) => format!(
                "{blocks} blocks differed, the last in `{}` at {} (point {})",
                last.volume, last.offset_bytes, last.point
            ),
        };
        if self.total_bytes == 0 {
            return format::NOTHING.to_owned();
        }
        format!(
            "{} of {} compared in this pass, {} passes before, {found}",
            size(self.compared_bytes),
            size(self.total_bytes),
            self.passes
        )
    }
}

impl From<v1::CycleTimes> for CycleTimesView {
    fn from(times: v1::CycleTimes) -> Self {
        Self {
            begin_seconds: seconds(times.begin),
            read_seconds: seconds(times.read),
            send_seconds: seconds(times.send),
            seal_seconds: seconds(times.seal),
            changed_bytes: times.changed_bytes,
        }
    }
}

impl From<v1::AuditStatus> for AuditView {
    fn from(audit: v1::AuditStatus) -> Self {
        Self {
            compared_bytes: audit.compared_bytes,
            total_bytes: audit.total_bytes,
            passes: audit.passes,
            last_pass_at: super::time(audit.last_pass_at),
            mismatches: audit.mismatches,
            last_mismatch: audit.last_mismatch.map(AuditMismatchView::from),
        }
    }
}

impl From<v1::AuditMismatch> for AuditMismatchView {
    fn from(mismatch: v1::AuditMismatch) -> Self {
        Self {
            volume: mismatch.volume,
            offset_bytes: mismatch.offset_bytes,
            length_bytes: mismatch.length_bytes,
            point: mismatch.point,
            at: super::time(mismatch.at),
        }
    }
}

//! A replication policy, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, seconds};
use crate::output::format;

/// How often points are made and how much may be lost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    pub(crate) name: String,
    pub(crate) interval_seconds: Option<f64>,
    pub(crate) rpo_target_seconds: Option<f64>,
    /// `null`: not limited.
    pub(crate) bandwidth_limit_bytes_per_second: Option<u64>,
}

impl From<v1::Policy> for PolicyView {
    fn from(policy: v1::Policy) -> Self {
        Self {
            name: policy.name,
            interval_seconds: seconds(policy.interval),
            rpo_target_seconds: seconds(policy.rpo_target),
            bandwidth_limit_bytes_per_second: Some(policy.bandwidth_bytes_per_second)
                .filter(|limit| *limit > 0),
        }
    }
}

impl Listed for PolicyView {
    const HEADINGS: &'static [&'static str] = &["name", "interval", "rpo target", "bandwidth limit"];
    const WIDE_HEADINGS: &'static [&'static str] = &[];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now: WallTime) -> Vec<String> {
        let limit = self.bandwidth_limit_bytes_per_second;
        vec![
            self.name.clone(),
            format::optional_seconds(self.interval_seconds),
            format::optional_seconds(self.rpo_target_seconds),
            limit.map_or_else(|| "none".to_owned(), |bytes| format!("{}/s", format::size(bytes))),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        Vec::new()
    }
}

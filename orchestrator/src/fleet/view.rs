//! What is known of the replicators, for whoever shows it or decides by it.

use std::collections::BTreeMap;

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;

/// All replicators that have attached since the orchestrator began, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetView {
    /// By name.
    pub replicators: BTreeMap<String, ReplicatorView>,
}

/// One replicator. Everything in it was checked when it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicatorView {
    /// What it said of itself when it last attached.
    pub register: v1::Register,
    /// Whether it is attached and reports in time.
    pub up: bool,
    /// When something was last heard of it, by the orchestrator's clock.
    pub last_seen: WallTime,
    /// Its last report, if there was one; it may be of an earlier process of this name.
    pub report: Option<v1::Report>,
    /// When that report was received, by the orchestrator's clock.
    pub reported_at: Option<WallTime>,
}

//! What a source shows of itself: its phase, how far it has come, and why it waits.

use std::time::Duration;

use farshore_blocks::ByteCount;
use farshore_transfer::PointHead;

/// Where replication of one VM stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourcePhase {
    /// Assigned; not enabled yet.
    Installed,
    /// On its way to the VM's monitor or to the target.
    Connecting,
    /// The first scan is under way.
    InitialSync,
    /// The first point is being sealed.
    AwaitingPoint,
    /// Cycle follows cycle.
    Replicating,
    /// A scan over existing points is under way.
    Resynchronizing,
    /// The target refuses this epoch for good.
    Fenced,
}

/// All that is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceState {
    pub(crate) phase: SourcePhase,
    /// Why it waits, or what failed last; empty when all is well.
    pub(crate) detail: String,
    pub(crate) sync_done: ByteCount,
    pub(crate) sync_total: ByteCount,
    pub(crate) sync_bytes_per_second: f64,
    pub(crate) backlog: ByteCount,
    pub(crate) last_cycle: Option<Duration>,
    pub(crate) last_hold: Option<Duration>,
    pub(crate) newest: Option<PointHead>,
}

impl SourceState {
    /// Nothing has happened yet.
    pub(crate) fn new(phase: SourcePhase) -> Self {
        Self {
            phase,
            detail: String::new(),
            sync_done: ByteCount(0),
            sync_total: ByteCount(0),
            sync_bytes_per_second: 0.0,
            backlog: ByteCount(0),
            last_cycle: None,
            last_hold: None,
            newest: None,
        }
    }
}

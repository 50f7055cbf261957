//! What a source shows of itself: its phase, how far it has come, and why it waits.

use std::time::Duration;

use farshore_blocks::{ByteCount, Extent, Sequence, VolumeIndex, clock::WallTime};
use farshore_transfer::PointHead;

use super::{gathering::GroupInstant, volumes::ReplicatedVolume};

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
    pub(crate) last_cycle: Option<CycleTimes>,
    pub(crate) newest: Option<PointHead>,
    pub(crate) audit: AuditState,
    /// Why the last point that should have been application-consistent is not; empty if it is, or none was wished.
    pub(crate) app_consistency_missed: String,
    /// What the newest point has; empty while nobody knows.
    pub(crate) volumes: Vec<ReplicatedVolume>,
    /// Nothing has happened to it without a group.
    pub(crate) group: GroupState,
    /// The last time that tracking of a VM that has points was lost.
    pub(crate) tracking_lost: Option<TrackingLost>,
}

/// Source and replica had to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrackingLost {
    /// When that was noticed.
    pub(crate) at: WallTime,
    pub(crate) why: String,
}

/// What became of its instants with its consistency group since this process began.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GroupState {
    /// The newest that all members have sealed.
    pub(crate) newest: Option<GroupInstant>,
    /// Why the newest point is not of an instant of the group; empty if it is.
    pub(crate) missed: String,
    /// For how long at most this guest was held for one.
    pub(crate) longest_hold: Duration,
    /// How many points are of one.
    pub(crate) instants: u64,
}

/// Where the time of a cycle went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CycleTimes {
    /// From its begin until it could begin to read: bitmaps, filters, the instant.
    pub(crate) begin: Duration,
    /// How long the guest's writes were held for it; a part of the begin.
    pub(crate) hold: Duration,
    /// Waiting for the disks' bytes.
    pub(crate) read: Duration,
    /// Waiting for the link, its limits, and the target.
    pub(crate) send: Duration,
    /// From the last acknowledgement to the sealed point.
    pub(crate) seal: Duration,
    /// All of it, with the capture's end and what the audit compared.
    pub(crate) took: Duration,
    /// How many bytes of data it had to ship.
    pub(crate) changed: ByteCount,
}

/// What the audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AuditState {
    /// How much of this pass is done.
    pub(crate) compared: ByteCount,
    pub(crate) total: ByteCount,
    /// How many passes ended since this process began.
    pub(crate) passes: u64,
    pub(crate) last_pass_at: Option<WallTime>,
    /// How many blocks differed since this process began.
    pub(crate) mismatches: u64,
    pub(crate) last_mismatch: Option<AuditMismatch>,
    /// Whether no pass without a mismatch has ended since the last one.
    pub(crate) suspect: bool,
}

/// A block that differed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditMismatch {
    pub(crate) volume: VolumeIndex,
    pub(crate) block: Extent,
    /// The point that it differed from.
    pub(crate) point: Sequence,
    pub(crate) at: WallTime,
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
            newest: None,
            audit: AuditState::default(),
            app_consistency_missed: String::new(),
            volumes: Vec::new(),
            group: GroupState::default(),
            tracking_lost: None,
        }
    }
}

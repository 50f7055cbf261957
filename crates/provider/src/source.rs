//! The source of captures: *begin → extents of every volume at one instant, read, finish*.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, Extent, Incarnation, Sequence, VolumeIndex, clock::WallTime,
};

use crate::{
    check::Check,
    round::{Accord, Participant},
};

/// Relative to what changes are tracked: a bitmap of any other vault or chain is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackingIdentity {
    /// Of the vault at the target.
    pub vault: Incarnation,
    /// The chain in it.
    pub chain: ChainId,
}

/// Whether a whole-disk scan towards the next point has been begun at the target and not been sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanState {
    /// None is open.
    None,
    /// One is, and holds what was sent so far.
    Open,
}

/// What the target has of the chain: the truth that leftovers at the source are judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaState {
    /// The newest sealed point; 0 if there is none.
    pub newest: Sequence,
    /// How large each volume is in that point, in the machine's order; 0: it is not in it. Empty: as large as it is now.
    pub sizes: Vec<ByteCount>,
    /// Whether an unsealed scan towards `newest + 1` is open there.
    pub scan: ScanState,
}

/// What the source's tracking is good for after leftovers were cleaned up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracking {
    /// Every change since the newest sealed point is known: an ordinary cycle may follow.
    SincePoint,
    /// Every change since the open scan began is known: the scan may go on from its watermarks.
    SinceScan,
    /// Neither: a new scan must begin. The reason is for people.
    Lost {
        /// Why tracking was lost or never began.
        why: String,
    },
}

/// What a capture is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureKind {
    /// All of the live disks, without a snapshot: bytes may change while they are read, tracking knows which.
    Scan,
    /// What changed since the scan, or the last such round, began: again live.
    Round,
    /// What changed since the last point (or in the scan's last round), as it was at one instant of all volumes.
    Instant,
    /// The same, and all other bytes can be read as they were, too, where the source can do that.
    WholeInstant,
}

impl CaptureKind {
    /// Whether it is of one instant.
    #[must_use]
    pub fn is_instant(self) -> bool {
        match self {
            Self::Instant | Self::WholeInstant => true,
            Self::Scan | Self::Round => false,
        }
    }
}

/// What bytes are known to be without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateOfBytes {
    /// They must be read.
    Data,
    /// They read as zero.
    Zero,
}

/// An extent and what is known of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatedExtent {
    /// Which bytes.
    pub extent: Extent,
    /// What is known of them.
    pub state: StateOfBytes,
}

/// What a capture holds of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedVolume {
    /// Which volume.
    pub index: VolumeIndex,
    /// Its size now. It may be larger than in the capture before: a disk can grow while it is protected.
    pub size: ByteCount,
    /// In ascending order, not overlapping. A scan covers the whole volume with them; the others hold all by which a disk
    /// grew since the last capture that was done, or beyond the size that [`Source::attach`] was told.
    pub extents: Vec<StatedExtent>,
}

/// How a capture's use ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was shipped (a round) or sealed (an instant): the next capture begins from here.
    Done,
    /// It was not, or nobody knows: the next capture must give these extents again.
    Failed,
}

/// What an instant is consistent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// As after a power cut: every write that was completed before the instant is there.
    Crash {
        /// Why it is no more than that, if more was wished.
        why: Option<String>,
    },
    /// The guest's file systems were flushed and took no writes, and its applications were told so.
    Application,
}

/// Why the source could not do it. The VM itself is never harmed by these.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its monitor cannot be reached or does not answer in time.
    #[error("the monitor of VM `{vm}` cannot be used")]
    Monitor {
        /// Which VM.
        vm: String,
        /// What happened on the way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The hypervisor refused a command.
    #[error("the hypervisor of VM `{vm}` refused `{command}`")]
    Refused {
        /// Which VM.
        vm: String,
        /// Which command.
        command: String,
        /// Its answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is not what was declared, or cannot be tracked.
    #[error("VM `{vm}` cannot be captured: {why}")]
    Unfit {
        /// Which VM.
        vm: String,
        /// What is wrong and what would be accepted.
        why: String,
    },
    /// Captured bytes could not be read; the capture is lost, nothing else.
    #[error("reading {extent} of volume {volume} of VM `{vm}` failed")]
    Read {
        /// Which VM.
        vm: String,
        /// Which volume.
        volume: VolumeIndex,
        /// Which bytes.
        extent: Extent,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The scratch space cannot be used.
    #[error("scratch space at {path} cannot be used")]
    Scratch {
        /// Which file or directory.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tracking was lost meanwhile (the VM was restarted, say): call [`Source::attach`] again.
    #[error("tracking of VM `{vm}` was lost: {why}")]
    TrackingLost {
        /// Which VM.
        vm: String,
        /// Why.
        why: String,
    },
}

/// A protected VM's disks, as its site's hypervisor shows them while it runs.
pub trait Source: Send {
    /// What `begin` gives.
    type Capture: Capture;

    /// Looks at every prerequisite at the source.
    fn checks(&mut self) -> impl Future<Output = Vec<Check>> + Send;

    /// The size of every volume, in the machine's order. Nothing may be attached meanwhile.
    fn sizes(&mut self) -> impl Future<Output = Result<Vec<ByteCount>, SourceError>> + Send;

    /// Connects, removes what a dead predecessor left behind, and says what tracking is good for.
    fn attach(
        &mut self,
        identity: TrackingIdentity,
        replica: ReplicaState,
    ) -> impl Future<Output = Result<Tracking, SourceError>> + Send;

    /// Begins tracking afresh, towards the point `next`; earlier tracking is dropped.
    fn begin_scan(&mut self, next: Sequence) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Begins a capture towards the point `next`. At most one is open at a time.
    fn begin(
        &mut self,
        kind: CaptureKind,
        next: Sequence,
    ) -> impl Future<Output = Result<Self::Capture, SourceError>> + Send;

    /// As [`Source::begin`] of an instant, which is to be consistent for the guest's applications. If that cannot be, the
    /// instant is taken nonetheless, and [`Capture::consistency`] says why it is not.
    fn begin_application_consistent(
        &mut self,
        next: Sequence,
    ) -> impl Future<Output = Result<Self::Capture, SourceError>> + Send;

    /// As [`Source::begin`] of an instant (`kind`), which is to be one with that of other VMs. If that cannot be, the
    /// instant is taken nonetheless, for this VM alone, and [`Capture::accord`] says why.
    fn begin_together(
        &mut self,
        kind: CaptureKind,
        next: Sequence,
        participant: Participant,
    ) -> impl Future<Output = Result<Self::Capture, SourceError>> + Send {
        participant.give_up("its source cannot take an instant together with others");
        self.begin(kind, next)
    }

    /// Ends the capture: gives its resources back and settles tracking by the outcome.
    fn finish(
        &mut self,
        capture: Self::Capture,
        outcome: Outcome,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// How many bytes have changed since the last point, as tracking counts them now, and by how many disks grew.
    fn backlog(&mut self) -> impl Future<Output = Result<ByteCount, SourceError>> + Send;

    /// Removes everything that was put beside the VM: it is left as it was before protection. Of a VM that does not
    /// run there is nothing left to remove.
    fn detach(&mut self) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// Extents of every volume, and their bytes. Dropping it without [`Source::finish`] counts as a crash.
pub trait Capture: Send + Sync {
    /// What it holds, in the order of the volumes.
    fn volumes(&self) -> &[CapturedVolume];

    /// When the instant was, by this machine's clock, taken just before it; for live kinds, when they began.
    fn captured_at(&self) -> WallTime;

    /// What its instant is consistent with.
    fn consistency(&self) -> Consistency {
        Consistency::Crash { why: None }
    }

    /// Whether its instant is one with that of the others, where that was asked for.
    fn accord(&self) -> Option<Accord> {
        None
    }

    /// How long the guest's writes were held for it.
    fn held(&self) -> Duration;

    /// Whether the extents of an instant are what changed. If not, they are all that may have, and what differs is to be
    /// found by comparing.
    fn knows_changes(&self) -> bool {
        true
    }

    /// Asked when everything was read, and before it is sealed: whether what was read is of the one instant that it is said
    /// to be of.
    fn confirm(&self) -> impl Future<Output = Result<(), SourceError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether all bytes of the volumes can be read as they were at the instant, not only the captured extents.
    fn holds_all(&self) -> bool {
        false
    }

    /// The bytes of `extent`, which must lie in one of the captured extents unless the capture holds all. Several reads
    /// may be under way.
    fn read(
        &self,
        volume: VolumeIndex,
        extent: Extent,
    ) -> impl Future<Output = Result<Bytes, SourceError>> + Send;

    /// A position behind the last byte of `volume`.
    fn end(&self, volume: VolumeIndex) -> ByteOffset {
        self.volumes()
            .iter()
            .find(|captured| captured.index == volume)
            .map_or(ByteOffset(0), |captured| ByteOffset(captured.size.0))
    }
}

//! The one writer of a chain: opens a cycle, appends its messages, makes them durable, and seals or abandons it.
//!
//! Only what [`ChainWriter::sync`] returned may be acknowledged. Crash story, in the order of the writes:
//!
//! 1. `begin` writes nothing: a cycle without messages leaves no trace. `set_volumes` commits to the journal which
//!    volumes the next point has, before any of their bytes come.
//! 2. `append` writes a group of frames behind all others. Each group says which cycle and message it belongs to and
//!    how far the cycle's proofs have come, so the groups behind the newest point are the open cycle.
//! 3. `sync` syncs the segments, then their directory: from here on the messages are held.
//! 4. `seal` syncs the segments and commits the point's record to the journal: from here on it is listed. The index
//!    needs nothing more: it is made again from the groups, until a flush writes it down.
//! 5. A flush, after many groups, writes their entries as runs and commits these, with the open cycle as it then is.
//! 6. `abandon` commits that what follows begins in a new segment, and only then removes those that died.
//!
//! When a chain is opened, the groups behind its newest point count up to the first that is not whole. A sync that
//! fails leaves it unknown what is durable: the writer then refuses everything, and a new one writes what it finds
//! behind the last known sync once more.

mod building;
mod flush;
mod refused;
mod resume;
mod seal;
mod segments;
#[cfg(test)]
mod tests;
mod volumes;

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, Epoch, Frame, VolumeIndex};

pub(crate) use flush::{FlushLimits, flush_sealed};
pub use refused::{AbandonRefused, AppendRefused, BeginRefused, SealRefused, SyncRefused, WriterBroken};
pub use seal::SealRequest;
pub use volumes::VolumesRefused;

use crate::{
    damage::FileError,
    memtable::Memtable,
    records::{BasePoint, ChainDescription, CycleKind, OpenCycle, PointRecord},
    storage::StorageError,
    vault::WriterTenure,
};
use building::{Building, Message};
use segments::SegmentWriter;

/// The writer of one chain.
#[derive(Debug)]
pub struct ChainWriter {
    tenure: WriterTenure,
    newest: Option<Arc<PointRecord>>,
    /// The volumes of the point that comes next.
    volumes: Arc<ChainDescription>,
    segments: SegmentWriter,
    /// The entries of sealed points that are in no run.
    unindexed: Memtable,
    /// How many groups are in no run.
    unindexed_groups: usize,
    cycle: Option<Building>,
    soundness: Soundness,
}

/// Whether the writer knows what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Soundness {
    Sound,
    Broken,
}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHead {
    /// The newest sealed point.
    pub newest: Option<PointRecord>,
    /// The cycle that is being built, as far as it is durable.
    pub open: Option<OpenCycle>,
}

/// What a source says when it begins a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CycleBegin {
    /// Under which epoch it writes.
    pub epoch: Epoch,
    /// Tells this cycle from any other; the same nonce resumes it.
    pub cycle: u64,
    /// The point on which it builds; none in an empty chain.
    pub base: Option<BasePoint>,
    /// What it ships.
    pub kind: CycleKind,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is written, and durable after the next sync.
    Written,
    /// It was there already.
    AlreadyHeld,
}

/// What may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableThrough {
    /// This message and all before it are durable; 0 if none is.
    pub message_number: u64,
}

impl ChainWriter {
    pub(crate) fn open(tenure: WriterTenure) -> Result<Self, FileError> {
        resume::open(tenure)
    }

    /// The newest point and the open cycle, as far as they are durable.
    #[must_use]
    pub fn head(&self) -> ChainHead {
        ChainHead {
            newest: self.newest.as_deref().cloned(),
            open: self.cycle.as_ref().map(|cycle| cycle.durable.clone()),
        }
    }

    /// Opens a cycle. The nonce of the open cycle resumes it, also under a newer epoch: what was appended
    /// is then made durable first, and the source goes on behind the `last_message` that is returned.
    ///
    /// # Errors
    /// When the epoch or the base is not the chain's, another cycle is open, or the file system fails.
    pub fn begin(&mut self, begin: &CycleBegin) -> Result<OpenCycle, BeginRefused> {
        let state = Arc::clone(&self.tenure.chain);
        let _admitted = state.fence.admit(begin.epoch)?;
        self.check_sound()?;
        let newest = self.newest.as_ref().map(|newest| newest.as_base());
        let Some(building) = self.cycle.as_mut() else {
            check_base(begin, newest)?;
            return Ok(self.begin_fresh(begin));
        };
        let open = &building.durable;
        if open.cycle != begin.cycle {
            return Err(BeginRefused::CycleOpen { open: open.cycle });
        }
        if open.base != begin.base {
            return Err(BeginRefused::WrongBase {
                given: begin.base,
                newest,
            });
        }
        if open.kind != begin.kind {
            return Err(BeginRefused::WrongKind { given: begin.kind });
        }
        self.sync_segments()?;
        let building = self.cycle.as_mut().ok_or(WriterBroken)?;
        building.continue_under(begin.epoch);
        Ok(building.durable.clone())
    }

    fn begin_fresh(&mut self, begin: &CycleBegin) -> OpenCycle {
        let volumes = self.volumes.volumes.len();
        let newest = self.newest.as_ref().map(|point| point.sequence);
        let open = OpenCycle {
            cycle: begin.cycle,
            kind: begin.kind,
            epoch: begin.epoch,
            base: begin.base,
            sequence: newest.unwrap_or_default().next(),
            last_message: 0,
            watermarks: vec![ByteOffset(0); volumes],
            changes: vec![Default::default(); volumes],
        };
        self.cycle = Some(Building::new(open.clone()));
        open
    }

    /// Appends a message of the open cycle: all of it or, when this fails, nothing. Messages count from 1 without
    /// gaps. It is not durable before the next [`sync`](Self::sync). The epoch is checked every time.
    ///
    /// # Errors
    /// When epoch, number, volumes or bounds are refused, or the file system fails (a full disk is
    /// [`StorageError::is_out_of_space`](crate::StorageError::is_out_of_space)); the message may then be tried
    /// again. A write of an earlier message that failed behind the caller's back is told here or by the sync, and
    /// then the chain's writer must be opened again.
    pub fn append(
        &mut self,
        epoch: Epoch,
        message_number: u64,
        frames: &[Frame],
        watermarks: &[(VolumeIndex, ByteOffset)],
    ) -> Result<Appended, AppendRefused> {
        let state = Arc::clone(&self.tenure.chain);
        let _admitted = state.fence.admit(epoch)?;
        self.check_sound()?;
        let building = self.cycle.as_mut().ok_or(AppendRefused::NoOpenCycle)?;
        if building.durable.epoch != epoch {
            return Err(AppendRefused::NotBegun { epoch });
        }
        let last = building.appended.last_message;
        if message_number <= last {
            return Ok(Appended::AlreadyHeld);
        }
        let expected = last.saturating_add(1);
        if message_number != expected {
            return Err(AppendRefused::Gap {
                expected,
                given: message_number,
            });
        }
        for frame in frames {
            check_bounds(&self.volumes, frame.volume(), frame.extent().end())?;
        }
        for (volume, watermark) in watermarks {
            check_bounds(&self.volumes, *volume, *watermark)?;
        }
        let message = Message {
            number: message_number,
            frames,
            watermarks,
        };
        let groups = building.append(&mut self.segments, message)?;
        self.unindexed_groups = self.unindexed_groups.saturating_add(groups);
        Ok(Appended::Written)
    }

    /// Makes all appended messages durable. What this returns, and nothing else, may be acknowledged.
    ///
    /// # Errors
    /// When no cycle is open or the file system fails.
    pub fn sync(&mut self) -> Result<DurableThrough, SyncRefused> {
        self.check_sound()?;
        if self.cycle.is_none() {
            return Err(SyncRefused::NoOpenCycle);
        }
        self.sync_segments()?;
        self.flush_if_much();
        let durable = self.cycle.as_ref().map(|cycle| cycle.durable.last_message);
        Ok(DurableThrough {
            message_number: durable.unwrap_or(0),
        })
    }

    /// Makes all frames durable. When this fails it is unknown which are.
    fn sync_segments(&mut self) -> Result<(), StorageError> {
        if let Err(error) = self.segments.sync() {
            self.soundness = Soundness::Broken;
            return Err(error);
        }
        if let Some(building) = self.cycle.as_mut()
            && building.has_unsynced()
        {
            building.durable = building.appended.clone();
        }
        Ok(())
    }

    /// Gives up the open cycle and the space that it took.
    ///
    /// # Errors
    /// When the epoch is not the chain's, another or no cycle is open, or the file system fails.
    pub fn abandon(&mut self, epoch: Epoch, cycle: u64) -> Result<(), AbandonRefused> {
        let state = Arc::clone(&self.tenure.chain);
        let _admitted = state.fence.admit(epoch)?;
        self.check_sound()?;
        let open = self
            .cycle
            .as_ref()
            .ok_or(AbandonRefused::NoOpenCycle)?
            .durable
            .cycle;
        if open != cycle {
            return Err(AbandonRefused::OtherCycle { open, given: cycle });
        }
        self.commit_abandoned(&state)?;
        self.cycle = None;
        resume::sweep(&state, self.segments.cursor());
        Ok(())
    }

    fn check_sound(&self) -> Result<(), WriterBroken> {
        match self.soundness {
            Soundness::Sound => Ok(()),
            Soundness::Broken => Err(WriterBroken),
        }
    }
}

fn check_base(begin: &CycleBegin, newest: Option<BasePoint>) -> Result<(), BeginRefused> {
    if begin.base != newest {
        return Err(BeginRefused::WrongBase {
            given: begin.base,
            newest,
        });
    }
    match (begin.kind, newest) {
        (CycleKind::Base, None) | (CycleKind::Delta | CycleKind::Resync, Some(_)) => Ok(()),
        (CycleKind::Base, Some(_)) | (CycleKind::Delta | CycleKind::Resync, None) => {
            Err(BeginRefused::WrongKind { given: begin.kind })
        }
    }
}

fn check_bounds(
    description: &ChainDescription,
    volume: VolumeIndex,
    end: ByteOffset,
) -> Result<(), AppendRefused> {
    let volumes = &description.volumes;
    let Some(described) = volumes.get(volume.as_usize()) else {
        let volumes = volumes.len();
        return Err(AppendRefused::UnknownVolume { volume, volumes });
    };
    if end.0 <= described.size.0 {
        Ok(())
    } else {
        let size: ByteCount = described.size;
        Err(AppendRefused::OutOfBounds { volume, end, size })
    }
}

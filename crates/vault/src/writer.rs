//! The one writer of a chain: opens a cycle, appends its messages, makes them durable, and seals or abandons it.
//!
//! Only what [`ChainWriter::sync`] returned may be acknowledged. Crash story, in the order of the writes:
//!
//! 1. `begin` replaces `open`. From here on a cycle exists; without frames.
//! 2. `append` writes frames to segments that `open` does not name yet: after a crash they are cut off or swept.
//! 3. `sync` syncs the segments, then their directory, then replaces `open`: from here on the messages are held.
//! 4. `seal` syncs the segments, writes and syncs the run, appends the point's record to the log and syncs it, and
//!    removes `open`. The point is listed from the removal on; [`crate::log`] says what a crash between these means.
//! 5. `abandon` removes `open` durably, and only then the segments.
//!
//! A sync that fails leaves it unknown what is durable: the writer then refuses everything, and a new one goes on
//! from what `open` says, which was written only after a sync that succeeded.

mod building;
mod refused;
mod resume;
mod seal;
mod segments;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, Epoch, Frame, VolumeIndex};

pub use refused::{AbandonRefused, AppendRefused, BeginRefused, SealRefused, SyncRefused, WriterBroken};
pub use seal::SealRequest;

use crate::{
    damage::FileError,
    records::{BasePoint, CycleKind, OpenCycle, PointRecord},
    vault::{ChainState, WriterTenure},
};
use building::Building;

/// The writer of one chain.
#[derive(Debug)]
pub struct ChainWriter {
    tenure: WriterTenure,
    newest: Option<PointRecord>,
    /// Where the next record of the log goes.
    log_end: u64,
    next_segment: u64,
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
            newest: self.newest.clone(),
            open: self.cycle.as_ref().map(|cycle| cycle.durable.clone()),
        }
    }

    /// Opens a cycle, durably. The nonce of the open cycle resumes it, also under a newer epoch: what was appended
    /// is then made durable first, and the source goes on behind the `last_message` that is returned.
    ///
    /// # Errors
    /// When the epoch or the base is not the chain's, another cycle is open, or the file system fails.
    pub fn begin(&mut self, begin: &CycleBegin) -> Result<OpenCycle, BeginRefused> {
        let state = Arc::clone(&self.tenure.state);
        let _admitted = state.fence.admit(begin.epoch)?;
        self.check_sound()?;
        let newest = self.newest.as_ref().map(PointRecord::as_base);
        let Some(building) = self.cycle.as_mut() else {
            check_base(begin, newest)?;
            return self.begin_fresh(&state, begin);
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
        if let Err(error) = building.sync_segments() {
            self.soundness = Soundness::Broken;
            return Err(error.into());
        }
        building.replace_open(begin.epoch)?;
        Ok(building.durable.clone())
    }

    fn begin_fresh(
        &mut self,
        state: &Arc<ChainState>,
        begin: &CycleBegin,
    ) -> Result<OpenCycle, BeginRefused> {
        let volumes = state.description.volumes.len();
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
            segments: None,
        };
        let mut building = Building::fresh(Arc::clone(state), open, self.next_segment);
        building.replace_open(begin.epoch)?;
        let open = building.durable.clone();
        self.cycle = Some(building);
        Ok(open)
    }

    /// Appends a message of the open cycle: all of it or, when this fails, nothing. Messages count from 1 without
    /// gaps. It is not durable before the next [`sync`](Self::sync). The epoch is checked every time.
    ///
    /// # Errors
    /// When epoch, number, volumes or bounds are refused, or the file system fails (a full disk is
    /// [`StorageError::is_out_of_space`](crate::StorageError::is_out_of_space)); the message may then be tried again.
    pub fn append(
        &mut self,
        epoch: Epoch,
        message_number: u64,
        frames: &[Frame],
        watermarks: &[(VolumeIndex, ByteOffset)],
    ) -> Result<Appended, AppendRefused> {
        let state = Arc::clone(&self.tenure.state);
        let _admitted = state.fence.admit(epoch)?;
        self.check_sound()?;
        let building = self.cycle.as_mut().ok_or(AppendRefused::NoOpenCycle)?;
        if building.durable.epoch != epoch {
            return Err(AppendRefused::NotBegun { epoch });
        }
        let last = building.last_message();
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
            check_bounds(&state, frame.volume(), frame.extent().end())?;
        }
        for (volume, watermark) in watermarks {
            check_bounds(&state, *volume, *watermark)?;
        }
        building.append(message_number, frames, watermarks)?;
        Ok(Appended::Written)
    }

    /// Makes all appended messages durable. What this returns, and nothing else, may be acknowledged.
    ///
    /// # Errors
    /// When no cycle is open or the file system fails.
    pub fn sync(&mut self) -> Result<DurableThrough, SyncRefused> {
        self.check_sound()?;
        let building = self.cycle.as_mut().ok_or(SyncRefused::NoOpenCycle)?;
        if building.has_unsynced() {
            if let Err(error) = building.sync_segments() {
                self.soundness = Soundness::Broken;
                return Err(error.into());
            }
            let epoch = building.durable.epoch;
            building.replace_open(epoch)?;
        }
        Ok(DurableThrough {
            message_number: building.durable.last_message,
        })
    }

    /// Gives up the open cycle and the space that it took.
    ///
    /// # Errors
    /// When the epoch is not the chain's, another or no cycle is open, or the file system fails.
    pub fn abandon(&mut self, epoch: Epoch, cycle: u64) -> Result<(), AbandonRefused> {
        let state = Arc::clone(&self.tenure.state);
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
        self.remove_open(&state)?;
        self.cycle = None;
        let first = self.next_segment;
        if let Err(error) = resume::sweep_segments(&state, |segment| segment < first) {
            tracing::warn!(chain = %state.identity.chain, error = %error, "an abandoned cycle's segments stay until the chain is opened again");
        }
        Ok(())
    }

    /// Removes `open` durably.
    fn remove_open(&mut self, state: &ChainState) -> Result<(), crate::StorageError> {
        state.disk.remove_file(&state.layout.open())?;
        state.disk.sync_directory(state.layout.root()).inspect_err(|_| {
            self.soundness = Soundness::Broken;
        })
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

fn check_bounds(state: &ChainState, volume: VolumeIndex, end: ByteOffset) -> Result<(), AppendRefused> {
    let volumes = &state.description.volumes;
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

//! Sealing: proves that what is held is what was sent, and turns the open cycle into a point.

use std::{sync::Arc, time::Duration};

use farshore_blocks::{
    ByteCount, ChangeDigest, Digest, Epoch, Sequence, VolumeIndex, clock::WallTime, point_digest,
};

use super::{ChainWriter, SealRefused, Soundness, building::Building};
use crate::{
    format::{RecordKind, encode_record},
    records::{PointKind, PointRecord},
    run::{run_bytes, write_run},
    storage::{Content, StorageError},
    vault::ChainState,
};

/// What a source says when a cycle is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealRequest {
    /// Under which epoch it writes.
    pub epoch: Epoch,
    /// The cycle's nonce.
    pub cycle: u64,
    /// The place in the chain that the point is to have.
    pub sequence: Sequence,
    /// Just before the point's instant, by the source's clock.
    pub captured_at: WallTime,
    /// The source's clock less the vault's, as measured.
    pub clock_offset_nanoseconds: i64,
    /// How far that measurement may be off.
    pub clock_uncertainty: Duration,
    /// What the guest knew of the instant.
    pub kind: PointKind,
    /// The VM's specification at that instant; the vault does not look into it.
    pub machine: Vec<u8>,
    /// The parent's digest; zeroes for a chain's first point.
    pub parent: Digest,
    /// Per volume, the proof of what was sent.
    pub changes: Vec<ChangeDigest>,
    /// How many messages were sent.
    pub messages: u64,
}

impl ChainWriter {
    /// Seals the open cycle: when this returns the point is durable, proven and listed. Sealing once more what is
    /// sealed already gives the same record again.
    ///
    /// # Errors
    /// When anything that the source says differs from what is held, or the file system fails.
    pub fn seal(&mut self, request: &SealRequest) -> Result<PointRecord, SealRefused> {
        let state = Arc::clone(&self.tenure.state);
        let _admitted = state.fence.admit(request.epoch)?;
        self.check_sound()?;
        if let Some(sealed) = self.already_sealed(request)? {
            return Ok(sealed);
        }
        let building = self.cycle.as_mut().ok_or(SealRefused::NoOpenCycle)?;
        let parent = self
            .newest
            .as_ref()
            .map_or(Digest::default(), |newest| newest.digest);
        prove(request, building, parent)?;
        if let Err(error) = building.sync_segments() {
            self.soundness = Soundness::Broken;
            return Err(error.into());
        }
        let path = state.layout.run(request.sequence);
        let run = write_run(
            &state.disk,
            &path,
            state.identity,
            request.sequence,
            &building.index,
        )?;
        state.disk.sync_directory(&state.layout.runs())?;
        let stored = building
            .segments
            .stored_bytes()
            .0
            .saturating_add(run_bytes(&run).0);
        let point = PointRecord {
            sequence: request.sequence,
            digest: point_digest(&parent, &request.machine, &request.changes),
            parent,
            epoch: request.epoch,
            cycle: request.cycle,
            cycle_kind: building.durable.kind,
            kind: request.kind,
            captured_at: request.captured_at,
            clock_offset_nanoseconds: request.clock_offset_nanoseconds,
            clock_uncertainty: request.clock_uncertainty,
            sealed_at: WallTime::now(),
            machine: request.machine.clone(),
            changes: request.changes.clone(),
            messages: request.messages,
            stored_bytes: ByteCount(stored),
            segments: building.segments.range(),
            run,
        };
        let record = encode_record(RecordKind::Point, state.identity, point.sequence.0, &point)
            .map_err(SealRefused::Record)?;
        self.append_record(&state, &record)?;
        self.become_newest(&state, point)
    }

    fn already_sealed(&self, request: &SealRequest) -> Result<Option<PointRecord>, SealRefused> {
        let newest = self.newest.as_ref();
        let Some(newest) =
            newest.filter(|newest| newest.sequence == request.sequence && newest.cycle == request.cycle)
        else {
            return Ok(None);
        };
        let given = point_digest(&request.parent, &request.machine, &request.changes);
        if given == newest.digest {
            return Ok(Some(newest.clone()));
        }
        Err(SealRefused::SealedOtherwise {
            sequence: newest.sequence,
            sealed: newest.digest,
            given,
        })
    }

    fn append_record(&mut self, state: &ChainState, record: &[u8]) -> Result<(), StorageError> {
        let mut file = state.disk.open_file(&state.layout.points(), Content::Kept)?;
        if let Err(error) = file.write_at(record, self.log_end) {
            // What was written of it must be gone before anything else is done to the chain.
            let taken_back = file.set_length(self.log_end).and_then(|()| file.sync());
            if taken_back.is_err() {
                self.soundness = Soundness::Broken;
            }
            return Err(error);
        }
        file.sync().inspect_err(|_| self.soundness = Soundness::Broken)?;
        let length = u64::try_from(record.len()).unwrap_or(u64::MAX);
        self.log_end = self.log_end.saturating_add(length);
        Ok(())
    }

    /// The record is durable: the cycle is over, whatever happens now.
    fn become_newest(&mut self, state: &ChainState, point: PointRecord) -> Result<PointRecord, SealRefused> {
        if let Err(error) = self.remove_open(state) {
            self.soundness = Soundness::Broken;
            return Err(error.into());
        }
        if let Some(cycle) = self.cycle.take() {
            self.next_segment = cycle.segments.next_free();
        }
        self.newest = Some(point.clone());
        Ok(point)
    }
}

/// Compares everything that the source says with what is held.
fn prove(request: &SealRequest, building: &Building, parent: Digest) -> Result<(), SealRefused> {
    let open = &building.durable;
    if open.cycle != request.cycle {
        return Err(SealRefused::OtherCycle {
            open: open.cycle,
            given: request.cycle,
        });
    }
    if open.epoch != request.epoch {
        return Err(SealRefused::NotBegun { epoch: request.epoch });
    }
    if open.sequence != request.sequence {
        return Err(SealRefused::WrongSequence {
            given: request.sequence,
            expected: open.sequence,
        });
    }
    if request.parent != parent {
        return Err(SealRefused::WrongParent {
            given: request.parent,
            expected: parent,
        });
    }
    if request.messages != building.last_message() {
        return Err(SealRefused::Messages {
            announced: request.messages,
            held: building.last_message(),
        });
    }
    prove_changes(&request.changes, building.changes())
}

fn prove_changes(announced: &[ChangeDigest], held: &[ChangeDigest]) -> Result<(), SealRefused> {
    if announced.len() != held.len() {
        return Err(SealRefused::VolumeCount {
            given: announced.len(),
            volumes: held.len(),
        });
    }
    for ((announced, held), volume) in announced.iter().zip(held).zip(0..) {
        let (volume, announced, held) = (VolumeIndex(volume), *announced, *held);
        if (announced.frames, announced.bytes) != (held.frames, held.bytes) {
            return Err(SealRefused::Counts {
                volume,
                announced,
                held,
            });
        }
        if announced.digest != held.digest {
            return Err(SealRefused::ChangeDigest {
                volume,
                announced,
                held,
            });
        }
    }
    Ok(())
}

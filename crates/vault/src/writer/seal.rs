//! Sealing: proves that what is held is what was sent, and turns the open cycle into a point.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use farshore_blocks::{ChangeDigest, Digest, Epoch, Sequence, VolumeIndex, clock::WallTime, point_digest};

use super::{ChainWriter, SealRefused, building::Building};
use crate::{
    edit::{ChainEdit, Edit, SealedPoint},
    format::Position,
    journal::CommitError,
    records::{PointKind, PointRecord},
    storage::StorageError,
    vault::ChainHandle,
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
        let state = Arc::clone(&self.tenure.chain);
        let _admitted = state.fence.admit(request.epoch)?;
        self.check_sound()?;
        if let Some(sealed) = self.already_sealed(request)? {
            return Ok(sealed);
        }
        let building = self.cycle.as_ref().ok_or(SealRefused::NoOpenCycle)?;
        let parent = self
            .newest
            .as_ref()
            .map_or(Digest::default(), |newest| newest.digest);
        prove(request, building, parent)?;
        let kind = building.durable.kind;
        self.sync_segments()?;
        let tail = state.tail();
        let ends = self.segments.ends_since(tail)?;
        let stored_bytes = self.segments.bytes_since(tail, &ends);
        let record = PointRecord {
            sequence: request.sequence,
            digest: point_digest(&parent, &request.machine, &request.changes),
            parent,
            epoch: request.epoch,
            cycle: request.cycle,
            cycle_kind: kind,
            kind: request.kind,
            captured_at: request.captured_at,
            clock_offset_nanoseconds: request.clock_offset_nanoseconds,
            clock_uncertainty: request.clock_uncertainty,
            sealed_at: WallTime::now(),
            machine: Bytes::new(),
            changes: request.changes.clone(),
            messages: request.messages,
            stored_bytes,
        };
        let through = Through {
            tail: self.segments.cursor(),
            ends,
        };
        let committed = commit_point(&state, record, &request.machine, through);
        if committed.as_ref().err().is_none_or(CommitError::happened) {
            self.become_newest(state.newest());
        }
        committed.map_err(StorageError::from)?;
        self.flush_if_much();
        let sealed = self.newest.as_deref().cloned();
        sealed.ok_or(SealRefused::NoOpenCycle)
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
            self.tenure.chain.committer.confirm()?;
            return Ok(Some((**newest).clone()));
        }
        Err(SealRefused::SealedOtherwise {
            sequence: newest.sequence,
            sealed: newest.digest,
            given,
        })
    }

    /// The record is durable: the cycle is over.
    fn become_newest(&mut self, newest: Option<Arc<PointRecord>>) {
        if let Some(cycle) = self.cycle.take() {
            for entry in cycle.entries.entries() {
                self.unindexed.insert(entry);
            }
        }
        self.newest = newest;
    }
}

/// Up to where the frames of a point go.
struct Through {
    tail: Position,
    /// The ends of the segments that they filled.
    ends: Vec<Position>,
}

/// Commits the point, and its machine's specification unless the vault knows it already.
fn commit_point(
    state: &ChainHandle,
    record: PointRecord,
    machine: &[u8],
    Through { tail, ends }: Through,
) -> Result<(), CommitError> {
    let digest = Digest::of(machine);
    let mut edits = Vec::new();
    if !state.committer.state().knows_machine(&digest) {
        edits.push(Edit::Machine {
            digest,
            specification: Bytes::copy_from_slice(machine),
        });
    }
    let point = Box::new(SealedPoint {
        record,
        machine: digest,
    });
    let chain = state.identity.chain;
    if !ends.is_empty() && state.state().ends.is_some() {
        edits.push(Edit::from((chain, ChainEdit::Ended(ends))));
    }
    edits.push(Edit::from((chain, ChainEdit::Sealed { point, tail })));
    state.committer.commit(edits)
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
    if request.messages != building.appended.last_message {
        return Err(SealRefused::Messages {
            announced: request.messages,
            held: building.appended.last_message,
        });
    }
    prove_changes(&request.changes, &building.appended.changes)
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

//! A source's messages, checked: what reaches the vault's thread is well-formed.

use std::time::Duration;

use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, Digest, Sequence, VolumeIndex, clock::WallTime};
use farshore_proto::v1;
use farshore_vault::{BasePoint, CycleKind, PointKind, VolumeDescription};

use super::seeded::{self, Arrived};
use crate::convert::{self, Malformed};

/// How many bytes a machine specification may have: it is a page of JSON.
const MACHINE_BYTES: usize = 64 * 1024;

/// How many bytes the compressed frames of a message may stand for: a message that is not compressed cannot have more, and a few
/// bytes must not become gigabytes here.
const DECOMPRESSED_BYTES: u64 = 4 * 1024 * 1024;

/// A message for the vault.
#[derive(Debug)]
pub(crate) enum Incoming {
    Begin {
        cycle: u64,
        kind: CycleKind,
        base: Option<BasePoint>,
        /// Of the point that it becomes, by index; none to leave them as they are.
        volumes: Vec<VolumeDescription>,
    },
    Changes(CarriedChanges),
    /// From now on changes may come before their turn.
    CarrierJoined,
    Seal(Box<SealWords>),
    Abandon {
        cycle: u64,
    },
    StillValid {
        through: WallTime,
        offset_nanoseconds: i64,
        uncertainty: Duration,
    },
}

/// A message of changes.
#[derive(Debug)]
pub(crate) struct CarriedChanges {
    pub(crate) number: u64,
    pub(crate) changes: Vec<Arrived>,
    pub(crate) watermarks: Vec<(VolumeIndex, ByteOffset)>,
}

impl CarriedChanges {
    /// How many bytes of memory it holds on to.
    pub(super) fn held(&self) -> ByteCount {
        let held = self.changes.iter().map(|change| match change {
            Arrived::Sent(frame) => frame.held_bytes(),
            Arrived::Seeded(_) => 0,
        });
        let held = held.fold(0, usize::saturating_add);
        ByteCount(u64::try_from(held).unwrap_or(u64::MAX))
    }
}

/// What a seal says. The offset is the source's clock less this one's.
#[derive(Debug)]
pub(crate) struct SealWords {
    pub(crate) cycle: u64,
    pub(crate) sequence: Sequence,
    pub(crate) messages: u64,
    pub(crate) parent: Digest,
    pub(crate) changes: Vec<ChangeDigest>,
    pub(crate) captured_at: WallTime,
    pub(crate) offset_nanoseconds: i64,
    pub(crate) uncertainty: Duration,
    pub(crate) kind: PointKind,
    pub(crate) machine: Vec<u8>,
}

impl Incoming {
    pub(crate) fn begin(begin: &v1::BeginCycle) -> Result<Self, Malformed> {
        let kind = match begin.kind() {
            v1::CycleKind::Base => CycleKind::Base,
            v1::CycleKind::Delta => CycleKind::Delta,
            v1::CycleKind::Resync => CycleKind::Resync,
            v1::CycleKind::Unspecified => return Err(Malformed::Missing("kind")),
        };
        let base = begin.base.as_ref().map(convert::point_head_in).transpose()?;
        let base = base.map(|point| BasePoint {
            sequence: point.sequence,
            digest: point.digest,
        });
        let volumes = begin.volumes.iter().map(|volume| VolumeDescription {
            name: volume.name.clone(),
            size: ByteCount(volume.size_bytes),
        });
        Ok(Self::Begin {
            cycle: begin.cycle,
            kind,
            base,
            volumes: volumes.collect(),
        })
    }

    pub(crate) fn changes(changes: v1::Changes) -> Result<Self, Malformed> {
        let compressed = changes
            .frames
            .iter()
            .filter(|frame| frame.encoding() == v1::FrameEncoding::Zstd);
        let claimed: u64 = compressed.map(|frame| u64::from(frame.length_bytes)).sum();
        if claimed > DECOMPRESSED_BYTES {
            return Err(Malformed::Refused {
                field: "frames",
                why: format!(
                    "compressed frames of {claimed} bytes: at most {DECOMPRESSED_BYTES} are accepted in a message"
                ),
            });
        }
        let watermarks = changes
            .watermarks
            .iter()
            .map(|mark| (VolumeIndex(mark.volume), ByteOffset(mark.scanned_through_bytes)))
            .collect();
        Ok(Self::Changes(CarriedChanges {
            number: changes.message,
            changes: seeded::arrived(changes.frames)?,
            watermarks,
        }))
    }

    pub(crate) fn seal(seal: v1::Seal) -> Result<Self, Malformed> {
        let kind = match seal.kind() {
            v1::PointKind::CrashConsistent => PointKind::CrashConsistent,
            v1::PointKind::AppConsistent => PointKind::AppConsistent,
            v1::PointKind::Unspecified => return Err(Malformed::Missing("kind")),
        };
        if seal.machine.len() > MACHINE_BYTES {
            let why = format!(
                "{} bytes: at most {MACHINE_BYTES} are accepted",
                seal.machine.len()
            );
            return Err(Malformed::Refused {
                field: "machine",
                why,
            });
        }
        Ok(Self::Seal(Box::new(SealWords {
            cycle: seal.cycle,
            sequence: Sequence(seal.sequence),
            messages: seal.messages,
            parent: convert::digest_in(&seal.parent_digest)?,
            changes: seal
                .changes
                .iter()
                .map(convert::change_in)
                .collect::<Result<_, _>>()?,
            captured_at: convert::time_in(seal.captured_at.as_ref(), "captured_at")?,
            offset_nanoseconds: source_less_target(seal.clock_offset_nanoseconds),
            uncertainty: Duration::from_nanos(seal.clock_uncertainty_nanoseconds),
            kind,
            machine: seal.machine.to_vec(),
        })))
    }

    pub(crate) fn still_valid(valid: &v1::StillValid) -> Result<Self, Malformed> {
        Ok(Self::StillValid {
            through: convert::time_in(valid.valid_through.as_ref(), "valid_through")?,
            offset_nanoseconds: source_less_target(valid.clock_offset_nanoseconds),
            uncertainty: Duration::from_nanos(valid.clock_uncertainty_nanoseconds),
        })
    }
}

/// The wire says by how much the target's clock is ahead; the vault keeps the opposite.
fn source_less_target(target_less_source: i64) -> i64 {
    target_less_source.saturating_neg()
}

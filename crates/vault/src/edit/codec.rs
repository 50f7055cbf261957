//! Edits to and from the bodies of the journal's records.

mod files;
mod volumes;

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Epoch, HolderNonce, Incarnation, Sequence,
    clock::WallTime,
};

#[cfg(feature = "fuzzing")]
pub(crate) use files::run;
use files::{
    ends, index_change, layout, pack_change, put_ends, put_index_change, put_layout, put_pack_change,
};

use super::{ChainEdit, Edit, SealedPoint};
use crate::{
    format::{
        FormatError, Position,
        fields::{Encoder, Fields},
    },
    records::{BasePoint, CycleKind, Gap, OpenCycle, Pin, PointKind, PointRecord},
    retention::RetentionPolicy,
};

use volumes::{description, put_description, put_volumes, volumes};

type Decoded<T> = Result<T, FormatError>;

impl Edit {
    /// The kind of its record.
    pub(crate) const fn kind(&self) -> u32 {
        match self {
            Self::Generation { .. } => 1,
            Self::Machine { .. } => 2,
            Self::Chain { edit, .. } => edit.kind(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Encoder::default();
        match self {
            Self::Generation { incarnation } => {
                body.array(incarnation.as_bytes());
            }
            Self::Machine {
                digest,
                specification,
            } => {
                body.array(digest.as_bytes()).byte_string(specification);
            }
            Self::Chain { chain, edit } => {
                body.array(chain.as_bytes());
                edit.encode_into(&mut body);
            }
        }
        body.done()
    }

    pub(crate) fn decode(kind: u32, body: &[u8]) -> Decoded<Self> {
        let mut fields = Fields::new(body);
        let edit = match kind {
            1 => Self::Generation {
                incarnation: Incarnation::from_bytes(fields.array()?),
            },
            2 => Self::Machine {
                digest: Digest::from_bytes(fields.array()?),
                specification: Bytes::copy_from_slice(fields.byte_string()?),
            },
            _ => {
                let chain = ChainId::from_bytes(fields.array()?);
                let edit = ChainEdit::decode(kind, &mut fields)?;
                Self::Chain { chain, edit }
            }
        };
        fields.end()?;
        Ok(edit)
    }
}

impl ChainEdit {
    const fn kind(&self) -> u32 {
        match self {
            Self::Created(_) => 16,
            Self::Removed => 17,
            Self::EpochGranted(_) => 18,
            Self::Sealed { .. } => 19,
            Self::Abandoned { .. } => 20,
            Self::Indexed(_) => 21,
            Self::Packed(_) => 22,
            Self::Dropped { .. } => 23,
            Self::Gap(_) => 24,
            Self::PinChanged { .. } => 25,
            Self::RetentionSet(_) => 26,
            Self::StillValid { .. } => 27,
            Self::Layout(_) => 28,
            Self::VolumesSet { .. } => 29,
            Self::Ended(_) => 30,
        }
    }

    fn encode_into(&self, body: &mut Encoder) {
        match self {
            Self::Created(description) => put_description(body, description),
            Self::Removed => {}
            Self::EpochGranted(epoch) => put_epoch(body, epoch),
            Self::Sealed { point, tail } => {
                put_position(body, *tail);
                put_point(body, point);
            }
            Self::Abandoned { tail } => put_position(body, *tail),
            Self::Indexed(change) => put_index_change(body, change),
            Self::Packed(change) => put_pack_change(body, change),
            Self::Dropped { first, last } => {
                body.u64(first.0).u64(last.0);
            }
            Self::Gap(gap) => {
                body.u64(gap.first.0).u64(gap.last.0);
                body.array(gap.parent.as_bytes()).array(gap.digest.as_bytes());
            }
            Self::PinChanged { sequence, pin } => put_pin(body, *sequence, *pin),
            Self::RetentionSet(policy) => put_retention(body, policy),
            Self::StillValid { sequence, at } => {
                body.u64(sequence.0).u64(at.0);
            }
            Self::Layout(words) => put_layout(body, words),
            Self::VolumesSet { from, volumes } => {
                body.u64(from.0);
                put_volumes(body, volumes);
            }
            Self::Ended(ends) => put_ends(body, ends),
        }
    }

    fn decode(kind: u32, fields: &mut Fields<'_>) -> Decoded<Self> {
        Ok(match kind {
            16 => Self::Created(description(fields)?),
            17 => Self::Removed,
            18 => Self::EpochGranted(epoch(fields)?),
            19 => {
                let tail = position(fields)?;
                let point = Box::new(point(fields)?);
                Self::Sealed { point, tail }
            }
            20 => Self::Abandoned {
                tail: position(fields)?,
            },
            21 => Self::Indexed(index_change(fields)?),
            22 => Self::Packed(pack_change(fields)?),
            23 => Self::Dropped {
                first: Sequence(fields.u64()?),
                last: Sequence(fields.u64()?),
            },
            24 => Self::Gap(Gap {
                first: Sequence(fields.u64()?),
                last: Sequence(fields.u64()?),
                parent: Digest::from_bytes(fields.array()?),
                digest: Digest::from_bytes(fields.array()?),
            }),
            25 => pin(fields)?,
            26 => Self::RetentionSet(retention(fields)?),
            27 => Self::StillValid {
                sequence: Sequence(fields.u64()?),
                at: WallTime(fields.u64()?),
            },
            28 => Self::Layout(layout(fields)?),
            29 => Self::VolumesSet {
                from: Sequence(fields.u64()?),
                volumes: volumes(fields)?,
            },
            30 => Self::Ended(ends(fields)?),
            _ => {
                return Err(FormatError::Bounds {
                    field: "kind of record",
                });
            }
        })
    }
}

fn put_epoch(body: &mut Encoder, epoch: &Epoch) {
    body.u64(epoch.number).array(epoch.holder.as_bytes());
}

fn epoch(fields: &mut Fields<'_>) -> Decoded<Epoch> {
    Ok(Epoch {
        number: fields.u64()?,
        holder: HolderNonce::from_bytes(fields.array()?),
    })
}

fn put_position(body: &mut Encoder, position: Position) {
    body.u32(position.segment).u32(position.offset);
}

fn position(fields: &mut Fields<'_>) -> Decoded<Position> {
    Ok(Position {
        segment: fields.u32()?,
        offset: fields.u32()?,
    })
}

fn put_changes(body: &mut Encoder, changes: &[ChangeDigest]) {
    body.list(changes.iter(), |body, change| {
        body.u64(change.frames)
            .u64(change.bytes.0)
            .array(change.digest.as_bytes());
    });
}

fn changes(fields: &mut Fields<'_>) -> Decoded<Vec<ChangeDigest>> {
    fields.list(48, |fields| {
        Ok(ChangeDigest {
            frames: fields.u64()?,
            bytes: ByteCount(fields.u64()?),
            digest: Digest::from_bytes(fields.array()?),
        })
    })
}

fn put_point(body: &mut Encoder, point: &SealedPoint) {
    let record = &point.record;
    body.u64(record.sequence.0)
        .array(record.digest.as_bytes())
        .array(record.parent.as_bytes());
    put_epoch(body, &record.epoch);
    body.u64(record.cycle)
        .u8(record.cycle_kind.code())
        .u8(record.kind.code());
    body.u64(record.captured_at.0)
        .array(&record.clock_offset_nanoseconds.to_le_bytes());
    body.u64(u64::try_from(record.clock_uncertainty.as_nanos()).unwrap_or(u64::MAX));
    body.u64(record.sealed_at.0).array(point.machine.as_bytes());
    body.u64(record.messages).u64(record.stored_bytes.0);
    put_changes(body, &record.changes);
}

fn point(fields: &mut Fields<'_>) -> Decoded<SealedPoint> {
    let sequence = Sequence(fields.u64()?);
    let digest = Digest::from_bytes(fields.array()?);
    let parent = Digest::from_bytes(fields.array()?);
    let epoch = epoch(fields)?;
    let cycle = fields.u64()?;
    let cycle_kind = cycle_kind(fields)?;
    let kind = PointKind::from_code(fields.u8()?).ok_or(FormatError::Bounds {
        field: "kind of point",
    })?;
    let captured_at = WallTime(fields.u64()?);
    let clock_offset_nanoseconds = i64::from_le_bytes(fields.array()?);
    let clock_uncertainty = Duration::from_nanos(fields.u64()?);
    let sealed_at = WallTime(fields.u64()?);
    let machine = Digest::from_bytes(fields.array()?);
    let record = PointRecord {
        sequence,
        digest,
        parent,
        epoch,
        cycle,
        cycle_kind,
        kind,
        captured_at,
        clock_offset_nanoseconds,
        clock_uncertainty,
        sealed_at,
        machine: Bytes::new(),
        messages: fields.u64()?,
        stored_bytes: ByteCount(fields.u64()?),
        changes: changes(fields)?,
    };
    Ok(SealedPoint { record, machine })
}

fn cycle_kind(fields: &mut Fields<'_>) -> Decoded<CycleKind> {
    CycleKind::from_code(fields.u8()?).ok_or(FormatError::Bounds {
        field: "kind of cycle",
    })
}

fn put_open(body: &mut Encoder, open: Option<&OpenCycle>) {
    body.list(open.into_iter(), |body, open| {
        body.u64(open.cycle).u8(open.kind.code());
        put_epoch(body, &open.epoch);
        let base = open.base.map_or(Digest::default(), |base| base.digest);
        body.array(base.as_bytes())
            .u64(open.sequence.0)
            .u64(open.last_message);
        body.list(open.watermarks.iter(), |body, watermark| {
            body.u64(watermark.0);
        });
        put_changes(body, &open.changes);
    });
}

/// Takes a list of at most one item: what may be there or not.
fn at_most_one<Item>(
    fields: &mut Fields<'_>,
    least_bytes: usize,
    item: impl FnMut(&mut Fields<'_>) -> Decoded<Item>,
) -> Decoded<Option<Item>> {
    let mut items = fields.list(least_bytes, item)?;
    match items.len() {
        0 | 1 => Ok(items.pop()),
        _ => Err(FormatError::Bounds { field: "count" }),
    }
}

fn open(fields: &mut Fields<'_>) -> Decoded<Option<OpenCycle>> {
    at_most_one(fields, 89, |fields| {
        let cycle = fields.u64()?;
        let kind = cycle_kind(fields)?;
        let epoch = epoch(fields)?;
        let digest = Digest::from_bytes(fields.array()?);
        let sequence = Sequence(fields.u64()?);
        let last_message = fields.u64()?;
        let base = (sequence > Sequence(1)).then_some(BasePoint {
            sequence: Sequence(sequence.0.saturating_sub(1)),
            digest,
        });
        if base.is_none() && digest != Digest::default() {
            return Err(FormatError::Bounds { field: "base" });
        }
        Ok(OpenCycle {
            cycle,
            kind,
            epoch,
            base,
            sequence,
            last_message,
            watermarks: fields.list(8, |fields| fields.u64().map(ByteOffset))?,
            changes: changes(fields)?,
        })
    })
}

fn put_pin(body: &mut Encoder, sequence: Sequence, pin: Option<Pin>) {
    let (code, until) = match pin {
        None => (0, 0),
        Some(Pin::Pinned) => (1, 0),
        Some(Pin::LockedUntil(until)) => (2, until.0),
    };
    body.u64(sequence.0).u8(code).u64(until);
}

fn pin(fields: &mut Fields<'_>) -> Decoded<ChainEdit> {
    let sequence = Sequence(fields.u64()?);
    let code = fields.u8()?;
    let until = fields.u64()?;
    let pin = match (code, until) {
        (0, 0) => None,
        (1, 0) => Some(Pin::Pinned),
        (2, until) => Some(Pin::LockedUntil(WallTime(until))),
        (_, _) => return Err(FormatError::Bounds { field: "pin" }),
    };
    Ok(ChainEdit::PinChanged { sequence, pin })
}

fn put_retention(body: &mut Encoder, policy: &RetentionPolicy) {
    body.u64(u64::try_from(policy.keep_all.as_nanos()).unwrap_or(u64::MAX));
    body.u32(policy.hourly)
        .u32(policy.daily)
        .u32(policy.weekly)
        .u32(policy.monthly)
        .u32(policy.yearly);
    body.u64(policy.limit.map_or(u64::MAX, |limit| limit.0));
}

fn retention(fields: &mut Fields<'_>) -> Decoded<RetentionPolicy> {
    Ok(RetentionPolicy {
        keep_all: Duration::from_nanos(fields.u64()?),
        hourly: fields.u32()?,
        daily: fields.u32()?,
        weekly: fields.u32()?,
        monthly: fields.u32()?,
        yearly: fields.u32()?,
        limit: Some(fields.u64()?)
            .filter(|limit| *limit < u64::MAX)
            .map(ByteCount),
    })
}

//! A record of the journal: a body in an envelope that says its kind and its place, and proves both.
//!
//! Records come in batches that count only as a whole: each says how many of its batch are still to come.

use farshore_blocks::Incarnation;

use super::{
    FormatError,
    fields::{check_crc32, checked_header, header, length_of},
};

pub(crate) const RECORD_MAGIC: [u8; 8] = *b"FARSHJNL";
pub(crate) const RECORD_HEADER_BYTES: usize = 64;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    /// The vault's first incarnation.
    pub(crate) vault: Incarnation,
    /// Which of the vault's journals holds it.
    pub(crate) generation: u64,
    /// Its number in that journal, from 0.
    pub(crate) ordinal: u64,
}

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'bytes> {
    pub(crate) kind: u32,
    pub(crate) in_batch: InBatch,
    pub(crate) body: &'bytes [u8],
    /// How many bytes header and body take.
    pub(crate) length: usize,
}

/// Set in a record that was written together with the one before it.
const WRITTEN_WITH_BEFORE: u32 = 1 << 31;

/// Where a record stands in its batch, which counts only as a whole, and in what was written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InBatch {
    pub(crate) order: WriteOrder,
    /// How many records of its batch follow it.
    pub(crate) following: u32,
}

/// Whether a record is the first of those that were written at once: what is before it was durable by then. Earlier
/// builds said so of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOrder {
    First,
    Later,
}

impl InBatch {
    #[cfg(all(test, feature = "fuzzing"))]
    pub(crate) const ALONE: Self = Self {
        order: WriteOrder::First,
        following: 0,
    };

    fn encoded(self) -> u32 {
        let following = self.following.min(WRITTEN_WITH_BEFORE - 1);
        match self.order {
            WriteOrder::First => following,
            WriteOrder::Later => following | WRITTEN_WITH_BEFORE,
        }
    }

    fn decoded(word: u32) -> Self {
        let order = if word & WRITTEN_WITH_BEFORE == 0 {
            WriteOrder::First
        } else {
            WriteOrder::Later
        };
        Self {
            order,
            following: word & !WRITTEN_WITH_BEFORE,
        }
    }
}

pub(crate) fn encode_record(place: RecordPlace, kind: u32, in_batch: InBatch, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(RECORD_MAGIC);
    bytes
        .u32(kind)
        .array(place.vault.as_bytes())
        .u64(place.generation)
        .u64(place.ordinal)
        .u32(in_batch.encoded())
        .count(body.len())
        .u32(crc32fast::hash(body))
        .crc32()
        .array(body);
    bytes.done()
}

/// Reads the record at the front of `bytes`, which must stand at `place`; what follows it is left alone.
pub(crate) fn decode_record(bytes: &[u8], place: RecordPlace) -> Result<Record<'_>, FormatError> {
    let mut fields = checked_header(
        bytes,
        RECORD_HEADER_BYTES,
        RECORD_MAGIC,
        "a record of the journal",
    )?;
    let kind = fields.u32()?;
    let found = RecordPlace {
        vault: Incarnation::from_bytes(fields.array()?),
        generation: fields.u64()?,
        ordinal: fields.u64()?,
    };
    let in_batch = InBatch::decoded(fields.u32()?);
    let body_length = usize::try_from(fields.u32()?).unwrap_or(usize::MAX);
    let body_crc32 = fields.u32()?;
    let length = RECORD_HEADER_BYTES.saturating_add(body_length);
    let body = bytes
        .get(RECORD_HEADER_BYTES..length)
        .ok_or(FormatError::TooShort {
            expected: length_of(length),
            actual: length_of(bytes.len()),
        })?;
    check_crc32(body, body_crc32)?;
    let differing = [
        (found.vault != place.vault, "vault"),
        (found.generation != place.generation, "generation"),
        (found.ordinal != place.ordinal, "number"),
    ];
    match differing.into_iter().find(|(differs, _)| *differs) {
        Some((_, field)) => Err(FormatError::Identity { field }),
        None => Ok(Record {
            kind,
            in_batch,
            body,
            length,
        }),
    }
}

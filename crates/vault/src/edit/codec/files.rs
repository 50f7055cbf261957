//! What records say of a chain's files: its runs, segments and packs.

use farshore_blocks::Sequence;

use super::{Decoded, at_most_one, open, position, put_open, put_position};
use crate::{
    edit::{ChainLayoutWords, IndexChange, PackChange},
    format::{
        Position,
        fields::{Encoder, Fields},
    },
    tree::{Attachment, RootNode, RunSummary},
};

fn put_numbers(body: &mut Encoder, numbers: &[u32]) {
    body.list(numbers.iter(), |body, number| {
        body.u32(*number);
    });
}

fn numbers(fields: &mut Fields<'_>) -> Decoded<Vec<u32>> {
    fields.list(4, Fields::u32)
}

pub(super) fn put_index_change(body: &mut Encoder, change: &IndexChange) {
    body.list(change.added.iter(), put_run);
    body.list(change.removed.iter(), |body, run| {
        body.u64(*run);
    });
    body.list(change.indexed_through.iter(), |body, through| {
        put_position(body, *through)
    });
    put_open(body, change.open.as_ref());
    body.u64(change.settled_through.map_or(0, |settled| settled.0));
}

pub(super) fn index_change(fields: &mut Fields<'_>) -> Decoded<IndexChange> {
    Ok(IndexChange {
        added: fields.list(73, run)?,
        removed: fields.list(8, Fields::u64)?,
        indexed_through: at_most_one(fields, 8, position)?,
        open: open(fields)?,
        settled_through: Some(Sequence(fields.u64()?)).filter(|settled| *settled > Sequence(0)),
    })
}

fn put_run(body: &mut Encoder, run: &RunSummary) {
    body.u64(run.number).u64(run.entries).u8(run.levels);
    body.u64(run.root.position).u32(run.root.crc32);
    body.u64(run.attachment.position)
        .u64(run.attachment.length)
        .u32(run.attachment.crc32);
    body.u64(run.file_bytes)
        .u64(run.first_sequence.0)
        .u64(run.last_sequence.0);
}

/// What the journal says of a run.
pub(crate) fn run(fields: &mut Fields<'_>) -> Decoded<RunSummary> {
    Ok(RunSummary {
        number: fields.u64()?,
        entries: fields.u64()?,
        levels: fields.u8()?,
        root: RootNode {
            position: fields.u64()?,
            crc32: fields.u32()?,
        },
        attachment: Attachment {
            position: fields.u64()?,
            length: fields.u64()?,
            crc32: fields.u32()?,
        },
        file_bytes: fields.u64()?,
        first_sequence: Sequence(fields.u64()?),
        last_sequence: Sequence(fields.u64()?),
    })
}

pub(super) fn put_pack_change(body: &mut Encoder, change: &PackChange) {
    put_numbers(body, &change.segments);
    put_numbers(body, &change.packs);
    body.u32(change.into.unwrap_or(0));
    put_numbers(body, &change.holds);
}

pub(super) fn pack_change(fields: &mut Fields<'_>) -> Decoded<PackChange> {
    Ok(PackChange {
        segments: numbers(fields)?,
        packs: numbers(fields)?,
        into: Some(fields.u32()?).filter(|pack| *pack > 0),
        holds: numbers(fields)?,
    })
}

pub(super) fn put_layout(body: &mut Encoder, words: &ChainLayoutWords) {
    put_position(body, words.tail);
    put_position(body, words.indexed_through);
    put_open(body, words.open.as_ref());
    body.u64(words.settled_through.0);
    put_numbers(body, &words.segments);
    body.list(words.packs.iter(), |body, (pack, holds)| {
        body.u32(*pack);
        put_numbers(body, holds);
    });
    body.u64(words.next_run).u32(words.next_pack);
}

pub(super) fn layout(fields: &mut Fields<'_>) -> Decoded<ChainLayoutWords> {
    Ok(ChainLayoutWords {
        tail: position(fields)?,
        indexed_through: position(fields)?,
        open: open(fields)?,
        settled_through: Sequence(fields.u64()?),
        segments: numbers(fields)?,
        packs: fields.list(8, |fields| Ok((fields.u32()?, numbers(fields)?)))?,
        next_run: fields.u64()?,
        next_pack: fields.u32()?,
    })
}

pub(super) fn put_ends(body: &mut Encoder, ends: &[Position]) {
    body.list(ends.iter(), |body, end| put_position(body, *end));
}

pub(super) fn ends(fields: &mut Fields<'_>) -> Decoded<Vec<Position>> {
    fields.list(8, position)
}

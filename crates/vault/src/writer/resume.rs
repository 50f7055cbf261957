//! Opening a chain for writing: picks up the cycle that was being built, cuts off what is not whole behind it, and
//! removes files that nothing names.
//!
//! The groups behind the newest point are the open cycle, up to the first that is torn, foreign or out of order.
//! What a group says was durable when it was written need not be looked at again; behind that the payloads are
//! checked, and what is whole is written once more, because a sync that failed may have left it readable but not
//! durable.

use std::{fs, path::Path, sync::Arc};

use farshore_blocks::{Digest, Sequence};

use super::{ChainWriter, Soundness, building::Building, segments::SegmentWriter};
use crate::{
    damage::FileError,
    format::{FormatError, Group, MessageEnds, Position, SegmentKind, SegmentName},
    layout::{run_number, segment_name},
    memtable::Memtable,
    reader::leased,
    records::OpenCycle,
    segment::{FoundGroup, SegmentFile, walk},
    state::ChainState,
    storage::{AlignedBuffer, Content, StorageError},
    vault::{ChainHandle, WriterTenure},
};

/// How much is written again at once.
const REWRITE_BYTES: u32 = 4 * 1024 * 1024;

pub(super) fn open(tenure: WriterTenure) -> Result<ChainWriter, FileError> {
    let chain = Arc::clone(&tenure.chain);
    // Names that an earlier writer left visible but, for a sync that failed, not durable.
    for directory in [
        chain.layout.root().to_owned(),
        chain.layout.segments(),
        chain.layout.runs(),
    ] {
        chain.disk.sync_directory(&directory)?;
    }
    let state = chain.state();
    let mut unindexed = Memtable::default();
    let mut unindexed_groups: usize = 0;
    if state.indexed_through < state.tail {
        let place = (&chain.layout, chain.identity);
        walk::<FileError>(place, state.indexed_through, state.tail, |_, found| {
            found
                .entries(found.group.words.sequence)
                .for_each(|entry| unindexed.insert(entry));
            unindexed_groups = unindexed_groups.saturating_add(1);
            Ok(())
        })?;
    }
    let begin = state.indexed_through.max(state.tail);
    let found = find_open(&chain, &state, begin)?;
    let end = settle_end(&chain, &found, begin)?;
    let cycle = rebuild(&state, &found);
    unindexed_groups = unindexed_groups.saturating_add(found.len());
    sweep(&chain, end);
    Ok(ChainWriter {
        newest: state.newest().cloned(),
        volumes: Arc::clone(state.descriptions.latest()),
        segments: SegmentWriter::new(chain, end),
        tenure,
        unindexed,
        unindexed_groups,
        cycle,
        soundness: Soundness::Sound,
    })
}

/// The groups of the open cycle from `begin` on that can be believed, up to the last whole message.
fn find_open(chain: &ChainHandle, state: &ChainState, begin: Position) -> Result<Vec<FoundGroup>, FileError> {
    let mut found: Vec<FoundGroup> = Vec::new();
    let mut at = begin;
    while let Some(group) = next_group(chain, &mut at)? {
        if !follows(state, found.last(), &group.group) {
            break;
        }
        at = group.end;
        found.push(group);
    }
    let known = found
        .iter()
        .map(|group| group.group.durable_before)
        .max()
        .unwrap_or(begin);
    let doubtful = found
        .iter()
        .position(|group| group.end > known)
        .unwrap_or(found.len());
    for index in doubtful..found.len() {
        let Some(group) = found.get(index) else { break };
        let name = SegmentName::ingested(group.at.segment);
        let segment = SegmentFile::open(&chain.layout, chain.identity, name)?;
        match segment.check_payloads(group) {
            Ok(()) => {}
            // Torn. What cannot be read at all may well be whole: that is no reason to cut it off.
            Err(FileError::Damaged(_)) => found.truncate(index),
            Err(error) => return Err(error),
        }
    }
    while found
        .last()
        .is_some_and(|group| group.group.part.ends == MessageEnds::Later)
    {
        found.pop();
    }
    Ok(found)
}

/// The group at `at`, or the first of the next segment where this one ends; none if there is none or it is not whole.
fn next_group(chain: &ChainHandle, at: &mut Position) -> Result<Option<FoundGroup>, FileError> {
    loop {
        let name = SegmentName::ingested(at.segment);
        let opened = SegmentFile::open(&chain.layout, chain.identity, name);
        let group = opened.and_then(|segment| segment.group_at(at.offset));
        match group {
            Ok(Some(group)) => return Ok(Some(group)),
            Ok(None) => match at.segment.checked_add(1) {
                Some(next) => *at = Position::beginning_of(next),
                None => return Ok(None),
            },
            Err(FileError::Damaged(_)) => return Ok(None),
            Err(FileError::Storage(error)) if error.source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a group goes on where the one before it, or what was flushed, ended.
fn follows(state: &ChainState, before: Option<&FoundGroup>, group: &Group) -> bool {
    let flushed = state.open.as_ref();
    let words = &group.words;
    let base = state.base().map_or(Digest::default(), |base| base.digest);
    let cycle = before
        .map(|before| before.group.words.cycle)
        .or(flushed.map(|open| open.cycle));
    let volumes = &state.descriptions.latest().volumes;
    let (message, index) = match before.map(|before| (before.group.message, before.group.part)) {
        Some((message, part)) if part.ends == MessageEnds::Later => (message, part.index.saturating_add(1)),
        Some((message, _)) => (message.saturating_add(1), 0),
        None => (flushed.map_or(0, |open| open.last_message).saturating_add(1), 0),
    };
    words.sequence == state.newest_sequence().next()
        && words.base == base
        && cycle.is_none_or(|cycle| cycle == words.cycle)
        && (group.message, group.part.index) == (message, index)
        && group.origins.is_empty()
        && group.frames.iter().all(|frame| {
            let volume = volumes.get(frame.volume.as_usize());
            volume.is_some_and(|volume| frame.extent.end().0 <= volume.size.0)
        })
        && group
            .changes
            .iter()
            .all(|(volume, _)| volume.as_usize() < volumes.len())
        && group
            .watermarks
            .iter()
            .all(|(volume, _)| volume.as_usize() < volumes.len())
}

/// Makes sure of the groups that were found, and cuts off what lies behind them.
fn settle_end(chain: &ChainHandle, found: &[FoundGroup], begin: Position) -> Result<Position, FileError> {
    let known = found
        .iter()
        .map(|group| group.group.durable_before)
        .max()
        .unwrap_or(begin);
    let end = found.last().map_or(begin, |group| group.end);
    check_end(chain, end)?;
    for group in found.iter().filter(|group| group.end > known) {
        rewrite(chain, group)?;
    }
    let name = SegmentName::ingested(end.segment);
    let path = chain.layout.segment(name);
    if end != Position::beginning_of(end.segment) {
        let mut file = chain.disk.open_aligned(&path, Content::Kept)?;
        file.set_length(u64::from(end.offset))?;
        file.sync()?;
    }
    // Durably: a segment that came back behind what is written from now on could be taken for its continuation.
    remove_all_but(chain, &chain.layout.segments(), |path| {
        segment_name(path).is_none_or(|name| name.kind == SegmentKind::Packed || !is_past(end, name.number))
    })?;
    chain.disk.sync_directory(&chain.layout.segments())?;
    Ok(end)
}

/// The segment that goes on at `end` must reach so far: one that is cut off would be filled up with zeroes, and what
/// follows them would hide what is lost.
fn check_end(chain: &ChainHandle, end: Position) -> Result<(), FileError> {
    if end == Position::beginning_of(end.segment) {
        return Ok(());
    }
    let name = SegmentName::ingested(end.segment);
    let segment = SegmentFile::open(&chain.layout, chain.identity, name)?;
    let (expected, actual) = (u64::from(end.offset), segment.length()?);
    if actual < expected {
        let error = FormatError::TooShort { expected, actual };
        return Err(FileError::damaged(segment.path(), actual, error));
    }
    Ok(())
}

/// Whether a segment lies wholly behind `end`.
fn is_past(end: Position, number: u32) -> bool {
    number > end.segment || (number == end.segment && end == Position::beginning_of(number))
}

fn rewrite(chain: &ChainHandle, group: &FoundGroup) -> Result<(), FileError> {
    let name = SegmentName::ingested(group.at.segment);
    let segment = SegmentFile::open(&chain.layout, chain.identity, name)?;
    let mut file = chain.disk.open_aligned(segment.path(), Content::Kept)?;
    let begins = group.at == Position::beginning_of(group.at.segment);
    let mut from = if begins { 0 } else { group.at.offset };
    while from < group.end.offset {
        let to = from.saturating_add(REWRITE_BYTES).min(group.end.offset);
        let bytes = segment.raw(from, to)?;
        let mut buffer = AlignedBuffer::with_capacity(bytes.len());
        buffer.push(&bytes);
        file.write_at(buffer.bytes(), u64::from(from))?;
        from = to;
    }
    file.sync()?;
    Ok(())
}

/// The open cycle, as what was flushed and the groups behind it say.
fn rebuild(state: &ChainState, found: &[FoundGroup]) -> Option<Building> {
    let first = found.first().map(|group| &group.group);
    let open = state
        .open
        .clone()
        .or_else(|| first.map(|group| blank(state, group)))?;
    let mut building = Building::new(open);
    // Volumes that were added after the open cycle was flushed.
    building.know_volumes(state.descriptions.latest().volumes.len());
    for group in found {
        let (words, open) = (&group.group.words, &mut building.appended);
        open.epoch = words.epoch;
        open.last_message = group.group.message;
        for (volume, change) in &group.group.changes {
            if let Some(held) = open.changes.get_mut(volume.as_usize()) {
                *held = *change;
            }
        }
        for (volume, offset) in &group.group.watermarks {
            if let Some(held) = open.watermarks.get_mut(volume.as_usize()) {
                *held = *offset;
            }
        }
        building.add(group);
    }
    building.durable = building.appended.clone();
    Some(building)
}

fn blank(state: &ChainState, group: &Group) -> OpenCycle {
    let volumes = state.descriptions.latest().volumes.len();
    OpenCycle {
        cycle: group.words.cycle,
        kind: group.words.kind,
        epoch: group.words.epoch,
        base: state.base(),
        sequence: group.words.sequence,
        last_message: 0,
        watermarks: vec![Default::default(); volumes],
        changes: vec![Default::default(); volumes],
    }
}

/// Removes files that nothing names: what a crash, an abandoned cycle or a compaction left. One that cannot be
/// removed is in nobody's way, and the next sweep tries again.
pub(super) fn sweep(chain: &ChainHandle, end: Position) {
    let state = chain.state();
    // A merge or a compaction under way has files that nothing names yet.
    let Ok(_alone) = chain.maintenance.try_lock() else {
        return;
    };
    // Whoever reads everything may still be at what the journal named before.
    if leased(&chain.layout).contains(&Sequence(0)) {
        return;
    }
    let keeps_segment = |path: &Path| {
        segment_name(path).is_none_or(|name| match name.kind {
            SegmentKind::Packed => state.packs.contains_key(&name.number),
            SegmentKind::Ingested => {
                let open = name.number >= state.tail.segment && !is_past(end, name.number);
                state.segments.contains(&name.number) || open
            }
        })
    };
    let keeps_run =
        |path: &Path| run_number(path).is_none_or(|number| state.runs.iter().any(|run| run.number == number));
    let swept = remove_all_but(chain, &chain.layout.segments(), keeps_segment)
        .and_then(|()| remove_all_but(chain, &chain.layout.runs(), keeps_run));
    if let Err(error) = swept {
        tracing::warn!(chain = %chain.identity.chain, error = %error, "files that nothing names stay");
    }
}

fn remove_all_but(
    chain: &ChainHandle,
    directory: &Path,
    keep: impl Fn(&Path) -> bool,
) -> Result<(), StorageError> {
    let failed = |error| StorageError::new("list", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !keep(&path) {
            chain.disk.remove_file(&path)?;
        }
    }
    Ok(())
}

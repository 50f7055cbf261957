//! How far a chain can be settled, and where the groups behind that begin.

use farshore_blocks::{ByteCount, Sequence};

use crate::{
    damage::FileError,
    format::{Position, SegmentName},
    segment::{FoundGroup, SegmentFile},
    state::ChainState,
    storage::StorageError,
    vault::ChainHandle,
};

/// The newest sequence all of whose groups are in the runs, and where the groups of later ones begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) sequence: Sequence,
    /// Segments before this position's hold nothing of any later sequence.
    pub(super) through: Position,
}

/// Finds the boundary from the groups' headers.
pub(super) fn find(chain: &ChainHandle, state: &ChainState) -> Result<Boundary, FileError> {
    let newest = state.newest_sequence();
    let (sequence, behind) = match first_unindexed(chain, state)? {
        Some(group) => {
            let first = group.group.words.sequence.0.saturating_sub(1);
            (newest.min(Sequence(first)), group.at)
        }
        None => (newest, state.tail),
    };
    let sequence = sequence.max(state.settled_through);
    // The same cycle may have begun before what was indexed.
    let mut through = behind;
    for number in state.segments.range(..=behind.segment).rev() {
        if through == Position::beginning_of(*number) {
            continue;
        }
        match first_of_later(chain, state, *number, (sequence, through))? {
            Some(at) if at == Position::beginning_of(*number) => through = at,
            Some(at) => {
                return Ok(Boundary {
                    sequence,
                    through: at,
                });
            }
            None => break,
        }
    }
    Ok(Boundary { sequence, through })
}

/// The first group of a sealed cycle that is in no run.
fn first_unindexed(chain: &ChainHandle, state: &ChainState) -> Result<Option<FoundGroup>, FileError> {
    let mut at = state.indexed_through;
    while at < state.tail {
        let name = SegmentName::ingested(at.segment);
        let segment = SegmentFile::open(&chain.layout, chain.identity, name)?;
        match segment.group_at(at.offset)? {
            Some(found) => return Ok(Some(found)),
            None => at = Position::beginning_of(at.segment.saturating_add(1)),
        }
    }
    Ok(None)
}

/// The first group in this segment, before `end`, that belongs to a later sequence. Sequences only grow along the
/// segments: what an abandoned cycle left has the sequence of the cycle that came after it, and counts only where it is
/// not known that it was left.
fn first_of_later(
    chain: &ChainHandle,
    state: &ChainState,
    number: u32,
    (sequence, end): (Sequence, Position),
) -> Result<Option<Position>, FileError> {
    let ended = state.ends.as_ref().and_then(|ends| ends.get(&number));
    let end = ended.map_or(end, |offset| {
        end.min(Position {
            segment: number,
            offset: *offset,
        })
    });
    let segment = SegmentFile::open(&chain.layout, chain.identity, SegmentName::ingested(number))?;
    let mut at = Position::beginning_of(number);
    while at < end {
        match segment.group_at(at.offset)? {
            Some(found) if found.group.words.sequence > sequence => return Ok(Some(at)),
            Some(found) => at = found.end,
            None => break,
        }
    }
    Ok(None)
}

/// Where the first group of a sealed point behind `sequence` begins; where the sealed groups end if there is none.
pub(super) fn first_behind(
    chain: &ChainHandle,
    state: &ChainState,
    sequence: Sequence,
) -> Result<Position, FileError> {
    for number in state.segments.iter().copied() {
        if let Some(at) = first_of_later(chain, state, number, (sequence, state.tail))? {
            return Ok(at);
        }
    }
    Ok(state.tail)
}

/// Whether a segment holds groups of later points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    Nothing,
    Groups,
}

/// Looks through all groups of a segment.
pub(super) fn holds_later(chain: &ChainHandle, state: &ChainState, number: u32) -> Result<Later, FileError> {
    let end = Position {
        segment: number,
        offset: u32::MAX,
    };
    let first = first_of_later(chain, state, number, (state.settled_through, end))?;
    Ok(first.map_or(Later::Nothing, |_| Later::Groups))
}

/// What the segments hold from one position to another.
pub(super) fn bytes_between(
    chain: &ChainHandle,
    state: &ChainState,
    (from, to): (Position, Position),
) -> Result<ByteCount, StorageError> {
    if from >= to {
        return Ok(ByteCount(0));
    }
    let mut bytes = u64::from(to.offset);
    for number in state.segments.range(from.segment..to.segment) {
        bytes = bytes.saturating_add(length_of(chain, SegmentName::ingested(*number))?);
    }
    Ok(ByteCount(bytes.saturating_sub(u64::from(from.offset))))
}

/// How long a segment or pack is.
pub(super) fn length_of(chain: &ChainHandle, name: SegmentName) -> Result<u64, StorageError> {
    let path = chain.layout.segment(name);
    let metadata = std::fs::metadata(&path);
    Ok(metadata
        .map_err(|error| StorageError::new("ask the length of", &path, error))?
        .len())
}

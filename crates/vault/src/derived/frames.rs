//! The walk over the directories of segments and packs: every frame that counts, with the point for which it was
//! ingested.
//!
//! What is missing must not pass for what never was. Where a segment ends the journal says; whether a pack is whole, the
//! numbers of its groups.

use farshore_blocks::Sequence;

use super::{Files, Part};
use crate::{
    damage::FileError,
    entry::Entry,
    format::{CycleWords, FormatError, MessageEnds, MessagePart, Position, SegmentName},
    segment::{SegmentFile, place_of, walk},
};

/// Shows the entries of all frames of a part.
pub(super) fn visit(files: Files<'_>, part: Part, mut take: impl FnMut(Entry)) -> Result<(), FileError> {
    let state = files.state;
    match part {
        Part::Settled => {
            for pack in state.packs.keys() {
                visit_pack(files, *pack, &mut take)?;
            }
            let sequences = (Sequence(0), state.settled_through);
            Sealed::of(files, sequences, state.tail).visit(&mut take)
        }
        Part::Young { before } => {
            let sequences = (state.settled_through, state.newest_sequence());
            Sealed::of(files, sequences, before.min(state.tail)).visit(&mut take)
        }
        Part::Open => walk(
            (files.layout, files.identity),
            state.tail,
            state.indexed_through,
            |_, found| {
                found.entries(found.group.words.sequence).for_each(&mut take);
                Ok(())
            },
        ),
    }
}

fn visit_pack(files: Files<'_>, number: u32, take: &mut impl FnMut(Entry)) -> Result<(), FileError> {
    let file = SegmentFile::open(files.layout, files.identity, SegmentName::packed(number))?;
    let wrong = |at: Position, field| {
        let error = FormatError::Bounds { field };
        FileError::damaged(file.path(), u64::from(at.offset), error)
    };
    let mut at = Position::beginning_of(number);
    let mut expected = MessagePart {
        index: 0,
        ends: MessageEnds::Later,
    };
    while let Some(found) = file.group_at(at.offset)? {
        let group = &found.group;
        if group.sequences.len() != group.frames.len() {
            return Err(wrong(at, "sequences"));
        }
        if expected.ends == MessageEnds::Here || group.part.index != expected.index {
            return Err(wrong(at, "number of the group"));
        }
        expected = MessagePart {
            index: expected.index.saturating_add(1),
            ends: group.part.ends,
        };
        for ((origin, frame), sequence) in found.places().zip(&group.sequences) {
            let place = place_of(origin, frame);
            Entry::of_frame(frame.volume, frame.extent, *sequence, place).for_each(&mut *take);
        }
        at = found.end;
    }
    match expected.ends {
        MessageEnds::Here => Ok(()),
        MessageEnds::Later => Err(wrong(at, "number of groups")),
    }
}

/// A walk over the segments that are not packed.
struct Sealed<'vault> {
    files: Files<'vault>,
    /// Behind the first, up to the second.
    sequences: (Sequence, Sequence),
    end: Position,
}

impl<'vault> Sealed<'vault> {
    fn of(files: Files<'vault>, sequences: (Sequence, Sequence), end: Position) -> Self {
        Self {
            files,
            sequences,
            end,
        }
    }

    fn visit(self, take: &mut impl FnMut(Entry)) -> Result<(), FileError> {
        let first = self.first_segment()?;
        for number in self.files.state.segments.range(first..=self.end.segment) {
            self.visit_segment(*number, take)?;
        }
        Ok(())
    }

    /// The last segment that begins with what is before all that is wanted: sequences only grow along the segments.
    fn first_segment(&self) -> Result<u32, FileError> {
        let Files {
            layout,
            identity,
            state,
        } = self.files;
        for number in state.segments.range(..=self.end.segment).rev() {
            let file = SegmentFile::open(layout, identity, SegmentName::ingested(*number))?;
            let begins = file.group_at(Position::beginning_of(*number).offset)?;
            if begins.is_some_and(|found| found.group.words.sequence <= self.sequences.0) {
                return Ok(*number);
            }
        }
        Ok(0)
    }

    fn visit_segment(&self, number: u32, take: &mut impl FnMut(Entry)) -> Result<(), FileError> {
        let Files {
            layout,
            identity,
            state,
        } = self.files;
        let file = SegmentFile::open(layout, identity, SegmentName::ingested(number))?;
        let ended = state.ends.as_ref().and_then(|ends| ends.get(&number));
        let offset = ended.copied().unwrap_or(u32::MAX);
        let segment = number;
        let end = self.end.min(Position { segment, offset });
        let mut at = Position::beginning_of(number);
        while at < end {
            let Some(found) = file.group_at(at.offset)? else {
                break;
            };
            if self.counts(&found.group.words) {
                found.entries(found.group.words.sequence).for_each(&mut *take);
            }
            at = found.end;
        }
        if at == end {
            return Ok(());
        }
        let (expected, actual) = (u64::from(end.offset), u64::from(at.offset));
        let error = FormatError::TooShort { expected, actual };
        Err(FileError::damaged(file.path(), actual, error))
    }

    fn counts(&self, words: &CycleWords) -> bool {
        let (behind, through) = self.sequences;
        words.sequence > behind && words.sequence <= through
    }
}

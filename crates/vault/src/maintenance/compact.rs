//! Compaction: gives back what settled points no longer need of the segments and packs.
//!
//! Only files that hold nothing behind the settled boundary take part, so all their live frames are named by the
//! settled run. Files without any are dropped at once. Of others the live frames are checked and copied to a new pack,
//! which is made durable, then named in the journal in place of its victims, and only then the victims go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use farshore_blocks::{ByteCount, Encoding, Frame};

use super::{
    Halt, Pass,
    boundary::{Later, holds_later, length_of},
    merge::settled_runs,
    pack::{Carried, PackWriter},
    usage::{FrameKey, Usage},
    victims::{Batch, Candidate, choose},
};
use crate::{
    damage::FileError,
    edit::{ChainEdit, PackChange},
    format::{FormatError, SegmentKind, SegmentName},
    reader::Home,
    state::ChainState,
};

/// Frames in the order in which they were ingested.
type Frames = BTreeMap<FrameKey, Carried>;

impl Pass<'_> {
    /// Compacts until little is dead.
    pub(super) fn compact(&mut self) -> Result<(), Halt> {
        // What cannot be read stays as it is, for whoever may mend it, and is not tried again in this pass.
        let mut left_alone: BTreeSet<SegmentName> = BTreeSet::new();
        loop {
            let state = self.chain.state();
            let mut candidates = self.candidates(&state)?;
            candidates.retain(|candidate| !left_alone.contains(&candidate.name));
            let (dead, living): (Vec<_>, Vec<_>) = candidates
                .into_iter()
                .partition(|candidate| candidate.live.all_frames() == 0);
            let pack_bytes = u64::from(self.chain.segment_limit);
            let batches = choose(self.total_bytes(&state)?, &living, pack_bytes);
            let chosen = batches.iter().flat_map(|batch| &batch.victims).chain(&dead);
            let unsafe_to_touch = self.unsettled(&state, chosen)?;
            if !unsafe_to_touch.is_empty() {
                left_alone.extend(unsafe_to_touch);
            } else if !dead.is_empty() {
                self.replace_files(&dead, None, Vec::new())?;
            } else if batches.is_empty() {
                return Ok(());
            } else {
                let frames = self.live_frames(&state, &batches)?;
                for (batch, frames) in batches.iter().zip(frames) {
                    left_alone.extend(self.pack(&state, batch, &frames)?);
                }
            }
        }
    }

    /// Those of the chosen segments that hold groups of points that are not settled, or cannot be read. The settled
    /// run knows of none of the former; but what is not copied is lost, so each segment is asked as well.
    fn unsettled<'file>(
        &mut self,
        state: &ChainState,
        chosen: impl Iterator<Item = &'file Candidate>,
    ) -> Result<Vec<SegmentName>, Halt> {
        let mut found = Vec::new();
        for name in chosen.map(|candidate| candidate.name) {
            let later = match name.kind {
                SegmentKind::Ingested => holds_later(self.chain, state, name.number),
                SegmentKind::Packed => Ok(Later::Nothing),
            };
            match later {
                Ok(Later::Nothing) => {}
                Ok(Later::Groups) => found.push(name),
                Err(error @ FileError::Damaged(_)) => {
                    self.done.unreadable.push(error);
                    found.push(name);
                }
                Err(error @ FileError::Storage(_)) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// The files whose frames are all of settled points.
    fn candidates(&self, state: &ChainState) -> Result<Vec<Candidate>, Halt> {
        let table = self.settled_table(state)?;
        let mut candidates = Vec::new();
        // Where the walk over the groups that are in no run begins, there has to be a segment.
        let limit = table.through.min(state.indexed_through).min(state.tail).segment;
        for number in state.segments.range(..limit) {
            let live = table.usage.get(number).copied().unwrap_or_default();
            candidates.push(self.candidate(SegmentName::ingested(*number), live)?);
        }
        for (number, holds) in &state.packs {
            let usages = holds.iter().filter_map(|segment| table.usage.get(segment));
            let live = usages.fold(Usage::default(), |sum, usage| sum.plus(*usage));
            candidates.push(self.candidate(SegmentName::packed(*number), live)?);
        }
        Ok(candidates)
    }

    fn candidate(&self, name: SegmentName, live: Usage) -> Result<Candidate, Halt> {
        let bytes = length_of(self.chain, name)?;
        Ok(Candidate { name, bytes, live })
    }

    /// The live frames of each batch, from one scan of the settled run.
    fn live_frames(&mut self, state: &ChainState, batches: &[Batch]) -> Result<Vec<Frames>, Halt> {
        let mut batch_of: BTreeMap<u32, usize> = BTreeMap::new();
        for (index, batch) in batches.iter().enumerate() {
            for victim in &batch.victims {
                batch_of.extend(
                    origins_in(state, victim.name)
                        .iter()
                        .map(|segment| (*segment, index)),
                );
            }
        }
        let mut frames = vec![Frames::new(); batches.len()];
        let settled = state.runs.get(..settled_runs(state)).unwrap_or_default();
        for run in self.open_runs(settled)? {
            for (count, entry) in (1usize..).zip(run.entries()) {
                let entry = entry?;
                let place = &entry.place;
                let batch = batch_of
                    .get(&place.segment)
                    .and_then(|index| frames.get_mut(*index));
                if let (Some(batch), Some(stored)) = (batch, place.stored_frame(entry.volume)) {
                    let sequence = entry.sequence;
                    batch.insert(FrameKey::of(&entry), Carried { stored, sequence });
                }
                if count.is_multiple_of(ENTRIES_AT_ONCE) {
                    self.spend_on_entries(ENTRIES_AT_ONCE)?;
                }
            }
        }
        // What is not copied is lost, so the table and the index have to agree.
        let agreed = batches
            .iter()
            .zip(&frames)
            .all(|(batch, frames)| agree(batch.live, frames));
        match settled.first() {
            Some(run) if !agreed => {
                let error = FormatError::Bounds {
                    field: "frames needed",
                };
                Err(
                    FileError::damaged(&self.chain.layout.run(run.number), run.attachment.position, error)
                        .into(),
                )
            }
            Some(_) | None => Ok(frames),
        }
    }

    /// Carries a batch's frames over into a new pack. Gives the file that cannot be read, if there is one.
    fn pack(
        &mut self,
        state: &ChainState,
        batch: &Batch,
        frames: &Frames,
    ) -> Result<Option<SegmentName>, Halt> {
        let number = self.chain.state().next_pack;
        let mut writer = PackWriter::create(self.chain, number)?;
        let path = self.chain.layout.segment(SegmentName::packed(number));
        let copied = self.ask().and_then(|()| self.copy(state, frames, &mut writer));
        match copied {
            Ok(None) => {}
            Ok(Some((name, error))) => {
                drop(writer);
                self.give_up(&path);
                self.done.unreadable.push(error);
                return Ok(Some(name));
            }
            Err(halt) => {
                drop(writer);
                self.give_up(&path);
                return Err(halt);
            }
        }
        let bytes = writer.finish().inspect_err(|_| self.give_up(&path))?;
        self.done.packed_bytes = ByteCount(self.done.packed_bytes.0.saturating_add(bytes));
        let holds: BTreeSet<u32> = frames.keys().map(|frame| frame.origin.segment).collect();
        self.replace_files(&batch.victims, Some(number), holds.into_iter().collect())?;
        Ok(None)
    }

    /// Copies frames; stops at the first file that is damaged.
    fn copy(
        &mut self,
        state: &ChainState,
        frames: &Frames,
        into: &mut PackWriter<'_>,
    ) -> Result<Option<(SegmentName, FileError)>, Halt> {
        let mut homes: BTreeMap<SegmentName, Arc<Home>> = BTreeMap::new();
        for (key, carried) in frames {
            let segment = key.origin.segment;
            let name = state.home_of(segment).unwrap_or(SegmentName::ingested(segment));
            let frame = match self.read(&mut homes, name, (key, carried)) {
                Ok(frame) => frame,
                Err(error @ FileError::Damaged(_)) => return Ok(Some((name, error))),
                Err(error @ FileError::Storage(_)) => return Err(error.into()),
            };
            into.push(key.origin, *carried, frame.as_ref())?;
            self.spend(u64::from(carried.stored.stored_bytes).saturating_mul(2))?;
        }
        Ok(None)
    }

    /// Reads and checks a frame; of zeroes there is nothing to read.
    fn read(
        &self,
        homes: &mut BTreeMap<SegmentName, Arc<Home>>,
        name: SegmentName,
        (key, carried): (&FrameKey, &Carried),
    ) -> Result<Option<Frame>, FileError> {
        if carried.stored.encoding == Encoding::Zero {
            return Ok(None);
        }
        let home = match homes.get(&name) {
            Some(home) => Arc::clone(home),
            None => {
                let home = Arc::new(Home::open(&self.chain.layout, self.chain.identity, name)?);
                homes.insert(name, Arc::clone(&home));
                home
            }
        };
        let missing = || {
            let error = FormatError::Identity { field: "frames" };
            FileError::damaged(&self.chain.layout.segment(name), 0, error)
        };
        let offset = home.offset_of_origin(key.origin).ok_or_else(missing)?;
        home.frame(offset, &carried.stored).map(Some)
    }

    /// Names a pack, or nothing, in place of files whose frames it holds, and removes them.
    fn replace_files(
        &mut self,
        victims: &[Candidate],
        into: Option<u32>,
        holds: Vec<u32>,
    ) -> Result<(), Halt> {
        let of = |kind| {
            let names = victims
                .iter()
                .map(|victim| victim.name)
                .filter(move |name| name.kind == kind);
            names.map(|name| name.number).collect()
        };
        let change = PackChange {
            segments: of(SegmentKind::Ingested),
            packs: of(SegmentKind::Packed),
            into,
            holds,
        };
        let names = victims.iter().map(|victim| victim.name);
        self.replace(
            ChainEdit::Packed(change),
            names.map(|name| self.chain.layout.segment(name)).collect(),
        )
    }
}

/// How many entries are scanned between two questions to the pace.
const ENTRIES_AT_ONCE: usize = 16_384;

/// Whether the index leads to all frames that the table counts. A table of an earlier build counts none of zeroes.
fn agree(counted: Usage, found: &Frames) -> bool {
    let is_zero = |carried: &&Carried| carried.stored.encoding == Encoding::Zero;
    let zeroes = found.values().filter(is_zero).count();
    let data = found.len().saturating_sub(zeroes);
    u64::try_from(data).is_ok_and(|data| data == counted.frames)
        && u64::try_from(zeroes).is_ok_and(|zeroes| zeroes >= counted.zero_frames)
}

/// The segments in which a file's frames were ingested.
fn origins_in(state: &ChainState, name: SegmentName) -> Vec<u32> {
    match name.kind {
        SegmentKind::Ingested => vec![name.number],
        SegmentKind::Packed => state.packs.get(&name.number).cloned().unwrap_or_default(),
    }
}

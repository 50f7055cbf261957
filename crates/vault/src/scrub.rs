//! The scrub: reads everything that the points of a chain need, again and again, a bounded piece at a time, so that
//! damage is found while there is still something to be done about it.
//!
//! A pass goes through the files in the order in which they lie on disk, not through the index: sequential reads
//! cost the least. Damage is then traced through the index to the points that it hits; what no retained point shows
//! is of no consequence.

mod hits;

use std::{collections::BTreeSet, io};

use farshore_blocks::{ByteCount, ByteOffset, ChainId, Sequence, VolumeIndex};

use crate::{
    damage::FileError,
    entry::FramePlace,
    format::{Identity, Position, SegmentKind, SegmentName},
    layout::{ChainLayout, run_number},
    reader::VaultReader,
    segment::{FoundGroup, SegmentFile, place_of},
    state::ChainState,
    tree::{NodeCache, Run},
    vault::VaultError,
};

/// The scrub of one chain: where it stands in its pass.
#[derive(Debug)]
pub struct Scrub {
    reader: VaultReader,
    identity: Identity,
    layout: ChainLayout,
    at: Standing,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Run(u64),
    File(SegmentName, u32),
}

/// What one piece of a pass came to.
#[derive(Debug)]
pub struct Scrubbed {
    /// How much was read.
    pub bytes: ByteCount,
    /// Whether the pass is over; the next piece begins another.
    pub pass: Pass,
    /// What was found.
    pub damage: Vec<Damage>,
}

/// Whether a pass goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// There is more to read.
    GoesOn,
    /// Everything was read.
    Over,
}

/// Something that can no longer be read as it was written, and whom that hits.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong, and in which file.
    pub error: FileError,
    /// The volume and where in it, if that can be told.
    pub place: Option<(VolumeIndex, ByteOffset)>,
    /// The retained points that need it, oldest first.
    pub points: Vec<Sequence>,
}

impl Damage {
    /// Whether it is of the index, which can be [made again](crate::Vault::mend_index).
    #[must_use]
    pub fn is_of_index(&self) -> bool {
        let path = match &self.error {
            FileError::Damaged(damaged) => &damaged.path,
            FileError::Storage(failed) => &failed.path,
        };
        run_number(path).is_some()
    }
}

impl Scrub {
    /// A scrub of `chain` that begins its first pass.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn new(reader: VaultReader, chain: ChainId) -> Result<Self, VaultError> {
        reader.description(chain)?;
        Ok(Self {
            identity: reader.identity(chain),
            layout: reader.layout().chain(chain),
            reader,
            at: Standing::Run(0),
        })
    }

    /// Reads on, about so many bytes, and at least one run of the index or group of frames.
    ///
    /// # Errors
    /// When the chain is gone, or the journal is damaged.
    pub fn go_on(&mut self, about: ByteCount) -> Result<Scrubbed, VaultError> {
        let mut done = Scrubbed {
            bytes: ByteCount(0),
            pass: Pass::GoesOn,
            damage: Vec::new(),
        };
        let state = self.reader.with_chain(self.identity.chain, ChainState::clone)?;
        while done.bytes.0 < about.0 {
            match next(&state, self.at) {
                None => {
                    self.at = Standing::Run(0);
                    done.pass = Pass::Over;
                    return Ok(done);
                }
                Some(Standing::Run(number)) => {
                    self.check_run(&state, number, &mut done);
                    self.at = Standing::Run(number.saturating_add(1));
                }
                Some(Standing::File(name, offset)) => {
                    self.at = self.check_file(&state, name, offset, (&mut done, about));
                }
            }
        }
        Ok(done)
    }

    fn check_run(&self, state: &ChainState, number: u64, done: &mut Scrubbed) {
        let Some(summary) = state.runs.iter().find(|run| run.number == number) else {
            return;
        };
        // The check reads every node itself.
        let nodes = std::sync::Arc::new(NodeCache::new(0));
        let run = Run::open(&self.layout.run(number), self.identity, summary, nodes);
        done.bytes = ByteCount(done.bytes.0.saturating_add(summary.file_bytes));
        if let Err(error) = run.and_then(|run| run.check()) {
            let points = state.points().map(|point| point.sequence);
            let points = points.filter(|point| *point >= summary.first_sequence).collect();
            self.found(
                done,
                Damage {
                    error,
                    place: None,
                    points,
                },
            );
        }
    }

    /// Checks groups of one file; gives where to go on.
    fn check_file(
        &self,
        state: &ChainState,
        name: SegmentName,
        offset: u32,
        (done, about): (&mut Scrubbed, ByteCount),
    ) -> Standing {
        let behind = Standing::File(name, u32::MAX);
        let file = match SegmentFile::open(&self.layout, self.identity, name) {
            Ok(file) => file,
            Err(error) => {
                self.found_in_rest(
                    state,
                    Position {
                        segment: name.number,
                        offset: 0,
                    },
                    name,
                    (error, done),
                );
                return behind;
            }
        };
        let mut at = Position {
            segment: name.number,
            offset,
        };
        while done.bytes.0 < about.0 {
            let is_sealed = name.kind == SegmentKind::Packed || at < state.tail;
            match file.group_at(at.offset) {
                Ok(Some(found)) if is_sealed => {
                    self.check_group(state, &file, &found, done);
                    let length = u64::from(found.end.offset.saturating_sub(found.at.offset));
                    done.bytes = ByteCount(done.bytes.0.saturating_add(length));
                    at = found.end;
                }
                Ok(_) => return behind,
                Err(error) if is_sealed => {
                    self.found_in_rest(state, at, name, (error, done));
                    return behind;
                }
                Err(_) => return behind,
            }
        }
        Standing::File(name, at.offset)
    }

    fn check_group(&self, state: &ChainState, file: &SegmentFile, found: &FoundGroup, done: &mut Scrubbed) {
        let places = found.places().map(|(position, _)| position);
        for ((offset, stored), origin) in found.frames().zip(places) {
            if let Err(error) = file.frame_at(offset, stored) {
                let points = self.points_that_show(state, stored, &place_of(origin, stored));
                let place = Some((stored.volume, stored.extent.start()));
                self.found(done, Damage { error, place, points });
            }
        }
    }

    /// Tells of damage that makes everything behind `at` unreachable.
    fn found_in_rest(
        &self,
        state: &ChainState,
        at: Position,
        name: SegmentName,
        (error, done): (FileError, &mut Scrubbed),
    ) {
        let holds = state.packs.get(&name.number);
        let belongs = |place: &FramePlace| match name.kind {
            SegmentKind::Ingested => place.segment == name.number && place.position >= at.offset,
            SegmentKind::Packed => holds.is_some_and(|holds| holds.contains(&place.segment)),
        };
        let (place, points) = self.points_that_need(state, belongs);
        self.found(done, Damage { error, place, points });
    }

    /// Keeps what hits a point. A file that is gone because it was compacted meanwhile is no damage.
    fn found(&self, done: &mut Scrubbed, damage: Damage) {
        let gone = matches!(&damage.error, FileError::Storage(error) if error.source.kind() == io::ErrorKind::NotFound);
        let moved = gone && self.has_changed();
        if !damage.points.is_empty() && !moved {
            done.damage.push(damage);
        }
    }

    /// Whether files were replaced since the pass looked.
    fn has_changed(&self) -> bool {
        let names = |state: &ChainState| {
            let segments = state.segments.iter().map(|number| SegmentName::ingested(*number));
            let packs = state.packs.keys().map(|number| SegmentName::packed(*number));
            let files: BTreeSet<_> = segments
                .chain(packs)
                .map(|name| self.layout.segment(name))
                .collect();
            let runs = state.runs.iter().map(|run| self.layout.run(run.number));
            files.into_iter().chain(runs).all(|path| path.exists())
        };
        // All that the journal names now is there: what was missed is named no longer.
        self.reader
            .with_chain(self.identity.chain, names)
            .unwrap_or(false)
    }
}

/// What is to be read at `from` or behind it.
fn next(state: &ChainState, from: Standing) -> Option<Standing> {
    let runs = state.runs.iter().map(|run| Standing::Run(run.number));
    let segments = state.segments.iter().map(|number| SegmentName::ingested(*number));
    let packs = state.packs.keys().map(|number| SegmentName::packed(*number));
    let files = segments.chain(packs).map(|name| match from {
        Standing::File(here, offset) if here == name => Standing::File(name, offset),
        Standing::File(..) | Standing::Run(_) => Standing::File(name, Position::beginning_of(0).offset),
    });
    let ahead = |standing: &Standing| match (standing, from) {
        (Standing::Run(number), Standing::Run(at)) => *number >= at,
        (Standing::Run(_), Standing::File(..)) => false,
        (Standing::File(..), Standing::Run(_)) => true,
        (Standing::File(name, offset), Standing::File(here, _)) => {
            *name > here || (*name == here && *offset < u32::MAX)
        }
    };
    runs.chain(files).filter(ahead).min()
}

#[cfg(test)]
mod tests;

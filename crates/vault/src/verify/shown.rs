//! The walk through the index: every byte that a point can show is there and right.

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, Encoding};

use super::{ChainProof, Problem, ProblemKind};
use crate::{
    damage::FileError,
    entry::{Entry, FramePlace},
    format::FormatError,
    memtable::Memtable,
    reader::Homes,
    segment::walk,
    tree::{NodeCache, Run},
    versions::{Layer, Merge},
};

/// How many entries are read between two words of progress.
const ENTRIES_BETWEEN_WORDS: usize = 1024;
/// How much memory the index's nodes may take.
const NODE_CACHE_BYTES: usize = 4 * 1024 * 1024;

impl ChainProof<'_> {
    pub(super) fn prove_shown(&mut self) {
        let runs = self.open_runs();
        // The walk through the segments has told of what cannot be read.
        let unindexed = self.unindexed();
        if let Ok(unindexed) = &unindexed {
            self.compare_with_frames(&runs, unindexed);
        }
        let unindexed = unindexed.unwrap_or_default();
        let mut layers = vec![Layer::Memtable(&unindexed)];
        layers.extend(runs.iter().map(Layer::Run));
        let homes = Homes::of_then(&self.layout, self.identity, &self.state);
        let mut settled = self.settled_proof(&runs);
        let mut last: Option<FramePlace> = None;
        for (number, entry) in Merge::new(&layers).enumerate() {
            if let (Ok(entry), Some(settled)) = (&entry, settled.as_mut()) {
                settled.see(entry);
            }
            match entry {
                // The pieces of a frame that shows in several pieces often come one after the other.
                Ok(entry) if last == Some(entry.place) => {}
                Ok(entry) => {
                    last = Some(entry.place);
                    self.prove_entry(&homes, &entry);
                    if number.is_multiple_of(ENTRIES_BETWEEN_WORDS) {
                        self.tell(entry.sequence);
                    }
                }
                // Each run was checked by itself, and what is wrong with it told.
                Err(_) => return,
            }
        }
        if let Some(settled) = &settled {
            self.prove_settled(settled);
        }
    }

    /// Opens the runs of sealed points, newest first, and checks each of them.
    fn open_runs(&mut self) -> Vec<Run> {
        let nodes = Arc::new(NodeCache::new(NODE_CACHE_BYTES));
        let mut runs = Vec::new();
        let newest = self.state.newest_sequence();
        let summaries: Vec<_> = self.state.runs.iter().rev().copied().collect();
        for summary in summaries {
            let path = self.layout.run(summary.number);
            let opened = Run::open(&path, self.identity, &summary, Arc::clone(&nodes));
            let checked = opened.and_then(|run| run.check().map(|()| run));
            match checked {
                Ok(run) if summary.first_sequence <= newest => runs.push(run),
                Ok(_) => {}
                Err(error) => {
                    let point = self.first_shown(summary.first_sequence);
                    self.found(Problem::from(error).of(point));
                }
            }
        }
        runs
    }

    fn unindexed(&self) -> Result<Memtable, FileError> {
        let mut unindexed = Memtable::default();
        let place = (&self.layout, self.identity);
        walk::<FileError>(place, self.state.indexed_through, self.state.tail, |_, found| {
            let sequence = found.group.words.sequence;
            found.entries(sequence).for_each(|entry| unindexed.insert(entry));
            Ok(())
        })?;
        Ok(unindexed)
    }

    /// The entry whose frame comes first among those that `belongs` picks.
    pub(super) fn first_entry_where(&self, belongs: impl Fn(&FramePlace) -> bool) -> Option<Entry> {
        let nodes = Arc::new(NodeCache::new(NODE_CACHE_BYTES));
        let runs = self.state.runs.iter();
        let runs = runs.filter_map(|run| {
            let path = self.layout.run(run.number);
            Run::open(&path, self.identity, run, Arc::clone(&nodes)).ok()
        });
        let runs: Vec<_> = runs.collect();
        let entries = runs.iter().flat_map(Run::entries).filter_map(Result::ok);
        let hit = entries.filter(|entry| belongs(&entry.place));
        hit.min_by_key(|entry| (entry.place.segment, entry.place.position))
    }

    fn prove_entry(&mut self, homes: &Homes, entry: &Entry) {
        match read_raw(homes, entry) {
            Ok(Some(fingerprint)) if fingerprint != entry.place.fingerprint => {
                self.found_in(entry, ProblemKind::Fingerprint);
            }
            Ok(_) => {
                if entry.sequence <= self.state.settled_through {
                    self.report.frames = self.report.frames.saturating_add(1);
                    let bytes = self.report.bytes.0.saturating_add(u64::from(entry.length));
                    self.report.bytes = ByteCount(bytes);
                }
            }
            Err(error) => self.found_in(entry, ProblemKind::File(error)),
        }
    }

    fn found_in(&mut self, entry: &Entry, kind: ProblemKind) {
        let known = self.report.problems.iter().any(|problem| {
            problem.volume == Some(entry.volume)
                && problem.offset.is_some_and(|offset| {
                    let end = entry
                        .place
                        .frame_start
                        .saturating_add(u64::from(entry.place.raw_bytes));
                    (entry.place.frame_start..end).contains(&offset.0)
                })
        });
        if !known {
            let problem = Problem::at(entry.volume, ByteOffset(entry.start), kind);
            self.found(problem.of(self.first_shown(entry.sequence)));
        }
    }
}

/// The fingerprint of the raw bytes of an entry's frame, checked against its checksum; none for zeroes.
fn read_raw(homes: &Homes, entry: &Entry) -> Result<Option<u64>, FileError> {
    let place = &entry.place;
    if place.encoding == Encoding::Zero {
        return Ok(None);
    }
    let home = homes.of(place.segment)?;
    let error = FormatError::Bounds { field: "frame" };
    let stored = place.stored_frame(entry.volume);
    let stored =
        stored.ok_or_else(|| FileError::damaged(home.file().path(), u64::from(place.position), error))?;
    let frame = home.frame(home.offset_of(place)?, &stored)?;
    let digest = frame.raw_digest();
    Ok(digest.as_bytes().first_chunk().copied().map(u64::from_le_bytes))
}

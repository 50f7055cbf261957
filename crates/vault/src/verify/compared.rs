//! The index against the frames: of points that were not settled, the index says what the segments hold, no entry more,
//! no entry less. Of settled points the proofs stand for that.

use farshore_blocks::ByteOffset;

use super::{ChainProof, Problem, ProblemKind};
use crate::{
    damage::FileError,
    derived::{Derived, Files, Part, WINDOW_ENTRIES, is_told},
    entry::Entry,
    memtable::Memtable,
    tree::Run,
    versions::{Layer, Merge},
};

impl ChainProof<'_> {
    /// Compares the runs, newest first, and the entries that are in none, with the segments. Both must be whole: what
    /// is not was told of.
    pub(super) fn compare_with_frames(&mut self, runs: &[Run], unindexed: &Memtable) {
        let state = self.state.clone();
        let (settled, newest) = (state.settled_through, state.newest_sequence());
        let all_open = state
            .runs
            .iter()
            .filter(|run| run.first_sequence <= newest)
            .all(|run| runs.iter().any(|open| open.summary().number == run.number));
        if is_told(&state).is_err() || !all_open {
            return;
        }
        let young = runs
            .iter()
            .filter(|run| run.summary().last_sequence > settled)
            .map(Layer::Run);
        let layers: Vec<_> = [Layer::Memtable(unindexed)].into_iter().chain(young).collect();
        let is_young = |entry: &Entry| entry.sequence > settled && entry.sequence <= newest;
        let indexed = Merge::new(&layers).filter(|entry| entry.as_ref().map_or(true, is_young));
        let layout = self.layout.clone();
        let files = Files {
            layout: &layout,
            identity: self.identity,
            state: &state,
        };
        let part = Part::Young { before: state.tail };
        let held = Derived::new(files, part, WINDOW_ENTRIES).flat_map(|chunk| {
            let (entries, error) = match chunk {
                Ok(entries) => (entries, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            entries.into_iter().map(Ok).chain(error)
        });
        self.compare(indexed, held);
    }

    /// Tells of each place where two rows of entries differ. Where either cannot be read on, there is nothing more to
    /// compare: the walks have told of that.
    fn compare(
        &mut self,
        indexed: impl Iterator<Item = Result<Entry, FileError>>,
        held: impl Iterator<Item = Result<Entry, FileError>>,
    ) {
        let (mut indexed, mut held) = (indexed.peekable(), held.peekable());
        loop {
            let (in_index, in_file) = match (indexed.peek(), held.peek()) {
                (Some(Err(_)), _) | (_, Some(Err(_))) | (None, None) => return,
                (Some(Ok(index)), Some(Ok(frame))) => (Some(*index), Some(*frame)),
                (Some(Ok(index)), None) => (Some(*index), None),
                (None, Some(Ok(frame))) => (None, Some(*frame)),
            };
            // Of the same place both are passed at once, of different ones the first.
            let key = |entry: Option<Entry>| entry.map(|entry| entry.key());
            let first = key(in_index).into_iter().chain(key(in_file)).min();
            if in_index != in_file {
                let differing = in_index.filter(|entry| Some(entry.key()) == first).or(in_file);
                differing.iter().for_each(|entry| self.differs(entry));
            }
            if key(in_index) == first {
                indexed.next();
            }
            if key(in_file) == first {
                held.next();
            }
        }
    }

    fn differs(&mut self, entry: &Entry) {
        let problem = Problem::at(entry.volume, ByteOffset(entry.start), ProblemKind::Index);
        self.found(problem.of(self.first_shown(entry.sequence)));
    }
}

//! Merging runs of the index into one.
//!
//! Young runs, those behind the settled one, are merged as they are: nothing is left out, so nothing has to be known
//! of points. They are merged once there are more than [`MOST_YOUNG_RUNS`], the newest of about one size first, so
//! that an entry is written again only about as often as the index doubles.

use std::{path::PathBuf, sync::Arc};

use farshore_blocks::{ByteCount, Sequence};

use super::{Halt, Pass, boundary};
use crate::{
    damage::FileError,
    edit::{ChainEdit, IndexChange},
    entry::Entry,
    state::ChainState,
    storage::StorageError,
    tree::{NodeCache, Run, RunError, RunSummary, RunWriter},
    versions::{Chunks, Layer, Merge},
};

/// How many runs of unsettled points a reader has to look into at most, once maintenance was there.
pub(super) const MOST_YOUNG_RUNS: usize = 8;
/// How much memory the nodes of the runs that are being merged may take: they are read once, front to back.
const NODE_CACHE_BYTES: usize = 1 << 20;
/// A run is merged with newer ones that hold half as much together.
const SAME_SIZE: u64 = 2;

/// A run that is being merged from others.
pub(super) struct MergedRun {
    number: u64,
    path: PathBuf,
    writer: RunWriter,
}

impl MergedRun {
    fn create(pass: &Pass<'_>) -> Result<Self, Halt> {
        let number = pass.chain.fresh_run();
        let path = pass.chain.layout.run(number);
        let writer = RunWriter::create(&pass.chain.disk, &path, pass.chain.identity, number)?;
        Ok(Self { number, path, writer })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), StorageError> {
        self.writer.push(entry).map_err(|error| match error {
            RunError::Storage(error) => error,
            error @ (RunError::Order { .. } | RunError::Entry(_)) => {
                StorageError::new("write the index of", &self.path, std::io::Error::other(error))
            }
        })
    }

    /// Makes the run durable, and its name.
    pub(super) fn finish(self, pass: &mut Pass<'_>, attachment: &[u8]) -> Result<RunSummary, Halt> {
        let summary = self.writer.finish(attachment)?;
        pass.chain.disk.sync_directory(&pass.chain.layout.runs())?;
        pass.done.index_bytes = ByteCount(pass.done.index_bytes.0.saturating_add(summary.file_bytes));
        Ok(summary)
    }
}

impl Pass<'_> {
    /// Opens runs, newest first; they are given oldest first.
    pub(super) fn open_runs(&self, runs: &[RunSummary]) -> Result<Vec<Run>, FileError> {
        let nodes = Arc::new(NodeCache::new(NODE_CACHE_BYTES));
        let open = |run: &RunSummary| {
            let path = self.chain.layout.run(run.number);
            Run::open(&path, self.chain.identity, run, Arc::clone(&nodes))
        };
        runs.iter().rev().map(open).collect()
    }

    /// Takes the place of `old`, which a merge made into `new`.
    pub(super) fn replace_runs(&mut self, old: &[RunSummary], change: IndexChange) -> Result<(), Halt> {
        let removed = old.iter().map(|run| run.number).collect();
        let files = old.iter().map(|run| self.chain.layout.run(run.number)).collect();
        self.replace(ChainEdit::Indexed(IndexChange { removed, ..change }), files)?;
        self.done.runs_merged = self.done.runs_merged.saturating_add(old.len());
        Ok(())
    }

    /// Merges young runs until there are few.
    pub(super) fn merge_young(&mut self) -> Result<(), Halt> {
        let complete = boundary::find(self.chain, &self.chain.state())?.sequence;
        loop {
            let young = young(&self.chain.state(), complete);
            if young.len() <= MOST_YOUNG_RUNS {
                return Ok(());
            }
            let chosen = alike(&young);
            let (run, ()) = self.made(|pass, run| pass.merge_all(&chosen, run))?;
            let summary = run.finish(self, &[])?;
            let added = vec![summary];
            self.replace_runs(
                &chosen,
                IndexChange {
                    added,
                    ..IndexChange::default()
                },
            )?;
        }
    }

    fn merge_all(&mut self, runs: &[RunSummary], into: &mut MergedRun) -> Result<(), Halt> {
        let runs = self.open_runs(runs)?;
        let layers: Vec<_> = runs.iter().map(Layer::Run).collect();
        for chunk in Chunks::new(Merge::new(&layers)) {
            let chunk = chunk?;
            for entry in &chunk {
                into.push(entry)?;
            }
            self.spend_on_entries(chunk.len())?;
        }
        Ok(())
    }

    /// Makes a merged run; what came of it is removed when it is given up.
    pub(super) fn made<Outcome>(
        &mut self,
        fill: impl FnOnce(&mut Self, &mut MergedRun) -> Result<Outcome, Halt>,
    ) -> Result<(MergedRun, Outcome), Halt> {
        let mut run = MergedRun::create(self)?;
        let filled = self.ask().and_then(|()| fill(self, &mut run));
        match filled {
            Ok(outcome) => Ok((run, outcome)),
            Err(halt) => {
                self.give_up(&run.path);
                Err(halt)
            }
        }
    }
}

/// The runs that are not settled, oldest first, up to the last sequence all of whose groups are in runs. A part of
/// the next one must not be merged with them: a boundary would go through the run.
fn young(state: &ChainState, complete: Sequence) -> Vec<RunSummary> {
    let settled = settled_runs(state);
    let young = state
        .runs
        .iter()
        .skip(settled)
        .take_while(|run| run.last_sequence <= complete);
    young.copied().collect()
}

/// How many settled runs a chain has: the first of all, or none.
pub(super) fn settled_runs(state: &ChainState) -> usize {
    usize::from(state.settled_through.0 > 0)
}

/// The newest runs, as far back as none is much larger than all behind it: at least two.
fn alike(young: &[RunSummary]) -> Vec<RunSummary> {
    let mut entries: u64 = 0;
    let mut count: usize = 0;
    for run in young.iter().rev() {
        if count >= 2 && run.entries > entries.saturating_mul(SAME_SIZE) {
            break;
        }
        entries = entries.saturating_add(run.entries);
        count = count.saturating_add(1);
    }
    young
        .get(young.len().saturating_sub(count)..)
        .unwrap_or_default()
        .to_vec()
}

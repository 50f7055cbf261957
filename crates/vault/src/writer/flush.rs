//! Writing the entries of recent groups down as runs of the index, so that neither memory nor the time to open a
//! chain grows with what was ingested.

use std::{
    path::PathBuf,
    sync::{MutexGuard, PoisonError},
};

use farshore_blocks::Sequence;

use super::ChainWriter;
use crate::{
    damage::FileError,
    edit::{ChainEdit, Edit, IndexChange},
    format::Position,
    memtable::Memtable,
    segment::walk,
    storage::StorageError,
    tree::{RunError, RunSummary, RunWriter},
    vault::ChainHandle,
};

/// How many entries are held in memory before they are written down: about 6 MiB of them.
const MOST_ENTRIES: usize = 65_536;
/// How many groups are read again at most when a chain is opened.
const MOST_GROUPS: usize = 2048;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the index of `{}` cannot be written", path.display())]
    Run {
        path: PathBuf,
        #[source]
        source: RunError,
    },
}

impl ChainWriter {
    /// Flushes once there is much to flush. A flush that fails is tried again later: nothing depends on it.
    pub(super) fn flush_if_much(&mut self) {
        let open = self.cycle.as_ref().map_or(0, |cycle| cycle.entries.len());
        let limits = self.tenure.chain.flush_limits;
        let entries = self.unindexed.len().saturating_add(open);
        if entries < limits.entries && self.unindexed_groups < limits.groups {
            return;
        }
        if let Err(error) = self.flush() {
            tracing::warn!(chain = %self.tenure.chain.identity.chain, error = %error, "the index was not flushed");
        }
    }

    /// Writes all entries down as runs. Everything appended must be durable.
    fn flush(&mut self) -> Result<(), FlushError> {
        let through = self.segments.cursor();
        if self.segments.durable() != through {
            return Ok(());
        }
        let chain = std::sync::Arc::clone(&self.tenure.chain);
        let flushed = flushed(&chain);
        self.unindexed.forget_through(*flushed);
        let mut added = Vec::new();
        // What is sealed and what is open go to runs of their own: an abandoned cycle takes its runs with it.
        let open = self.cycle.as_ref().map(|cycle| &cycle.entries);
        for entries in [Some(&self.unindexed), open].into_iter().flatten() {
            if entries.len() > 0 {
                added.push(write_run(&chain, entries)?);
            }
        }
        chain.disk.sync_directory(&chain.layout.runs())?;
        commit(
            &chain,
            IndexChange {
                added,
                indexed_through: Some(through),
                open: self.cycle.as_ref().map(|cycle| cycle.durable.clone()),
                ..IndexChange::default()
            },
            None,
        )?;
        self.unindexed = Memtable::default();
        self.unindexed_groups = 0;
        if let Some(cycle) = self.cycle.as_mut() {
            cycle.entries = Memtable::default();
        }
        Ok(())
    }

    /// Commits that the open cycle is given up, and goes on in a new segment if it wrote anything.
    pub(super) fn commit_abandoned(&mut self, chain: &ChainHandle) -> Result<(), StorageError> {
        let flushed = flushed(chain);
        self.unindexed.forget_through(*flushed);
        let (tail, open_runs) = {
            let state = chain.committer.state();
            let Some(state) = state.chain(chain.identity.chain) else {
                return Ok(());
            };
            let newest = state.newest_sequence();
            let open = state.runs.iter().filter(|run| run.first_sequence > newest);
            (state.tail, open.map(|run| run.number).collect::<Vec<_>>())
        };
        if self.segments.cursor() == tail && open_runs.is_empty() {
            return Ok(());
        }
        let fresh = Position::beginning_of(self.segments.cursor().segment.saturating_add(1));
        let mut change = IndexChange {
            removed: open_runs,
            indexed_through: Some(fresh),
            ..IndexChange::default()
        };
        if self.unindexed.len() > 0 {
            let run = write_run(chain, &self.unindexed).map_err(FlushError::into_storage)?;
            chain.disk.sync_directory(&chain.layout.runs())?;
            change.added.push(run);
        }
        commit(chain, change, Some(ChainEdit::Abandoned { tail: fresh }))?;
        self.unindexed = Memtable::default();
        self.unindexed_groups = 0;
        self.segments = super::SegmentWriter::new(std::sync::Arc::clone(&self.tenure.chain), fresh);
        Ok(())
    }
}

/// Writes down the entries of all sealed groups that are in no run, for a chain whose writer does not come to it. What
/// its writer has of them in memory it lets go of when it flushes itself.
pub(crate) fn flush_sealed(chain: &ChainHandle) -> Result<(), FileError> {
    let mut flushed = flushed(chain);
    let state = chain.state();
    if state.indexed_through >= state.tail {
        return Ok(());
    }
    let mut entries = Memtable::default();
    let place = (&chain.layout, chain.identity);
    walk::<FileError>(place, state.indexed_through, state.tail, |_, found| {
        let sequence = found.group.words.sequence;
        found.entries(sequence).for_each(|entry| entries.insert(entry));
        Ok(())
    })?;
    let mut change = IndexChange {
        indexed_through: Some(state.tail),
        ..IndexChange::default()
    };
    if entries.len() > 0 {
        change
            .added
            .push(write_run(chain, &entries).map_err(FlushError::into_storage)?);
        chain.disk.sync_directory(&chain.layout.runs())?;
    }
    commit(chain, change, None)?;
    *flushed = state.newest_sequence();
    Ok(())
}

fn flushed(chain: &ChainHandle) -> MutexGuard<'_, Sequence> {
    chain.flushed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FlushError {
    fn into_storage(self) -> StorageError {
        match self {
            Self::Storage(error) => error,
            Self::Run { path, source } => {
                StorageError::new("write the index of", &path, std::io::Error::other(source))
            }
        }
    }
}

/// How much may be in no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlushLimits {
    pub(crate) entries: usize,
    pub(crate) groups: usize,
    /// How many entries are put in order at once when runs are made again.
    pub(crate) window_entries: usize,
}

impl Default for FlushLimits {
    fn default() -> Self {
        Self {
            entries: MOST_ENTRIES,
            groups: MOST_GROUPS,
            window_entries: crate::derived::WINDOW_ENTRIES,
        }
    }
}

fn write_run(chain: &ChainHandle, entries: &Memtable) -> Result<RunSummary, FlushError> {
    let number = chain.fresh_run();
    let path = chain.layout.run(number);
    let mut run = RunWriter::create(&chain.disk, &path, chain.identity, number)?;
    for entry in entries.entries() {
        run.push(&entry).map_err(|source| FlushError::Run {
            path: path.clone(),
            source,
        })?;
    }
    Ok(run.finish(&[])?)
}

/// Commits a change of the index. One that happened counts, confirmed or not: the next commit confirms it.
fn commit(chain: &ChainHandle, change: IndexChange, also: Option<ChainEdit>) -> Result<(), StorageError> {
    let identity = chain.identity.chain;
    let mut edits = vec![Edit::from((identity, ChainEdit::Indexed(change)))];
    edits.extend(also.map(|edit| Edit::from((identity, edit))));
    match chain.committer.commit(edits) {
        Err(error) if !error.happened() => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

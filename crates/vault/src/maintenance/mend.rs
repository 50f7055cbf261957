//! Mending: runs of the index that are lost or damaged are made again from the segments and packs.
//!
//! Each part of the index stands for itself: the settled run, the young runs, and those of the open cycle. A part of which
//! a run is wrong is made anew as one run, from [`Derived`], and takes the place of all runs of the part. Settled points
//! are thinned again, by what is retained now, and proven anew; `verify` then proves what they show.
//!
//! Nothing is given up for that: as long as the new run is not durable and named in the journal, the old ones count.
//! So a mending that fails, is stopped or is cut off by a crash changes nothing, and can be repeated. Where
//! a segment or pack is damaged as well, it fails, and says which.

use std::{collections::BTreeSet, io, sync::PoisonError};

use farshore_blocks::{ByteCount, ChainId, Sequence};

use super::{
    Ended, Halt, MaintenanceError, Pace, Pass,
    boundary::first_behind,
    merge::{MergedRun, settled_runs},
    proofs::Prover,
    showing::Showing,
    table::SettledTable,
    usage::LiveFrames,
};
use crate::{
    damage::FileError,
    derived::{Derived, Files, Part, Untold, is_told},
    edit::IndexChange,
    reader::leased,
    state::ChainState,
    tree::RunSummary,
    vault::Vault,
};

/// What a mending of a chain's index did.
#[derive(Debug)]
pub struct Mended {
    /// The runs that were lost or damaged.
    pub faults: Vec<FileError>,
    /// How many runs were made in place of these.
    pub runs_made: usize,
    /// What was written.
    pub index_bytes: ByteCount,
    /// Whether there is more to do.
    pub ended: Ended,
}

/// Why a part was not made.
enum Unmade {
    Halted(Halt),
    Untold(Untold),
}

impl Vault {
    /// Reads the whole index of a chain, and makes again what of it is lost or damaged. The chain can be written and
    /// read meanwhile.
    ///
    /// # Errors
    /// When there is no such chain, the file system fails, or what the index would be made from is damaged or was left by
    /// an earlier build. Nothing is lost then.
    pub fn mend_index(&self, chain: ChainId, pace: &mut dyn Pace) -> Result<Mended, MaintenanceError> {
        let handle = self.chain_handle(chain)?;
        let mut outdated = handle.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pass = Pass::new(&handle, pace, &mut outdated);
        pass.mend()
    }
}

impl Pass<'_> {
    /// Makes every part anew of which a run cannot be read.
    pub(super) fn mend(&mut self) -> Result<Mended, MaintenanceError> {
        let mut mended = Mended {
            faults: Vec::new(),
            runs_made: 0,
            index_bytes: ByteCount(0),
            ended: Ended::Done,
        };
        let before = self.done.index_bytes;
        let state = self.chain.state();
        for (part, runs) in parts(&state) {
            let mut faults = self.faults(part, &runs);
            let Some(fault) = faults.pop() else { continue };
            match self.make(&state, part, &runs) {
                Ok(made) => {
                    tracing::warn!(chain = %self.chain.identity.chain, error = %fault, "a part of the index was made again");
                    mended.runs_made = mended.runs_made.saturating_add(made);
                    mended.faults.push(fault);
                    mended.faults.append(&mut faults);
                }
                Err(Unmade::Halted(Halt::Stopped)) => {
                    mended.ended = Ended::Stopped;
                    break;
                }
                Err(Unmade::Halted(Halt::Failed(error))) => {
                    return Err(error.into());
                }
                Err(Unmade::Untold(source)) => return Err(MaintenanceError::Untold { fault, source }),
            }
        }
        let written = self.done.index_bytes.0.saturating_sub(before.0);
        mended.index_bytes = ByteCount(written);
        Ok(mended)
    }

    /// What is wrong with these runs, the last first.
    fn faults(&mut self, part: Part, runs: &[RunSummary]) -> Vec<FileError> {
        let mut faults = Vec::new();
        for summary in runs.iter().rev() {
            let checked = self.open_runs(std::slice::from_ref(summary)).and_then(|opened| {
                opened.iter().try_for_each(|run| {
                    run.check()?;
                    match part {
                        Part::Settled => SettledTable::of(run, &self.chain.layout).map(drop),
                        Part::Young { .. } | Part::Open => Ok(()),
                    }
                })
            });
            faults.extend(checked.err());
        }
        faults
    }

    /// Makes one run of a part, in place of these; gives how many it made: none if these count no longer.
    fn make(&mut self, state: &ChainState, part: Part, old: &[RunSummary]) -> Result<usize, Unmade> {
        is_told(state).map_err(Unmade::Untold)?;
        let (run, attachment) = match part {
            Part::Settled => {
                let retained = self.still_retained(state);
                let through = first_behind(self.chain, state, state.settled_through).map_err(Halt::from)?;
                let filled = self.made(|pass, run| pass.derive_settled(state, &retained, run));
                let (run, (frames, prover)) = filled?;
                let table = SettledTable {
                    through,
                    usage: frames.by_segment,
                    proofs: prover.proofs(),
                };
                (run, table.encode())
            }
            Part::Young { .. } | Part::Open => {
                let (run, ()) = self.made(|pass, run| pass.derive(state, part, run))?;
                (run, Vec::new())
            }
        };
        let path = self.chain.layout.run(run.number());
        let summary = run.finish(self, &attachment)?;
        // The runs of a cycle go when its writer gives it up: not between this look and the commit.
        let chain = self.chain;
        let _alone = chain.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        if !names_all(&self.chain.state(), old) {
            self.give_up(&path);
            return Ok(0);
        }
        let added = vec![summary];
        self.replace_runs(
            old,
            IndexChange {
                added,
                ..IndexChange::default()
            },
        )?;
        Ok(1)
    }

    /// What a settled index has to show now, oldest first.
    fn still_retained(&self, state: &ChainState) -> Vec<Sequence> {
        let last = state.settled_through;
        let read = leased(&self.chain.layout);
        let points = state.points().map(|point| point.sequence);
        let all: BTreeSet<_> = points
            .chain(read)
            .filter(|sequence| Sequence(0) < *sequence && *sequence < last)
            .collect();
        all.into_iter().chain([last]).collect()
    }

    fn derived<'state>(&self, state: &'state ChainState, part: Part) -> Derived<'state>
    where
        Self: 'state,
    {
        let files = Files {
            layout: &self.chain.layout,
            identity: self.chain.identity,
            state,
        };
        Derived::new(files, part, self.chain.flush_limits.window_entries)
    }

    fn derive(&mut self, state: &ChainState, part: Part, into: &mut MergedRun) -> Result<(), Halt> {
        for chunk in self.derived(state, part) {
            let chunk = chunk?;
            for entry in &chunk {
                into.push(entry)?;
            }
            self.spend_on_entries(chunk.len())?;
        }
        Ok(())
    }

    fn derive_settled(
        &mut self,
        state: &ChainState,
        retained: &[Sequence],
        into: &mut MergedRun,
    ) -> Result<(LiveFrames, Prover), Halt> {
        let mut frames = LiveFrames::default();
        let mut prover = Prover::new(retained.iter().copied());
        let mut showing = Showing::at(state, retained);
        for chunk in self.derived(state, Part::Settled) {
            let chunk = chunk?;
            let kept = showing.thin(&chunk);
            for entry in &kept {
                into.push(entry)?;
                prover.see(entry);
            }
            frames.see_chunk(&kept, |entry| prover.see_frame(entry));
            self.spend_on_entries(chunk.len())?;
        }
        Ok((frames, prover))
    }
}

/// Whether these runs are still those that count.
fn names_all(state: &ChainState, runs: &[RunSummary]) -> bool {
    let is_named = |run: &RunSummary| state.runs.iter().any(|named| named.number == run.number);
    runs.iter().all(is_named)
}

/// The parts of a chain's index that have runs, each with these.
fn parts(state: &ChainState) -> Vec<(Part, Vec<RunSummary>)> {
    let settled = settled_runs(state);
    let newest = state.newest_sequence();
    let of_sealed = |run: &RunSummary| run.first_sequence <= newest;
    let (first, later) = state.runs.split_at(settled.min(state.runs.len()));
    let sealed = later.iter().take_while(|run| of_sealed(run)).count();
    let (young, open) = later.split_at(sealed);
    let before = state.indexed_through;
    [
        (Part::Settled, first),
        (Part::Young { before }, young),
        (Part::Open, open),
    ]
    .into_iter()
    .filter(|(_, runs)| !runs.is_empty())
    .map(|(part, runs)| (part, runs.to_vec()))
    .collect()
}

/// Whether an error is of a run that is lost or damaged, as distinct from a file system that does not answer.
pub(super) fn is_mendable(error: &FileError) -> bool {
    let (path, is_lost) = match error {
        FileError::Damaged(damaged) => (&damaged.path, true),
        FileError::Storage(failed) => (&failed.path, failed.source.kind() == io::ErrorKind::NotFound),
    };
    is_lost && crate::layout::run_number(path).is_some()
}

impl From<Halt> for Unmade {
    fn from(halt: Halt) -> Self {
        Self::Halted(halt)
    }
}

impl From<crate::storage::StorageError> for Unmade {
    fn from(error: crate::storage::StorageError) -> Self {
        Self::Halted(error.into())
    }
}

//! Settling: merging all runs up to a sealed point, and leaving out what no retained point shows.
//!
//! What is kept is what shows at a retained point, at a point that somebody still reads, or at the newest settled
//! point, on which later ones build; of a volume, what shows at those of them that have it. Settling is due when there is enough to gain, as the files themselves say:
//!
//! - more than 15 % of the chain's bytes were ingested since it was last settled, or
//! - points were dropped since that had brought more than 5 % of them.
//!
//! So a settled index is written again at most about once for every 5 % of the chain that came or went.

use std::collections::BTreeSet;

use farshore_blocks::{ByteCount, Sequence};

use super::{
    Halt, Pass,
    boundary::{self, Boundary, bytes_between, length_of},
    merge::{MergedRun, settled_runs},
    proofs::Prover,
    showing::Showing,
    table::SettledTable,
    usage::LiveFrames,
};
use crate::{
    edit::IndexChange,
    format::SegmentName,
    reader::leased,
    state::ChainState,
    storage::StorageError,
    tree::RunSummary,
    versions::{Chunks, Layer, Merge},
    writer::flush_sealed,
};

/// Of the chain's bytes, how much may be ingested before it is settled again.
pub(super) const INGESTED_PERCENT: u64 = 15;
/// Of the chain's bytes, how much may be dropped before it is settled again.
pub(super) const DROPPED_PERCENT: u64 = 5;

/// A chain at one moment, and what of it has to be kept.
struct Settling {
    state: ChainState,
    before: SettledTable,
    boundary: Boundary,
    /// Points that are dropped and still being read.
    read: BTreeSet<Sequence>,
}

impl Pass<'_> {
    /// Settles the chain if that is due.
    pub(super) fn settle_if_due(&mut self) -> Result<(), Halt> {
        // A point that was dropped and that readers can still open would be lost to them.
        self.chain.committer.confirm()?;
        let mut settling = self.settling()?;
        if settling.is_held_up(self)? {
            flush_sealed(self.chain)?;
            settling = self.settling()?;
        }
        let boundary = settling.boundary;
        let runs = settling.runs();
        if runs.is_empty() || !settling.is_whole(&runs) || !settling.is_due(self)? {
            return Ok(());
        }
        let retained = settling.retained();
        let (run, (frames, prover)) =
            self.made(|pass, run| pass.settle(&runs, (&settling.state, &retained), run))?;
        let table = SettledTable {
            through: boundary.through,
            usage: frames.by_segment,
            proofs: prover.proofs(),
        };
        let summary = run.finish(self, &table.encode())?;
        let change = IndexChange {
            added: vec![summary],
            settled_through: Some(boundary.sequence),
            ..IndexChange::default()
        };
        self.replace_runs(&runs, change)?;
        self.done.settled_through = Some(boundary.sequence);
        Ok(())
    }

    fn settling(&self) -> Result<Settling, Halt> {
        // In this order: who opened a point before it was dropped from this state has a lease by now.
        let state = self.chain.state();
        let read = leased(&self.chain.layout);
        let boundary = boundary::find(self.chain, &state)?;
        let before = self.settled_table(&state)?;
        Ok(Settling {
            state,
            before,
            boundary,
            read,
        })
    }

    /// What the chain's settled run says; of a chain that was never settled, nothing.
    pub(super) fn settled_table(&self, state: &ChainState) -> Result<SettledTable, Halt> {
        let settled = state.runs.get(..settled_runs(state)).unwrap_or_default();
        match self.open_runs(settled)?.first() {
            Some(run) => Ok(SettledTable::of(run, &self.chain.layout)?),
            None => Ok(SettledTable::default()),
        }
    }

    fn settle(
        &mut self,
        runs: &[RunSummary],
        (state, retained): (&ChainState, &[Sequence]),
        into: &mut MergedRun,
    ) -> Result<(LiveFrames, Prover), Halt> {
        let runs = self.open_runs(runs)?;
        let layers: Vec<_> = runs.iter().map(Layer::Run).collect();
        let mut frames = LiveFrames::default();
        let mut prover = Prover::new(retained.iter().copied());
        let mut showing = Showing::at(state, retained);
        for chunk in Chunks::new(Merge::new(&layers)) {
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

    /// What the chain's segments and packs hold.
    pub(super) fn total_bytes(&self, state: &ChainState) -> Result<u64, StorageError> {
        let segments = state.segments.iter().map(|number| SegmentName::ingested(*number));
        let packs = state.packs.keys().map(|number| SegmentName::packed(*number));
        let mut total: u64 = 0;
        for name in segments.chain(packs) {
            total = total.saturating_add(length_of(self.chain, name)?);
        }
        Ok(total)
    }
}

impl Settling {
    /// The runs that hold nothing behind the boundary, oldest first.
    fn runs(&self) -> Vec<RunSummary> {
        let runs = self.state.runs.iter();
        runs.take_while(|run| run.last_sequence <= self.boundary.sequence)
            .copied()
            .collect()
    }

    /// Whether all entries up to the boundary are in these runs: no later run goes across it.
    fn is_whole(&self, runs: &[RunSummary]) -> bool {
        let mut others = self.state.runs.iter().skip(runs.len());
        others.all(|run| run.first_sequence > self.boundary.sequence)
    }

    fn is_retained(&self, sequence: Sequence, boundary: Boundary) -> bool {
        self.state.point(sequence).is_some() || self.read.contains(&sequence) || sequence == boundary.sequence
    }

    /// What the new index has to show, oldest first.
    fn retained(&self) -> Vec<Sequence> {
        let last = self.boundary.sequence;
        let points = self.state.points().map(|point| point.sequence);
        let read = self.read.iter().copied();
        let all: BTreeSet<_> = points.chain(read).filter(|sequence| *sequence < last).collect();
        all.into_iter().chain([last]).collect()
    }

    fn is_due(&self, pass: &Pass<'_>) -> Result<bool, StorageError> {
        self.is_due_at(self.boundary, pass)
    }

    /// Whether the chain is to be settled further than what was flushed allows. The space of one that is written slowly,
    /// or no more, would otherwise wait until enough has gathered.
    fn is_held_up(&self, pass: &Pass<'_>) -> Result<bool, StorageError> {
        let newest = Boundary {
            sequence: self.state.newest_sequence(),
            through: self.state.tail,
        };
        Ok(self.boundary.sequence < newest.sequence && self.is_due_at(newest, pass)?)
    }

    fn is_due_at(&self, boundary: Boundary, pass: &Pass<'_>) -> Result<bool, StorageError> {
        let total = pass.total_bytes(&self.state)?;
        let span = (self.before.through, boundary.through);
        let ingested = bytes_between(pass.chain, &self.state, span)?.0;
        let dropped = self
            .settled_and_dropped(boundary)
            .0
            .saturating_add(ingested.saturating_sub(self.young_bytes(boundary).0));
        let exceeds = |bytes: u64, percent: u64| bytes.saturating_mul(100) > total.saturating_mul(percent);
        Ok(exceeds(ingested, INGESTED_PERCENT) || exceeds(dropped, DROPPED_PERCENT))
    }

    /// What points had brought that are in the settled index and were dropped since.
    fn settled_and_dropped(&self, boundary: Boundary) -> ByteCount {
        let dropped = self
            .before
            .proofs
            .iter()
            .filter(|proof| !self.is_retained(proof.sequence, boundary));
        ByteCount(dropped.fold(0, |sum, proof| sum.saturating_add(proof.stored_bytes.0)))
    }

    /// What retained points brought that would be settled now.
    fn young_bytes(&self, boundary: Boundary) -> ByteCount {
        let (from, to) = (self.state.settled_through, boundary.sequence);
        let young = self
            .state
            .points()
            .filter(|point| point.sequence > from && point.sequence <= to);
        ByteCount(young.fold(0, |sum, point| sum.saturating_add(point.stored_bytes.0)))
    }
}

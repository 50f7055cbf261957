//! The proof of settled points: the index gives what it gave when older points were dropped.

use farshore_blocks::Sequence;

use super::{ChainProof, Problem, ProblemKind};
use crate::{
    damage::FileError,
    entry::Entry,
    format::FormatError,
    maintenance::{Prover, SettledTable},
    tree::Run,
};

/// The proofs of settled points, being computed again.
pub(super) struct SettledProof {
    table: SettledTable,
    prover: Prover,
}

impl SettledProof {
    pub(super) fn see(&mut self, entry: &Entry) {
        self.prover.see(entry);
    }
}

impl ChainProof<'_> {
    /// What was proven when the chain was last settled; none if it never was, or cannot be read.
    pub(super) fn settled_proof(&mut self, runs: &[Run]) -> Option<SettledProof> {
        let settled = self.state.settled_through;
        let number = self.state.runs.first().filter(|_| settled > Sequence(0))?.number;
        // One that could not be opened was told of.
        let run = runs.iter().find(|run| run.summary().number == number)?;
        match SettledTable::of(run, &self.layout) {
            Ok(table) => {
                self.prove_all_are_there(&table, run);
                let prover = Prover::new(table.proofs.iter().map(|proof| proof.sequence));
                Some(SettledProof { table, prover })
            }
            Err(error) => {
                self.found(Problem::from(error).of(settled));
                None
            }
        }
    }

    /// Every settled point that is retained has a proof.
    fn prove_all_are_there(&mut self, table: &SettledTable, run: &Run) {
        let settled = self.state.settled_through;
        let is_proven = |point: &Sequence| table.proofs.iter().any(|proof| proof.sequence == *point);
        let points = self.state.points().map(|point| point.sequence);
        let missing: Vec<_> = points
            .filter(|point| *point <= settled && !is_proven(point))
            .collect();
        for point in missing {
            let summary = run.summary();
            let path = self.layout.run(summary.number);
            let error = FormatError::Bounds { field: "proofs" };
            let error = FileError::damaged(&path, summary.attachment.position, error);
            self.found(Problem::from(error).of(point));
        }
    }

    /// Compares what the whole index gave with what was proven.
    pub(super) fn prove_settled(&mut self, settled: &SettledProof) {
        for (actual, proven) in settled.prover.proofs().iter().zip(&settled.table.proofs) {
            if actual.shown != proven.shown {
                let kind = ProblemKind::Settled {
                    actual: Box::new(actual.shown),
                    proven: Box::new(proven.shown),
                };
                let point = self.first_shown(proven.sequence);
                self.found(Problem::somewhere(kind).of(point));
            }
        }
    }
}

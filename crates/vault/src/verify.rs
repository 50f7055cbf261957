//! Proving every chain from disk alone.
//!
//! Two walks cover everything. The first goes through the segments: what a point's frames give, in the order in
//! which they were shipped, must be what was proven when the point was sealed. Of points whose older neighbours
//! were dropped and thinned, the frames are no longer all there: there the index must give what was proven when it
//! was thinned. The second walk goes through the index: every byte that any point can show is read, and must have
//! the checksum and the fingerprint that the index says. And of points that were not thinned, the index must be what the
//! frames give.

mod compared;
mod points;
mod report;
mod settled;
mod shown;

use std::path::Path;

use farshore_blocks::{ByteCount, ChainId, Sequence};

pub use report::{ChainReport, DamagedRecord, Problem, ProblemKind, Report, VerifyProgress};

use crate::{
    damage::FileError,
    format::Identity,
    layout::ChainLayout,
    reader::{Lease, VaultReader},
    state::ChainState,
    vault::VaultError,
};

/// How many problems of a chain are told.
const MOST_PROBLEMS: usize = 1000;

/// Proves every chain of the vault in `path`, telling `on_progress` of each point before it is proven.
///
/// # Errors
/// When the vault itself cannot be read; what is wrong in a chain is in its report.
pub fn verify(path: &Path, mut on_progress: impl FnMut(VerifyProgress)) -> Result<Report, VaultError> {
    let reader = VaultReader::open(path)?;
    let chains = reader.chains()?.into_iter().map(|(chain, _)| chain);
    let chains = chains.map(|chain| verify_chain(&reader, chain, &mut on_progress));
    let chains = chains.collect::<Result<Vec<_>, _>>()?;
    let damaged_records = damaged_records(&reader);
    Ok(Report {
        damaged_records,
        chains,
    })
}

fn verify_chain(
    reader: &VaultReader,
    chain: ChainId,
    on_progress: &mut dyn FnMut(VerifyProgress),
) -> Result<ChainReport, VaultError> {
    let layout = reader.layout().chain(chain);
    // Nothing of the chain is removed meanwhile.
    let _lease = Lease::take(&layout, Sequence(0));
    let state = reader.with_chain(chain, ChainState::clone)?;
    let mut proof = ChainProof {
        layout,
        identity: reader.identity(chain),
        report: ChainReport {
            chain,
            vm: state.descriptions.latest().vm.clone(),
            points: 0,
            frames: 0,
            bytes: ByteCount(0),
            problems: Vec::new(),
        },
        state,
        unneeded: Vec::new(),
        on_progress,
    };
    proof.prove_points();
    proof.prove_shown();
    proof.tell_unneeded();
    let mut report = proof.report;
    // What names a place comes before what only follows from it.
    report.problems.sort_by_key(|problem| {
        (
            problem.point == Sequence(0),
            problem.point,
            problem.offset.is_none(),
            problem.volume,
            problem.offset,
        )
    });
    Ok(report)
}

/// The proof of one chain, under way.
struct ChainProof<'vault> {
    layout: ChainLayout,
    identity: Identity,
    state: ChainState,
    report: ChainReport,
    /// What is damaged in groups of which it is not known whether a point needs them.
    unneeded: Vec<FileError>,
    on_progress: &'vault mut dyn FnMut(VerifyProgress),
}

impl ChainProof<'_> {
    fn tell(&mut self, point: Sequence) {
        let at = VerifyProgress {
            chain: self.identity.chain,
            point,
            newest: self.state.newest_sequence(),
            bytes: self.report.bytes,
        };
        (self.on_progress)(at);
    }

    fn found(&mut self, problem: Problem) {
        if self.report.problems.len() < MOST_PROBLEMS {
            self.report.problems.push(problem);
        }
    }

    /// The first retained point that shows what was ingested for `sequence`.
    fn first_shown(&self, sequence: Sequence) -> Sequence {
        let mut points = self.state.points();
        let first = points.find(|point| point.sequence >= sequence);
        first.map_or(sequence, |point| point.sequence)
    }
}

fn damaged_records(reader: &VaultReader) -> Vec<DamagedRecord> {
    let follower = reader.follower();
    let generation = follower.generation();
    let mended = follower.mended().iter();
    mended
        .map(|(copy, position)| DamagedRecord {
            path: reader.layout().journal(generation, *copy),
            position: *position,
        })
        .collect()
}

//! The audit: range after range, for ever, the disks are compared with the replica. It is the only thing that catches what
//! tracking missed.
//!
//! It looks at a capture whose point was just sealed (or that holds no change): at that instant disk and point must be equal,
//! byte for byte. What differs is remembered and sent with the next cycle.

mod place;

use std::time::Duration;

use farshore_blocks::{ByteCount, ChainId, Extent, HASHED_BLOCK, Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{Capture, CapturedVolume, SourceError};
use tokio::time::Instant;

use super::{
    comparison::{Comparison, ComparisonError},
    state::{AuditMismatch, AuditState},
};
use crate::chain_files::ChainFiles;
use place::{Pass, Place};

/// How much is compared at once, at most: the capture is held open meanwhile.
const MOST_AT_ONCE: ByteCount = ByteCount(32 * 1024 * 1024);
/// How often at most: a comparison costs a round trip to the target, and captures cost the guest something.
const PAUSE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// How often a VM that writes nothing is captured only to be audited.
const IDLE_PAUSE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 20 });
/// How many places are remembered to be sent again; whatever more differs is found in the next pass.
const MOST_REPAIRS: usize = 4096;

const BETWEEN_NOTES: Duration = Duration::from_secs(60);

/// Why a range was not compared. The cycle that it came with is none the worse.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error("the disks cannot be compared with the replica")]
    Comparison(#[from] ComparisonError),
    #[error("the disks cannot be read")]
    Source(#[from] SourceError),
}

/// Whether there is anything to compare now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A capture is open anyway.
    WithCycle,
    /// One would have to be made.
    Idle,
}

/// How far it has come, and what it found.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Bytes a second; 0 is never.
    rate: ByteCount,
    place: Place,
    last: Instant,
    /// Where disk and replica differ, in whole blocks.
    repairs: Vec<(VolumeIndex, Extent)>,
    /// How many blocks differed in this pass.
    in_this_pass: u64,
    state: AuditState,
    notes: Option<Notes>,
}

/// Where a restarted process finds how far its predecessor had come.
pub(crate) type AuditFiles = ChainFiles<Place>;

#[derive(Debug)]
struct Notes {
    files: AuditFiles,
    chain: ChainId,
    noted: Instant,
}

impl Audit {
    /// From the beginning, and nothing is noted.
    pub(crate) fn new(rate: ByteCount) -> Self {
        Self {
            rate,
            place: Place::default(),
            last: Instant::now(),
            repairs: Vec::new(),
            in_this_pass: 0,
            state: AuditState::default(),
            notes: None,
        }
    }

    /// Goes on where a predecessor stopped, by what it noted in `files`.
    pub(crate) fn going_on(rate: ByteCount, files: &AuditFiles, chain: ChainId) -> Self {
        let place = files.load_one(chain).unwrap_or_else(|error| {
            tracing::warn!(%chain, error = super::chain(&error), "an audit begins anew");
            None
        });
        Self {
            place: place.unwrap_or_default(),
            notes: Some(Notes {
                files: files.clone(),
                chain,
                noted: Instant::now(),
            }),
            ..Self::new(rate)
        }
    }

    /// What it shows.
    pub(crate) fn state(&self) -> AuditState {
        self.state
    }

    /// Whether something waits to be sent with the next cycle.
    pub(crate) fn has_repairs(&self) -> bool {
        !self.repairs.is_empty()
    }

    /// Whether it is time to compare.
    pub(crate) fn is_due(&self, occasion: Occasion) -> bool {
        let pause = match occasion {
            Occasion::WithCycle => PAUSE,
            Occasion::Idle => IDLE_PAUSE,
        };
        self.budget() >= HASHED_BLOCK && self.last.elapsed() >= pause
    }

    /// How much may be compared now.
    fn budget(&self) -> ByteCount {
        let earned = u128::from(self.rate.0).saturating_mul(self.last.elapsed().as_millis()) / 1000;
        let earned = u64::try_from(earned).unwrap_or(u64::MAX).min(MOST_AT_ONCE.0);
        ByteCount(earned / HASHED_BLOCK.0 * HASHED_BLOCK.0)
    }

    /// What a cycle ships: what `volumes` hold, and what waits to be repaired.
    pub(crate) fn with_repairs(&self, volumes: &[CapturedVolume]) -> Vec<CapturedVolume> {
        place::with_extents(volumes, &self.repairs)
    }

    /// What waited was sent and sealed.
    pub(crate) fn repaired(&mut self) {
        self.repairs.clear();
    }

    /// Compares the next range of `capture` with `point`, which must be equal.
    pub(crate) async fn compare<C: Capture>(
        &mut self,
        capture: &C,
        (point, replica): (Sequence, &mut Comparison),
    ) -> Result<(), AuditError> {
        let budget = self.budget();
        self.last = Instant::now();
        self.state.total = ByteCount(capture.volumes().iter().map(|volume| volume.size.0).sum());
        for (volume, extent) in self.place.next(capture.volumes(), budget) {
            replica.turn_to(point, extent.length().0.div_ceil(HASHED_BLOCK.0));
            for part in extent.pieces(ByteCount(1024 * 1024)) {
                let raw = capture.read(volume, part).await?;
                for (block, _) in replica.differing(volume, part, &raw).await? {
                    self.differs(volume, block, point);
                }
            }
            let pass = self.place.pass(capture.volumes(), volume, extent);
            self.state.compared = self.place.compared(capture.volumes());
            if pass == Pass::Ended {
                self.state.passes = self.state.passes.saturating_add(1);
                self.state.last_pass_at = Some(WallTime::now());
                self.state.suspect = self.in_this_pass > 0;
                self.in_this_pass = 0;
            }
        }
        self.note();
        Ok(())
    }

    /// Now and then. What was not noted is compared again.
    fn note(&mut self) {
        let place = self.place;
        // A successor must find again what was not sent again yet.
        let sent = self.repairs.is_empty();
        let due = |notes: &&mut Notes| sent && notes.noted.elapsed() >= BETWEEN_NOTES;
        if let Some(notes) = self.notes.as_mut().filter(due) {
            notes.noted = Instant::now();
            if let Err(error) = notes.files.keep(notes.chain, &place) {
                let error = super::chain(&error);
                tracing::warn!(chain = %notes.chain, error, "how far an audit has come is not noted");
            }
        }
    }

    fn differs(&mut self, volume: VolumeIndex, block: Extent, point: Sequence) {
        self.state.mismatches = self.state.mismatches.saturating_add(1);
        self.state.suspect = true;
        self.in_this_pass = self.in_this_pass.saturating_add(1);
        self.state.last_mismatch = Some(AuditMismatch {
            volume,
            block,
            point,
            at: WallTime::now(),
        });
        tracing::error!(%volume, %block, %point, "disk and replica differ; the next cycle sends it again");
        if self.repairs.len() < MOST_REPAIRS {
            self.repairs.push((volume, block));
        }
    }
}

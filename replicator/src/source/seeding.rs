//! A first scan with a seed: an older copy at the target, of which only those blocks travel that differ. What it has of a block the
//! target takes from there, by the digest that it is told instead of the bytes.
//!
//! A seed is only a saving. One that cannot be told from, or that changes all the time, is given up, and the scan goes on with the
//! bytes themselves.

use std::collections::BTreeMap;

use bytes::Bytes;
use farshore_blocks::{ByteCount, Encoding, Extent, Frame, HASHED_BLOCK, VolumeIndex};
use farshore_provider::Capture;
use farshore_transfer::Change;
use futures_util::StreamExt;

use super::{
    comparison::{Comparison, ComparisonError},
    delivery::{DeliveryError, chain},
    link::Welcomed,
    packing::{self, Packers},
    reach::Reach,
    reading,
    tuning::Tuning,
    worklist::{Batch, Piece},
};
use crate::assignment::Assignment;

/// How often a seed may turn out to have changed since it was compared: whoever writes to it all the time costs more than it saves.
const MOST_CHANGES: u32 = 8;

/// The seeds of one chain, as a scan uses them.
pub(crate) struct Seed {
    comparison: Comparison,
    /// How much the target has of which volume.
    sizes: BTreeMap<VolumeIndex, ByteCount>,
    changes: u32,
}

/// What became of the pieces of a batch.
#[derive(Default)]
struct Found {
    /// Travels.
    differing: Vec<packing::Piece>,
    /// The seed has it.
    seeded: Vec<Frame>,
}

impl Seed {
    /// What the target named in its welcome; none if it named nothing or has a point.
    pub(crate) fn named_by(
        welcome: &Welcomed,
        assignment: &Assignment,
        reach: &Reach,
    ) -> Result<Option<Self>, ComparisonError> {
        if welcome.seeds.is_empty() || welcome.newest.is_some() {
            return Ok(None);
        }
        Ok(Some(Self {
            comparison: Comparison::with_seed(assignment, reach)?,
            sizes: welcome.seeds.iter().copied().collect(),
            changes: 0,
        }))
    }

    /// It turned out to have changed since it was compared: what was heard of it may be old.
    pub(crate) fn has_changed(&mut self, vm: &str) {
        self.changes = self.changes.saturating_add(1);
        self.comparison.ask_anew();
        if self.changes >= MOST_CHANGES && !self.sizes.is_empty() {
            tracing::warn!(vm, "the seed at the target changes all the time, and is given up");
            self.sizes.clear();
        }
    }

    /// Reads a batch of whole blocks: those that the seed has are seeded.
    pub(crate) async fn read<C: Capture>(
        &mut self,
        vm: &str,
        (capture, batch): (&C, &Batch),
        (packers, tuning): (&Packers, &Tuning),
    ) -> Result<Vec<Change>, DeliveryError> {
        let mut pieces = Box::pin(reading::pieces(capture, batch));
        let mut found = Found::default();
        while let Some(read) = pieces.next().await {
            let (piece, raw) = read?;
            match raw {
                Some(raw) => self.compare(vm, (piece, raw), &mut found).await?,
                None => found.differing.push((piece.volume, piece.extent, None)),
            }
        }
        let sent = packers.pack(found.differing, tuning).await?;
        let seeded = found.seeded.into_iter().map(Change::Seeded);
        Ok(sent.into_iter().map(Change::Sent).chain(seeded).collect())
    }

    async fn compare(
        &mut self,
        vm: &str,
        (piece, raw): (Piece, Bytes),
        found: &mut Found,
    ) -> Result<(), DeliveryError> {
        let Some(differing) = self.differing(vm, (piece, &raw)).await? else {
            found.differing.push((piece.volume, piece.extent, Some(raw)));
            return Ok(());
        };
        let mut frames = Vec::new();
        packing::cut((piece.volume, piece.extent), &raw, &mut frames)?;
        for frame in frames {
            // Zeroes travel as cheaply as a digest does.
            if frame.encoding() == Encoding::Zero {
                found.differing.push((piece.volume, frame.extent(), None));
            } else if differing.contains(&frame.extent()) {
                found
                    .differing
                    .push((piece.volume, frame.extent(), Some(frame.payload().clone())));
            } else {
                found.seeded.push(frame);
            }
        }
        Ok(())
    }

    /// Which blocks of the piece the seed does not have; `None`: it has none of them.
    async fn differing(
        &mut self,
        vm: &str,
        (piece, raw): (Piece, &Bytes),
    ) -> Result<Option<Vec<Extent>>, DeliveryError> {
        let size = self.sizes.get(&piece.volume).map_or(0, |size| size.0);
        // The last block may be shorter, and then the seed has it only if it has all of it.
        let (mut asked, mut differing) = (piece.extent, Vec::new());
        if asked.end().0 > size {
            let blocks = size.saturating_sub(asked.start().0) / HASHED_BLOCK.0;
            let held = ByteCount(blocks.saturating_mul(HASHED_BLOCK.0));
            let Some(beginning) = Extent::new(asked.start(), held) else {
                return Ok(None);
            };
            differing.extend(
                asked
                    .pieces(HASHED_BLOCK)
                    .filter(|block| block.end() > beginning.end()),
            );
            asked = beginning;
        }
        let length = usize::try_from(asked.length().0).unwrap_or(usize::MAX);
        let told = self
            .comparison
            .differing(piece.volume, asked, &raw.slice(..length.min(raw.len())))
            .await;
        match told {
            Ok(told) => {
                differing.extend(told.into_iter().map(|(extent, _)| extent));
                Ok(Some(differing))
            }
            // A target that is away is one for whatever travels.
            Err(error) if error.is_passing() => Err(error.into()),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    vm,
                    error,
                    "the target does not tell what its seed has, and it is given up"
                );
                self.sizes.clear();
                Ok(None)
            }
        }
    }
}

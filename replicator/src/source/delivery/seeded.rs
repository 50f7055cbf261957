//! A cycle whose target has a seed: what of it is taken from there, and what becomes of that where the seed is not what it was.

use std::time::Duration;

use farshore_blocks::ByteCount;
use farshore_proto::v1;
use farshore_provider::Capture;
use tokio::time::{Instant, timeout};

use super::{Delivery, DeliveryError};
use crate::source::{link::LinkError, seeding::Seed, worklist::Worklist};

/// How long a stream that takes nothing more may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Delivery<'_> {
    /// What the target has of the disks already, if it named anything.
    pub(crate) fn seed(&self) -> Result<Option<Seed>, DeliveryError> {
        Ok(Seed::named_by(
            &self.lane.link.welcome,
            &self.lane.assignment,
            &self.lane.reach,
        )?)
    }

    /// As [`Delivery::ship`], but of what `seed` has only digests travel.
    pub(crate) async fn ship_seeded<C: Capture>(
        &mut self,
        (capture, seed): (&C, &mut Seed),
        work: &mut Worklist,
        mut progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        let vm = self.lane.assignment.machine.vm.clone();
        let (packers, tuning) = (self.lane.packers.clone(), self.lane.tuning.clone());
        let stop = self.lane.stop.clone();
        let mut refusals = self.seed_refusals;
        while let Some(batch) = work.next_batch() {
            let began = Instant::now();
            let read = stop.run_until_cancelled(seed.read(&vm, (capture, &batch), (&packers, &tuning)));
            let changes = read.await.ok_or(DeliveryError::Stopped)??;
            let waited = began.elapsed();
            self.reading += waited;
            let done = batch.data();
            let pushed = stop.run_until_cancelled(self.push((changes, batch.watermarks), waited));
            pushed.await.ok_or(DeliveryError::Stopped)??;
            if self.seed_refusals != refusals {
                refusals = self.seed_refusals;
                seed.has_changed(&vm);
            }
            progress(done);
        }
        let drained = stop.run_until_cancelled(self.drain());
        drained.await.ok_or(DeliveryError::Stopped)?
    }

    /// Why the stream broke, as far as the target said it. If it found its seed to be other than it was, what it did not get of
    /// that travels when the stream is mended.
    pub(super) async fn take_reason(&mut self, error: LinkError) -> LinkError {
        let error = if matches!(error, LinkError::Ended) {
            self.last_words().await.unwrap_or(error)
        } else {
            error
        };
        if let LinkError::Refused {
            reason: v1::RefusalReason::SeedDiffers,
            ..
        } = error
        {
            self.seed_refusals = self.seed_refusals.saturating_add(1);
            for frame in self.outbound.send_what_was_seeded() {
                let vm = &self.lane.assignment.machine.vm;
                self.lane.metrics.shipped(vm, &frame.into());
            }
        }
        error
    }

    /// What the target said before its stream ended, if that was a refusal.
    async fn last_words(&mut self) -> Option<LinkError> {
        let refusal = async {
            loop {
                match self.lane.link.last_word().await {
                    // Acknowledgements before it are heard again when the stream is mended.
                    Ok(_) => {}
                    Err(error @ LinkError::Refused { .. }) => return Some(error),
                    Err(_) => return None,
                }
            }
        };
        timeout(LAST_WORDS, refusal).await.ok().flatten()
    }
}

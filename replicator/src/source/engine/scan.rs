//! A scan of whole disks: live, in rounds while much is left, then what is left at one instant, sealed as the first point or,
//! after tracking was lost, as one more.

use farshore_blocks::{ByteCount, Sequence};
use farshore_proto::v1;
use farshore_provider::{Capture, CaptureKind, Source};
use farshore_transfer::{PointHead, Watermark};
use tokio::time::Instant;

use super::{Engine, SessionError};
use crate::source::{
    comparison::{Comparison, Proof},
    delivery::{Delivery, Lane},
    link::OpenCycle,
    state::{CycleTimes, SourcePhase},
    worklist::{Purpose, Worklist},
};

/// When a live round leaves less than this behind, the next cycle can take the rest at one instant. The disks of tests
/// are small.
const LITTLE_LEFT: ByteCount = ByteCount(if cfg!(test) { 256 * 1024 } else { 8 * 1024 * 1024 });
/// A guest that writes faster than the link carries never gets little left: then the instant must take it all.
const MOST_ROUNDS: u32 = 6;

impl<S: Source> Engine<S> {
    /// A whole-disk scan: live, then rounds while much is left, then the rest at one instant, sealed.
    pub(super) async fn scan(
        &mut self,
        lane: &mut Lane,
        open: Option<&OpenCycle>,
    ) -> Result<(), SessionError> {
        let base = lane.link.welcome.newest;
        let next = base.map_or(Sequence(0), |point| point.sequence).next();
        let (phase, kind) = match base {
            None => (SourcePhase::InitialSync, v1::CycleKind::Base),
            Some(_) => (SourcePhase::Resynchronizing, v1::CycleKind::Resync),
        };
        self.show(|state| state.phase = phase);
        let mut delivery = match open {
            Some(open) => Delivery::resume(lane, open).await?,
            None => Delivery::begin(lane, kind, base, &[]).await?,
        };
        let starts = open.map(|open| open.watermarks.clone()).unwrap_or_default();
        let scanned = self.scan_live(&mut delivery, base, &starts).await;
        self.scan_acknowledged = Some(delivery.held_by_target());
        scanned?;
        self.show(|state| {
            state.phase = if base.is_none() {
                SourcePhase::AwaitingPoint
            } else {
                phase
            }
        });
        let kind = if self.audit.has_repairs() {
            CaptureKind::WholeInstant
        } else {
            CaptureKind::Instant
        };
        let capture = self.source.begin(kind, next).await?;
        let mut times = CycleTimes::default();
        let delivered = self.deliver_instant(&mut delivery, &capture, &mut times).await;
        drop(delivery);
        self.settle(capture, delivered).await
    }

    /// Ships the live disks, as far as they differ from `base`, then in rounds what got dirty meanwhile, until little is left.
    async fn scan_live(
        &mut self,
        delivery: &mut Delivery<'_>,
        base: Option<PointHead>,
        starts: &[Watermark],
    ) -> Result<(), SessionError> {
        let next = base.map_or(Sequence(0), |point| point.sequence).next();
        let seed = delivery.seed()?;
        let purpose = match (base, &seed) {
            (None, None) => Purpose::BaseScan,
            (None, Some(_)) => Purpose::SeedScan,
            (Some(_), _) => Purpose::ResyncScan,
        };
        let capture = self.source.begin(CaptureKind::Scan, next).await?;
        if let Err(error) = delivery.tell_volumes(capture.volumes()).await {
            self.finish(capture, &Err::<(), _>(&error)).await?;
            return Err(error.into());
        }
        let total = Worklist::new(purpose, capture.volumes(), &[]).data_left();
        let mut work = Worklist::new(purpose, capture.volumes(), starts);
        let already = ByteCount(total.0.saturating_sub(work.data_left().0));
        self.show(|state| {
            state.sync_total = total;
            state.sync_done = already;
        });
        let progress = self.progress(Instant::now(), already);
        let shipped = match (base, seed) {
            (None, None) => delivery.ship(&capture, &mut work, progress).await,
            (None, Some(mut seed)) => {
                Box::pin(delivery.ship_seeded((&capture, &mut seed), &mut work, progress)).await
            }
            (Some(base), _) => {
                match Comparison::with((&self.assignment, &self.reach), base.sequence, Proof::Noted) {
                    Ok(base) => {
                        let mut base = base.of_volumes(delivery.chain_volumes().sealed_places());
                        delivery
                            .ship_differing((&capture, &mut base), &mut work, progress)
                            .await
                    }
                    Err(error) => Err(error.into()),
                }
            }
        };
        self.finish(capture, &shipped).await?;
        shipped?;
        for _ in 0..MOST_ROUNDS {
            if self.source.backlog().await? <= LITTLE_LEFT {
                break;
            }
            self.round(delivery, next).await?;
        }
        Ok(())
    }

    async fn round(&mut self, delivery: &mut Delivery<'_>, next: Sequence) -> Result<(), SessionError> {
        let capture = self.source.begin(CaptureKind::Round, next).await?;
        let mut work = Worklist::new(Purpose::Changes, capture.volumes(), &[]);
        let shipped = match delivery.tell_volumes(capture.volumes()).await {
            Ok(()) => delivery.ship(&capture, &mut work, |_| {}).await,
            Err(error) => Err(error),
        };
        self.finish(capture, &shipped).await?;
        Ok(shipped?)
    }

    pub(super) fn progress(
        &self,
        began: Instant,
        already: ByteCount,
    ) -> impl FnMut(ByteCount) + Send + use<S> {
        let state = self.state.clone();
        let mut done = 0u64;
        move |bytes| {
            done = done.saturating_add(bytes.0);
            let seconds = began.elapsed().as_secs_f64().max(0.001);
            state.send_modify(|state| {
                state.sync_done = ByteCount(already.0.saturating_add(done));
                state.sync_bytes_per_second = bytes_as_f64(done) / seconds;
            });
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people: 53 bits are enough")]
fn bytes_as_f64(bytes: u64) -> f64 {
    bytes as f64
}

//! Disks that join a VM which has points already: their first sync is a scan of them alone, towards the next point.
//!
//! That point is the first that holds them, whole; it takes along what changed of the others. Until it is sealed there is
//! no other. If the cycle is lost on the way, the scan begins anew: nothing of it is in any point.

use farshore_blocks::ByteCount;
use farshore_proto::v1;
use farshore_provider::{Capture, CaptureKind, Source};
use tokio::time::Instant;

use super::{Engine, SessionError};
use crate::source::{
    delivery::{Delivery, Lane},
    state::CycleTimes,
    worklist::{Purpose, Worklist},
};

impl<S: Source> Engine<S> {
    /// Takes in the disks that no point has, if there are any.
    pub(super) async fn join(&mut self, lane: &mut Lane) -> Result<(), SessionError> {
        let joining = lane.volumes.joining();
        if joining.is_empty() {
            return Ok(());
        }
        let told = format!("first sync of disk {}", joining.join(", "));
        tracing::info!(vm = self.vm(), told, "disks join");
        self.show(|state| state.detail = told);
        let (began, base) = (Instant::now(), lane.link.welcome.newest);
        let next = self.newest().next();
        let mut delivery = Delivery::begin(lane, v1::CycleKind::Delta, base, &[]).await?;
        self.scan_joining(&mut delivery).await?;
        let capture = self.source.begin(CaptureKind::Instant, next).await?;
        let mut times = CycleTimes {
            begin: began.elapsed(),
            ..CycleTimes::default()
        };
        let delivered = self.deliver_instant(&mut delivery, &capture, &mut times).await;
        drop(delivery);
        self.settle(capture, delivered).await
    }

    /// Ships them as they are while they are written to; what changes meanwhile is left to the instant.
    async fn scan_joining(&mut self, delivery: &mut Delivery<'_>) -> Result<(), SessionError> {
        let next = self.newest().next();
        let capture = self.source.begin(CaptureKind::Scan, next).await?;
        if !capture.knows_changes() {
            // What was told apart by tracking elsewhere is found by comparing here, in the instant.
            return self.finish(capture, &Err::<(), ()>(())).await;
        }
        let mut work = Worklist::new(Purpose::BaseScan, capture.volumes(), &[]);
        let total = work.data_left();
        self.show(|state| {
            state.sync_total = total;
            state.sync_done = ByteCount(0);
        });
        let progress = self.progress(Instant::now(), ByteCount(0));
        let shipped = match delivery.tell_volumes(capture.volumes()).await {
            Ok(()) => delivery.ship(&capture, &mut work, progress).await,
            Err(error) => Err(error),
        };
        self.finish(capture, &shipped).await?;
        Ok(shipped?)
    }
}

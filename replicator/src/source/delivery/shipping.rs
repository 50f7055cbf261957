//! What a capture holds, on its way: sent within the window and the limits, counted, and acknowledged.

use std::time::Duration;

use farshore_blocks::ByteCount;
use farshore_proto::v1::{self, target_message};
use farshore_provider::Capture;
use farshore_transfer::{Change, Message, Watermark};
use futures_util::FutureExt;
use tokio::{sync::mpsc, time::Instant};

use super::{Delivery, DeliveryError};
use crate::{
    convert,
    source::{
        comparison::Comparison,
        link::{self, LinkError},
        reading::{READY_MESSAGES, Readiness, Reading},
        worklist::Worklist,
    },
};

impl Delivery<'_> {
    /// Sends all of `work`, read from `capture`, and waits until it is durable at the target. `progress` hears of
    /// every message's data bytes.
    pub(crate) async fn ship<C: Capture>(
        &mut self,
        capture: &C,
        work: &mut Worklist,
        progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        let reading = self.reading_of(capture);
        let (sender, ready) = mpsc::channel(READY_MESSAGES);
        let reading = Box::pin(reading.all(work, sender));
        self.send_while(reading, ready, progress).await
    }

    /// As [`Delivery::ship`], but of what `base` holds already nothing travels.
    pub(crate) async fn ship_differing<C: Capture>(
        &mut self,
        (capture, base): (&C, &mut Comparison),
        work: &mut Worklist,
        progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        let reading = self.reading_of(capture);
        let (sender, ready) = mpsc::channel(READY_MESSAGES);
        let reading = Box::pin(reading.differing(base, work, sender));
        self.send_while(reading, ready, progress).await
    }

    fn reading_of<'c, C>(&self, capture: &'c C) -> Reading<'c, C> {
        Reading {
            capture,
            packers: self.lane.packers.clone(),
            tuning: self.lane.tuning.clone(),
        }
    }

    /// Sends what `reading` makes ready, while it goes on.
    async fn send_while(
        &mut self,
        reading: impl Future<Output = ()>,
        ready: mpsc::Receiver<Readiness>,
        progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        let stop = self.lane.stop.clone();
        let mut sending = std::pin::pin!(self.send_all(ready, progress));
        tokio::select! {
            () = stop.cancelled() => return Err(DeliveryError::Stopped),
            sent = &mut sending => return sent,
            () = reading => {}
        }
        tokio::select! {
            () = stop.cancelled() => Err(DeliveryError::Stopped),
            sent = sending => sent,
        }
    }

    async fn send_all(
        &mut self,
        mut ready: mpsc::Receiver<Readiness>,
        mut progress: impl FnMut(ByteCount) + Send,
    ) -> Result<(), DeliveryError> {
        loop {
            let began = Instant::now();
            let message = ready.recv().await;
            let waited = began.elapsed();
            self.reading += waited;
            let Some(message) = message else { break };
            let message = message?;
            let done = message.done;
            if !message.is_empty() {
                self.push((message.frames, message.watermarks), waited).await?;
            }
            progress(done);
        }
        self.drain().await
    }

    /// Sends one message, which was waited for so long, as fast as the limits allow.
    pub(super) async fn push<C: Into<Change>>(
        &mut self,
        (changes, watermarks): (Vec<C>, Vec<Watermark>),
        waited: Duration,
    ) -> Result<(), DeliveryError> {
        let began = Instant::now();
        let changes: Vec<Change> = changes.into_iter().map(C::into).collect();
        let (raw, payload) = bytes_of(&changes);
        self.lane.pace.take(payload).await;
        if let Some(shared) = &self.lane.link_pace {
            shared.take(payload).await;
        }
        let paced = began.elapsed();
        let message = self.outbound.push(changes, watermarks);
        self.count(&message);
        match self.send_one(message).await {
            Ok(()) => {
                let for_link = began.elapsed();
                self.lane.tuning.shipped(raw, (waited, for_link));
                self.lane.widen(for_link.saturating_sub(paced));
            }
            Err(error) => {
                self.mend(error).await?;
            }
        }
        Ok(())
    }

    /// Waits until all that was sent is durable at the target.
    pub(super) async fn drain(&mut self) -> Result<(), DeliveryError> {
        let mut began = Instant::now();
        while !self.outbound.is_drained() {
            if let Err(error) = self.take_acknowledgement().await {
                self.mend(error).await?;
                began = Instant::now();
            }
        }
        self.lane.tuning.drained(began.elapsed());
        self.lane.drained();
        Ok(())
    }

    /// Sends when the window has room, and takes in what acknowledgements have come.
    async fn send_one(&mut self, message: Message) -> Result<(), LinkError> {
        while let Some(answer) = self.lane.link.receive().now_or_never() {
            self.take(answer?)?;
        }
        while !self.outbound.has_room() && self.outbound.durable_through() < message.number.saturating_sub(1)
        {
            self.take_acknowledgement().await?;
        }
        self.send_message(message).await
    }

    pub(super) async fn send_message(&mut self, message: Message) -> Result<(), LinkError> {
        self.lane.metrics.sent(bytes_of(&message.changes).1);
        let changes = v1::Changes {
            cycle: self.outbound.cycle(),
            message: message.number,
            frames: message.changes.iter().map(convert::frame_of_change).collect(),
            watermarks: message
                .watermarks
                .into_iter()
                .map(convert::watermark_out)
                .collect(),
        };
        self.lane.link.carry(changes).await
    }

    async fn take_acknowledgement(&mut self) -> Result<(), LinkError> {
        let answer = self.lane.link.answer().await?;
        self.take(answer)
    }

    fn take(&mut self, answer: target_message::Body) -> Result<(), LinkError> {
        match answer {
            target_message::Body::Acknowledged(acknowledged) => self.acknowledged(&acknowledged),
            other @ (target_message::Body::Welcome(_)
            | target_message::Body::Begun(_)
            | target_message::Body::Sealed(_)
            | target_message::Body::Refused(_)
            | target_message::Body::Abandoned(_)) => Err(link::unexpected(&other, "an acknowledgement")),
        }
    }

    pub(super) fn acknowledged(&mut self, acknowledged: &v1::Acknowledged) -> Result<(), LinkError> {
        if acknowledged.cycle != self.outbound.cycle() {
            return Err(LinkError::Unexpected {
                got: "another cycle's acknowledgement",
                expected: "ours",
            });
        }
        let delivered = self.outbound.acknowledge(acknowledged.durable_through_message)?;
        self.told_window(acknowledged.window_bytes);
        self.lane.tuning.delivered(delivered);
        self.lane.width.delivered(delivered);
        Ok(())
    }

    fn count(&self, message: &Message) {
        for change in &message.changes {
            self.lane
                .metrics
                .shipped(&self.lane.assignment.machine.vm, change);
        }
    }
}

/// How many bytes of the disks these changes carry, and how many of payload they take. What the target takes from a seed is not
/// carried: the link would be taken for as much wider.
fn bytes_of(changes: &[Change]) -> (ByteCount, ByteCount) {
    let raw = changes.iter().map(|change| match change {
        Change::Sent(frame) => frame.raw_length().0,
        Change::Seeded(_) => 0,
    });
    let payload = changes.iter().map(Change::payload_bytes).sum::<usize>();
    (
        ByteCount(raw.fold(0, u64::saturating_add)),
        ByteCount(u64::try_from(payload).unwrap_or(u64::MAX)),
    )
}

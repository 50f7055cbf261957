//! Reading a capture and making messages of it ahead of whoever sends them: all of a worklist, or what of it differs from what
//! the target holds. While one message is sent the next ones are read and packed.

use bytes::Bytes;
use farshore_blocks::{ByteCount, Encoding, Frame};
use farshore_provider::{Capture, SourceError, StateOfBytes};
use farshore_transfer::Watermark;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    comparison::Comparison,
    delivery::DeliveryError,
    packing::{self, Packers},
    tuning::Tuning,
    worklist::{Batch, Piece, Worklist},
};

/// How many messages are read and packed at once: enough that disks and processors work at the same time.
const MESSAGES_UNDER_WAY: usize = 4;
/// How many reads of one message are under way at once: enough to hide a socket's latency.
const READS_UNDER_WAY: usize = 8;
/// How many messages wait for the sender besides.
pub(crate) const READY_MESSAGES: usize = 1;
/// How many batches of which nothing is sent pass before the target hears how far the scan has come: 64 MiB of data.
const SILENT_BATCHES_A_MARK: u32 = 64;

/// A message that can be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) frames: Vec<Frame>,
    pub(crate) watermarks: Vec<Watermark>,
    /// How many bytes of data of the worklist are done with it.
    pub(crate) done: ByteCount,
}

impl Ready {
    /// Whether there is nothing in it to tell the target.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.watermarks.is_empty()
    }
}

/// Watermarks that are yet to be told: of batches of which nothing is sent only some are.
#[derive(Debug, Default)]
struct Marks {
    held: Vec<Watermark>,
    silent: u32,
}

impl Marks {
    fn hold_back(&mut self, message: Ready) -> Ready {
        self.silent = self.silent.saturating_add(1);
        if !message.frames.is_empty() || self.silent == SILENT_BATCHES_A_MARK {
            *self = Self::default();
            return message;
        }
        self.held = message.watermarks;
        Ready {
            watermarks: Vec::new(),
            ..message
        }
    }

    /// A message for those that are still held.
    fn last(self) -> Ready {
        Ready {
            frames: Vec::new(),
            watermarks: self.held,
            done: ByteCount(0),
        }
    }
}

/// What is ready, or why nothing more comes.
pub(crate) type Readiness = Result<Ready, DeliveryError>;

/// Reads a capture.
pub(crate) struct Reading<'a, C> {
    pub(crate) capture: &'a C,
    pub(crate) packers: Packers,
    pub(crate) tuning: Tuning,
}

impl<C: Capture> Reading<'_, C> {
    /// Makes messages of all of `work`, until it is done or fails, or nobody takes them any more. Where all is zero that does not
    /// travel, blocks that turn out to be zero do not.
    pub(crate) async fn all(&self, work: &mut Worklist, ready: mpsc::Sender<Readiness>) {
        let zeroes_travel = !work.begins_with_zeroes();
        let messages = std::iter::from_fn(|| work.next_batch()).map(|batch| async move {
            let pieces = self.read(&batch).await?;
            let mut frames = self.packers.pack(pieces, &self.tuning).await?;
            frames.retain(|frame| zeroes_travel || frame.encoding() != Encoding::Zero);
            Ok(Ready {
                frames,
                done: batch.data(),
                watermarks: batch.watermarks,
            })
        });
        let mut messages = std::pin::pin!(stream::iter(messages).buffered(MESSAGES_UNDER_WAY));
        let mut marks = Marks::default();
        while let Some(message) = messages.next().await {
            let message = message.map(|message| marks.hold_back(message));
            let failed = message.is_err();
            if ready.send(message).await.is_err() || failed {
                return;
            }
        }
        // Whoever does not take it knows more of what went wrong.
        let _ = ready.send(Ok(marks.last())).await;
    }

    /// As [`Reading::all`], but of whole blocks, and only of those that differ from `base`.
    pub(crate) async fn differing(
        &self,
        base: &mut Comparison,
        work: &mut Worklist,
        ready: mpsc::Sender<Readiness>,
    ) {
        if let Err(error) = self.try_differing(base, work, &ready).await {
            // Whoever does not take it knows more of what went wrong.
            let _ = ready.send(Err(error)).await;
        }
    }

    async fn try_differing(
        &self,
        base: &mut Comparison,
        work: &mut Worklist,
        ready: &mpsc::Sender<Readiness>,
    ) -> Result<(), DeliveryError> {
        let batches = std::iter::from_fn(|| work.next_batch())
            .map(|batch| async move { self.read(&batch).await.map(|pieces| (pieces, batch)) });
        let mut batches = std::pin::pin!(stream::iter(batches).buffered(MESSAGES_UNDER_WAY));
        let mut marks = Marks::default();
        while let Some(read) = batches.next().await {
            let (pieces, batch): (_, Batch) = read?;
            let differing = what_differs(pieces, base).await?;
            let message = Ready {
                frames: self.packers.pack(differing, &self.tuning).await?,
                done: batch.data(),
                watermarks: batch.watermarks,
            };
            if ready.send(Ok(marks.hold_back(message))).await.is_err() {
                return Ok(());
            }
        }
        // As above.
        let _ = ready.send(Ok(marks.last())).await;
        Ok(())
    }

    /// The batch's pieces in its order, with their bytes.
    async fn read(&self, batch: &Batch) -> Result<Vec<packing::Piece>, DeliveryError> {
        let mut read = std::pin::pin!(pieces(self.capture, batch));
        let mut pieces = Vec::with_capacity(batch.pieces.len());
        while let Some(piece) = read.next().await {
            let (piece, raw) = piece?;
            pieces.push((piece.volume, piece.extent, raw));
        }
        Ok(pieces)
    }
}

async fn what_differs(
    pieces: Vec<packing::Piece>,
    base: &mut Comparison,
) -> Result<Vec<packing::Piece>, DeliveryError> {
    let mut differing = Vec::new();
    for (volume, extent, raw) in pieces {
        match raw {
            Some(raw) => {
                let found = base.differing(volume, extent, &raw).await?;
                differing.extend(found.into_iter().map(|(extent, raw)| (volume, extent, Some(raw))));
            }
            None => {
                let found = base.not_zero(volume, extent).await?;
                differing.extend(found.into_iter().map(|extent| (volume, extent, None)));
            }
        }
    }
    Ok(differing)
}

/// A batch's pieces in its order, each with its bytes unless it is known to be zero; several are read at a time.
pub(super) fn pieces<C: Capture>(
    capture: &C,
    batch: &Batch,
) -> impl Stream<Item = Result<(Piece, Option<Bytes>), SourceError>> {
    stream::iter(batch.pieces.iter().copied())
        .map(move |piece| async move {
            match piece.state {
                StateOfBytes::Data => capture
                    .read(piece.volume, piece.extent)
                    .await
                    .map(|raw| (piece, Some(raw))),
                StateOfBytes::Zero => Ok((piece, None)),
            }
        })
        .buffered(READS_UNDER_WAY)
}

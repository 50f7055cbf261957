//! Reading a capture into frames: all of a batch, or what of it differs from what the target holds.

use bytes::Bytes;
use farshore_blocks::{ByteCount, Extent, Frame, MAX_FRAME_BYTES};
use farshore_provider::{Capture, SourceError, StateOfBytes};
use futures_util::{Stream, StreamExt, stream};

use super::{
    comparison::Comparison,
    delivery::DeliveryError,
    worklist::{Batch, Piece},
};

/// How many reads of a capture are under way at once: enough to hide a socket's latency.
const READS_UNDER_WAY: usize = 8;

/// Reads a batch's data into frames in the batch's order.
pub(crate) async fn read<C: Capture>(capture: &C, batch: &Batch) -> Result<Vec<Frame>, DeliveryError> {
    let mut pieces = Box::pin(pieces(capture, batch));
    let mut frames = Vec::new();
    while let Some(read) = pieces.next().await {
        let (piece, raw) = read?;
        match raw {
            Some(raw) => cut((piece, piece.extent), &raw, &mut frames)?,
            None => frames.push(Frame::zero(piece.volume, piece.extent)?),
        }
    }
    Ok(frames)
}

/// Reads a batch of whole blocks into frames of those that differ from `base`.
pub(crate) async fn read_differing<C: Capture>(
    capture: &C,
    batch: &Batch,
    base: &mut Comparison,
) -> Result<Vec<Frame>, DeliveryError> {
    let mut pieces = Box::pin(pieces(capture, batch));
    let mut frames = Vec::new();
    while let Some(read) = pieces.next().await {
        let (piece, raw) = read?;
        match raw {
            Some(raw) => {
                for (extent, raw) in base.differing(piece.volume, piece.extent, &raw).await? {
                    cut((piece, extent), &raw, &mut frames)?;
                }
            }
            None => {
                for extent in base.not_zero(piece.volume, piece.extent).await? {
                    frames.push(Frame::zero(piece.volume, extent)?);
                }
            }
        }
    }
    Ok(frames)
}

/// A batch's pieces in its order, each with its bytes unless it is known to be zero; several are read at a time.
fn pieces<C: Capture>(
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

/// Cuts `raw`, the bytes of `extent` of a piece's volume, into frames.
fn cut((piece, extent): (Piece, Extent), raw: &Bytes, frames: &mut Vec<Frame>) -> Result<(), DeliveryError> {
    let mut rest = raw.clone();
    for part in extent.pieces(ByteCount(u64::from(MAX_FRAME_BYTES))) {
        let length = usize::try_from(part.length().0).unwrap_or(usize::MAX);
        if rest.len() < length {
            return Err(DeliveryError::Lost(format!(
                "a read of {extent} gave {} bytes",
                raw.len()
            )));
        }
        frames.push(Frame::from_raw(
            piece.volume,
            part.start(),
            rest.split_to(length),
        )?);
    }
    Ok(())
}

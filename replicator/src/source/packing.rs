//! The processors' part of shipping: bytes of disks are cut into frames, checksummed, hashed and, where that pays,
//! compressed. All VMs of a replicator share its processors for it, a message at a time, in the order in which they ask.

use std::{num::NonZeroUsize, sync::Arc, thread};

use bytes::Bytes;
use farshore_blocks::{ByteCount, Encoding, Extent, Frame, MAX_FRAME_BYTES, VolumeIndex};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    compression::{Effort, Trial},
    delivery::DeliveryError,
    tuning::Tuning,
};

/// Less than this is packed at once rather than handed to another thread.
const WORTH_A_THREAD: usize = 64 * 1024;

/// Bytes of a volume; `None` stands for zeroes.
pub(crate) type Piece = (VolumeIndex, Extent, Option<Bytes>);

/// What packs; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Packers {
    turns: Arc<Semaphore>,
}

impl Packers {
    /// As many as there are processors.
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            turns: Arc::new(Semaphore::new(processors)),
        }
    }

    /// Makes a message's frames of these bytes, in their order.
    pub(crate) async fn pack(
        &self,
        pieces: Vec<Piece>,
        tuning: &Tuning,
    ) -> Result<Vec<Frame>, DeliveryError> {
        let bytes: usize = pieces
            .iter()
            .filter_map(|(_, _, raw)| raw.as_ref())
            .map(Bytes::len)
            .sum();
        // The semaphore is never closed; were it, packing without a turn would do no harm.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        let effort = tuning.effort();
        let packed = if bytes <= WORTH_A_THREAD {
            packed(pieces, effort)
        } else {
            tokio::task::spawn_blocking(move || packed(pieces, effort))
                .await
                .map_err(|error| DeliveryError::Lost(format!("frames were not made: {error}")))?
        };
        drop(turn);
        let (frames, trial) = packed?;
        if let Some(trial) = trial {
            tuning.tried(trial);
        }
        Ok(frames)
    }
}

fn packed(pieces: Vec<Piece>, effort: Effort) -> Result<(Vec<Frame>, Option<Trial>), DeliveryError> {
    let mut frames = Vec::new();
    for (volume, extent, raw) in pieces {
        match raw {
            Some(raw) => cut((volume, extent), &raw, &mut frames)?,
            None => frames.push(Frame::zero(volume, extent)?),
        }
    }
    for frame in &frames {
        // Kept in the frame: whoever sends it and seals needs no processor for it.
        let _ = frame.raw_digest();
    }
    Ok(match effort {
        Effort::None => (frames, None),
        Effort::Sample(level) => compressed(frames, level, 1),
        Effort::All(level) => compressed(frames, level, usize::MAX),
    })
}

/// Cuts `raw`, the bytes of `extent` of a volume, into frames.
pub(super) fn cut(
    (volume, extent): (VolumeIndex, Extent),
    raw: &Bytes,
    frames: &mut Vec<Frame>,
) -> Result<(), DeliveryError> {
    let mut rest = raw.clone();
    for part in extent.pieces(ByteCount(u64::from(MAX_FRAME_BYTES))) {
        let length = usize::try_from(part.length().0).unwrap_or(usize::MAX);
        if rest.len() < length {
            return Err(DeliveryError::Lost(format!(
                "a read of {extent} gave {} bytes",
                raw.len()
            )));
        }
        frames.push(Frame::from_raw(volume, part.start(), rest.split_to(length))?);
    }
    Ok(())
}

/// Compresses the first `most` frames that are not zero.
fn compressed(frames: Vec<Frame>, level: i32, most: usize) -> (Vec<Frame>, Option<Trial>) {
    let began = Instant::now();
    let mut tried = 0;
    let (mut raw, mut payload) = (0u64, 0u64);
    let frames = frames
        .into_iter()
        .map(|frame| {
            if frame.encoding() != Encoding::Raw || tried >= most {
                return frame;
            }
            tried += 1;
            let frame = frame.compressed(level);
            raw = raw.saturating_add(frame.raw_length().0);
            payload = payload.saturating_add(length(frame.payload()));
            frame
        })
        .collect();
    let trial = (tried > 0).then(|| Trial {
        level,
        raw: ByteCount(raw),
        payload: ByteCount(payload),
        took: began.elapsed(),
    });
    (frames, trial)
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use farshore_blocks::ByteOffset;

    use super::*;

    fn pieces() -> Vec<Piece> {
        let extent = |start, length| Extent::new(ByteOffset(start), ByteCount(length)).unwrap();
        let text = Bytes::from(b"what is on the disks ".repeat(10_000));
        let length = text.len() as u64;
        vec![
            (VolumeIndex(0), extent(0, 4096), None),
            (VolumeIndex(0), extent(4096, length), Some(text)),
            (VolumeIndex(1), extent(0, 512), Some(Bytes::from(vec![0; 512]))),
        ]
    }

    #[test]
    fn a_message_stands_for_the_same_bytes_whatever_the_effort() {
        let encodings = |effort| {
            let (frames, trial) = packed(pieces(), effort).unwrap();
            let raw: Vec<u8> = frames.iter().flat_map(|frame| frame.raw().to_vec()).collect();
            let expected: Vec<u8> = pieces()
                .into_iter()
                .flat_map(|(_, extent, raw)| {
                    raw.map_or_else(
                        || vec![0; usize::try_from(extent.length().0).unwrap()],
                        Into::into,
                    )
                })
                .collect();
            assert!(raw == expected);
            let shown: Vec<Encoding> = frames.iter().map(Frame::encoding).collect();
            (shown, trial.map(|trial| trial.raw))
        };
        use Encoding::{Raw, Zero, Zstd};
        assert_eq!(
            encodings(Effort::None),
            (vec![Zero, Raw, Raw, Raw, Raw, Zero], None)
        );
        let first = Some(ByteCount(64 * 1024));
        assert_eq!(
            encodings(Effort::Sample(-5)),
            (vec![Zero, Zstd, Raw, Raw, Raw, Zero], first)
        );
        let all = Some(ByteCount(210_000));
        assert_eq!(
            encodings(Effort::All(3)),
            (vec![Zero, Zstd, Zstd, Zstd, Zstd, Zero], all)
        );
    }

    #[test]
    fn bytes_that_are_fewer_than_their_extent_are_no_frames() {
        let short = pieces()
            .into_iter()
            .map(|(volume, extent, raw)| (volume, extent, raw.map(|raw| raw.slice(..raw.len() - 1))));
        assert!(packed(short.collect(), Effort::None).is_err());
    }
}

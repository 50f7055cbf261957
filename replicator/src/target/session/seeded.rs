//! Frames whose bytes did not travel, because the source found a seed to have them: taken from there, and believed only if they
//! have the digest that the source gave.

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, Digest, Encoding, Extent, Frame, FrameError, MAX_FRAME_BYTES, VolumeIndex,
};
use farshore_proto::v1::{self, RefusalReason};

use super::super::{refusal::Refusal, seeds::OpenSeeds};
use crate::{
    convert::{self, Malformed},
    wire,
};

/// How many bytes one message may have read from seeds: as many as one could carry.
const MOST_SEEDED_BYTES: usize = wire::MAX_MESSAGE_BYTES;

/// A change as it arrived, well-formed.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// With its bytes.
    Sent(Frame),
    /// Without.
    Seeded(SeededFrame),
}

/// A change whose bytes are in a seed.
#[derive(Debug)]
pub(crate) struct SeededFrame {
    volume: VolumeIndex,
    extent: Extent,
    crc32: u32,
    digest: Digest,
}

/// The changes of one message.
pub(crate) fn arrived(frames: Vec<v1::Frame>) -> Result<Vec<Arrived>, Malformed> {
    let mut seeded = 0_usize;
    let mut changes = Vec::with_capacity(frames.len());
    for frame in frames {
        if frame.encoding() != v1::FrameEncoding::Seed {
            changes.push(Arrived::Sent(convert::frame_in(frame)?));
            continue;
        }
        let frame = SeededFrame::new(&frame)?;
        seeded = seeded.saturating_add(frame.length());
        if seeded > MOST_SEEDED_BYTES {
            return Err(Malformed::Refused {
                field: "frames",
                why: format!("at most {MOST_SEEDED_BYTES} bytes of one message may come from seeds"),
            });
        }
        changes.push(Arrived::Seeded(frame));
    }
    Ok(changes)
}

/// The same changes, all with their bytes.
pub(super) fn with_bytes(changes: Vec<Arrived>, seeds: &OpenSeeds) -> Result<Vec<Frame>, Refusal> {
    let frames = changes.into_iter().map(|change| match change {
        Arrived::Sent(frame) => Ok(frame),
        Arrived::Seeded(seeded) => seeded.take_from(seeds),
    });
    frames.collect()
}

impl SeededFrame {
    fn new(frame: &v1::Frame) -> Result<Self, FrameError> {
        let offset = ByteOffset(frame.offset_bytes);
        let length = frame.length_bytes;
        let extent = Extent::new(offset, ByteCount(u64::from(length)))
            .filter(|_| length <= MAX_FRAME_BYTES)
            .ok_or(FrameError::Length { offset, length })?;
        let digest = Digest::try_from(frame.payload.as_ref()).map_err(|_| FrameError::Payload {
            offset,
            expected: Digest::LENGTH,
            actual: frame.payload.len(),
        })?;
        Ok(Self {
            volume: VolumeIndex(frame.volume),
            extent,
            crc32: frame.crc32,
            digest,
        })
    }

    fn length(&self) -> usize {
        usize::try_from(self.extent.length().0).unwrap_or(usize::MAX)
    }

    fn take_from(&self, seeds: &OpenSeeds) -> Result<Frame, Refusal> {
        let (volume, extent) = (self.volume, self.extent);
        let seed = seeds.of(volume).ok_or_else(|| {
            let message = format!("the frame at {extent} is of a seed, and there is none of volume {volume}");
            Refusal::new(RefusalReason::BadFrame, message)
        })?;
        let differs = |how: String| {
            let path = seed.path().display();
            let message = format!("the seed {path} of volume {volume} {how} at {extent}");
            Refusal::new(RefusalReason::SeedDiffers, message)
        };
        let raw = seed
            .read(extent)
            .map_err(|error| differs(format!("cannot be read ({error})")))?;
        if Digest::of(&raw) != self.digest {
            return Err(differs("has other bytes than it had".to_owned()));
        }
        self.frame_of(raw).map_err(|error| Malformed::from(error).into())
    }

    fn frame_of(&self, raw: Bytes) -> Result<Frame, FrameError> {
        Frame::from_parts(
            self.volume,
            self.extent.start(),
            u32::try_from(self.extent.length().0).unwrap_or(u32::MAX),
            self.crc32,
            Encoding::Raw,
            raw,
        )
    }
}

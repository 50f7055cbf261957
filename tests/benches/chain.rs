//! A vault with one chain of one volume, and the changes that are written to it: what a source would send.
//!
//! A change is made before the time is taken: generating, checksumming and hashing it is the source's work.

#![allow(dead_code, reason = "what one part of the bench does not need, another does")]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, ChangeHasher, Digest, Epoch, Extent, Frame, HolderNonce,
    VolumeIndex, clock::WallTime,
};
use farshore_vault::{
    ChainDescription, ChainWriter, CycleBegin, CycleKind, OpenCycle, PointKind, PointRecord, SealRequest,
    Vault, VolumeDescription,
};

use crate::noise::Noise;

pub(crate) const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
pub(crate) const VOLUME_NAME: &str = "disk";
/// The largest frame, and what a message carries, in bytes.
pub(crate) const FRAME_BYTES: u64 = 64 << 10;
pub(crate) const MESSAGE_BYTES: u64 = 1 << 20;
pub(crate) const BLOCK_BYTES: u64 = 4096;

const VOLUME: VolumeIndex = VolumeIndex(0);
const HOLDER: HolderNonce = HolderNonce::from_bytes([1; 16]);

/// A vault that is open for writing, with its chain's writer.
pub(crate) struct Chain {
    pub(crate) writer: ChainWriter,
    pub(crate) vault: Vault,
    pub(crate) epoch: Epoch,
}

/// What a cycle sends, in messages, with the proof of it.
pub(crate) struct Change {
    pub(crate) messages: Vec<Vec<Frame>>,
    pub(crate) digest: ChangeDigest,
}

impl Chain {
    /// A new vault for a volume of this size.
    pub(crate) fn create(directory: &Path, volume_bytes: u64) -> anyhow::Result<Self> {
        let vault = Vault::create(directory)?;
        let description = ChainDescription {
            vm: "bench".to_owned(),
            volumes: vec![VolumeDescription {
                name: VOLUME_NAME.to_owned(),
                size: ByteCount(volume_bytes),
            }],
        };
        vault.create_chain(CHAIN, &description)?;
        Self::write_to(vault)
    }

    /// A vault that is there already.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        Self::write_to(Vault::open(directory)?)
    }

    fn write_to(vault: Vault) -> anyhow::Result<Self> {
        let epoch = vault.grant_epoch(CHAIN, HOLDER)?;
        let writer = vault.chain_writer(CHAIN)?;
        Ok(Self { writer, vault, epoch })
    }

    /// Begins the next cycle.
    pub(crate) fn begin(&mut self) -> anyhow::Result<OpenCycle> {
        let newest = self.writer.head().newest;
        let begin = CycleBegin {
            epoch: self.epoch,
            cycle: newest.as_ref().map_or(1, |point| point.sequence.0 + 1),
            base: newest.as_ref().map(PointRecord::as_base),
            kind: match newest {
                None => CycleKind::Base,
                Some(_) => CycleKind::Delta,
            },
        };
        Ok(self.writer.begin(&begin)?)
    }

    /// Seals the open cycle, to which all of the change was appended.
    pub(crate) fn seal(&mut self, open: &OpenCycle, change: &Change) -> anyhow::Result<PointRecord> {
        let newest = self.writer.head().newest;
        let request = SealRequest {
            epoch: self.epoch,
            cycle: open.cycle,
            sequence: open.sequence,
            captured_at: WallTime::now(),
            clock_offset_nanoseconds: 0,
            clock_uncertainty: Duration::ZERO,
            kind: PointKind::CrashConsistent,
            machine: Vec::new(),
            parent: newest.map_or(Digest::default(), |point| point.digest),
            changes: vec![change.digest],
            messages: u64::try_from(change.messages.len())?,
        };
        Ok(self.writer.seal(&request)?)
    }

    /// A whole cycle: when this returns, the point is durable.
    pub(crate) fn add_point(&mut self, change: &Change) -> anyhow::Result<PointRecord> {
        let open = self.begin()?;
        for (number, frames) in (1..).zip(&change.messages) {
            self.writer.append(self.epoch, number, frames, &[])?;
        }
        self.seal(&open, change)
    }
}

impl Change {
    /// These frames, in messages of at most [`MESSAGE_BYTES`].
    pub(crate) fn of(frames: Vec<Frame>) -> Self {
        let mut hasher = ChangeHasher::default();
        let mut messages: Vec<Vec<Frame>> = Vec::new();
        let mut room = 0;
        for frame in frames {
            let length = frame.raw_length();
            hasher.update(VOLUME, frame.extent().start(), length, &frame.raw_digest());
            if room < length.0 {
                messages.push(Vec::new());
                room = MESSAGE_BYTES;
            }
            room -= length.0;
            if let Some(message) = messages.last_mut() {
                message.push(frame);
            }
        }
        Self {
            messages,
            digest: hasher.digest(),
        }
    }

    /// These bytes from `offset` on, in the largest frames.
    pub(crate) fn sequential(offset: u64, bytes: &Bytes) -> anyhow::Result<Self> {
        let mut frames = Vec::new();
        let (mut at, mut rest) = (offset, bytes.clone());
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(usize::try_from(FRAME_BYTES)?));
            let length = u64::try_from(piece.len())?;
            frames.push(Frame::from_raw(VOLUME, ByteOffset(at), piece)?);
            at += length;
        }
        Ok(Self::of(frames))
    }

    /// So many incompressible blocks of 4 KiB at random places of the volume, in ascending order, as a source reads
    /// them.
    pub(crate) fn scattered(noise: &mut Noise, volume_bytes: u64, blocks: usize) -> anyhow::Result<Self> {
        let frames = scattered_places(noise, volume_bytes, blocks)
            .into_iter()
            .map(|at| {
                let bytes = noise.bytes(usize::try_from(BLOCK_BYTES).unwrap_or(0));
                Frame::from_raw(VOLUME, ByteOffset(at), bytes.into())
            });
        Ok(Self::of(frames.collect::<Result<_, _>>()?))
    }

    /// So many short runs of zeroes, far apart: extents that cost next to no bytes.
    pub(crate) fn zeroes(
        noise: &mut Noise,
        volume_bytes: u64,
        extents: usize,
        length: u64,
    ) -> anyhow::Result<Self> {
        let frames = scattered_places(noise, volume_bytes, extents)
            .into_iter()
            .filter_map(|at| Extent::new(ByteOffset(at), ByteCount(length)))
            .map(|extent| Frame::zero(VOLUME, extent));
        Ok(Self::of(frames.collect::<Result<_, _>>()?))
    }
}

fn scattered_places(noise: &mut Noise, volume_bytes: u64, blocks: usize) -> Vec<u64> {
    let mut places = std::collections::BTreeSet::new();
    while places.len() < blocks {
        places.insert(noise.below(volume_bytes / BLOCK_BYTES) * BLOCK_BYTES);
    }
    places.into_iter().collect()
}

//! A cycle that is being built: what of it is durable, what was appended since, and its entries of the index.

use farshore_blocks::{ByteOffset, ChangeDigest, ChangeHasher, Digest, Epoch, Frame, VolumeIndex};

use super::segments::SegmentWriter;
use crate::{
    format::{
        CycleWords, Group, MAX_GROUP_FRAMES, MessageEnds, MessagePart, Position, StoredFrame, block_checksums,
    },
    memtable::Memtable,
    records::OpenCycle,
    segment::FoundGroup,
    storage::StorageError,
};

/// A message is cut into groups of about this many bytes of payload.
const GROUP_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;

/// The open cycle.
#[derive(Debug)]
pub(super) struct Building {
    /// As far as it is durable.
    pub(super) durable: OpenCycle,
    /// As far as it was appended.
    pub(super) appended: OpenCycle,
    /// The entries of the frames that are in no run.
    pub(super) entries: Memtable,
}

/// A message as its source ships it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) number: u64,
    pub(super) frames: &'a [Frame],
    pub(super) watermarks: &'a [(VolumeIndex, ByteOffset)],
}

impl Building {
    /// A cycle that stands where `open` says.
    pub(super) fn new(open: OpenCycle) -> Self {
        Self {
            durable: open.clone(),
            appended: open,
            entries: Memtable::default(),
        }
    }

    /// The chain has so many volumes now; of those that are new nothing was appended yet.
    pub(super) fn know_volumes(&mut self, volumes: usize) {
        for open in [&mut self.durable, &mut self.appended] {
            open.watermarks.resize(volumes, ByteOffset(0));
            open.changes.resize(volumes, ChangeDigest::default());
        }
    }

    pub(super) fn has_unsynced(&self) -> bool {
        self.appended != self.durable
    }

    /// Goes on under a newer epoch.
    pub(super) fn continue_under(&mut self, epoch: Epoch) {
        self.appended.epoch = epoch;
        self.durable.epoch = epoch;
    }

    /// Appends a message whose frames and watermarks are known to be in bounds; all of it or nothing. Gives how
    /// many groups it took.
    pub(super) fn append(
        &mut self,
        segments: &mut SegmentWriter,
        message: Message<'_>,
    ) -> Result<usize, StorageError> {
        let start = segments.cursor();
        let mut progress = self.appended.clone();
        progress.last_message = message.number;
        for (volume, offset) in message.watermarks {
            if let Some(watermark) = progress.watermarks.get_mut(volume.as_usize()) {
                *watermark = *offset;
            }
        }
        let mut written = Vec::new();
        let parts = parts_of(message.frames);
        let last = parts.len().saturating_sub(1);
        for (index, frames) in parts.into_iter().enumerate() {
            let mut group = group_of(&mut progress, message.number, frames, segments.durable());
            group.part.index = u32::try_from(index).unwrap_or(u32::MAX);
            if index == last {
                group.part.ends = MessageEnds::Here;
                group.watermarks = message.watermarks.to_vec();
            }
            match segments.append(&group, frames) {
                Ok(found) => written.push(found),
                Err(error) => {
                    segments.back_to(start);
                    return Err(error);
                }
            }
        }
        written.iter().for_each(|found| self.add(found));
        self.appended = progress;
        Ok(written.len())
    }

    /// Takes the frames of a group into the index.
    pub(super) fn add(&mut self, found: &FoundGroup) {
        for entry in found.entries(self.appended.sequence) {
            self.entries.insert(entry);
        }
    }
}

/// What all groups of this cycle say.
fn words_of(open: &OpenCycle) -> CycleWords {
    CycleWords {
        sequence: open.sequence,
        cycle: open.cycle,
        kind: open.kind,
        epoch: open.epoch,
        base: open.base.map_or(Digest::default(), |base| base.digest),
    }
}

/// The group of these frames, whose proofs go on from `progress`.
fn group_of(progress: &mut OpenCycle, message: u64, frames: &[Frame], durable_before: Position) -> Group {
    let mut stored = Vec::with_capacity(frames.len());
    let mut touched: Vec<VolumeIndex> = Vec::new();
    for frame in frames {
        let raw = frame.raw_digest();
        let fingerprint = raw
            .as_bytes()
            .first_chunk()
            .copied()
            .map_or(0, u64::from_le_bytes);
        stored.push(StoredFrame::of(frame, fingerprint));
        let volume = frame.volume();
        if let Some(change) = progress.changes.get_mut(volume.as_usize()) {
            let mut hasher = ChangeHasher::resume(*change);
            hasher.update(volume, frame.extent().start(), frame.raw_length(), &raw);
            *change = hasher.digest();
        }
        if !touched.contains(&volume) {
            touched.push(volume);
        }
    }
    let proof = |volume: VolumeIndex| -> Option<(VolumeIndex, ChangeDigest)> {
        Some((volume, *progress.changes.get(volume.as_usize())?))
    };
    Group {
        words: words_of(progress),
        message,
        part: MessagePart {
            index: 0,
            ends: MessageEnds::Later,
        },
        durable_before,
        frames: stored,
        origins: Vec::new(),
        sequences: Vec::new(),
        changes: touched.into_iter().filter_map(proof).collect(),
        watermarks: Vec::new(),
        blocks: frames.iter().flat_map(block_checksums).collect(),
    }
}

/// Cuts a message's frames into those of one group each; a message without frames is one empty group.
fn parts_of(frames: &[Frame]) -> Vec<&[Frame]> {
    let limit = usize::try_from(MAX_GROUP_FRAMES).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = frames;
    loop {
        let mut payload: usize = 0;
        let fitting = rest.iter().take(limit).take_while(|frame| {
            let fits = payload == 0 || payload.saturating_add(frame.payload().len()) <= GROUP_PAYLOAD_BYTES;
            payload = payload.saturating_add(frame.payload().len());
            fits
        });
        let (part, behind) = rest.split_at(fitting.count());
        parts.push(part);
        rest = behind;
        if rest.is_empty() {
            return parts;
        }
    }
}

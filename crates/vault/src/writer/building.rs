//! A cycle that is being built: what of it is durable, what was appended since, and its index in memory.

use std::sync::Arc;

use farshore_blocks::{ByteOffset, ChangeDigest, ChangeHasher, Epoch, Frame, VolumeIndex};

use crate::{
    format::{RecordKind, encode_record},
    index::ExtentMap,
    records::OpenCycle,
    storage::StorageError,
    vault::ChainState,
    writer::segments::SegmentWriter,
};

/// The open cycle.
#[derive(Debug)]
pub(super) struct Building {
    /// What `open` says on disk.
    pub(super) durable: OpenCycle,
    appended: Progress,
    pub(super) segments: SegmentWriter,
    pub(super) index: Vec<ExtentMap>,
    state: Arc<ChainState>,
}

/// How far a cycle has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    last_message: u64,
    watermarks: Vec<ByteOffset>,
    changes: Vec<ChangeDigest>,
}

impl Building {
    /// A cycle without messages, whose `open` is not written yet.
    pub(super) fn fresh(state: Arc<ChainState>, open: OpenCycle, first_segment: u64) -> Self {
        let segments = SegmentWriter::fresh(Arc::clone(&state), open.sequence, open.cycle, first_segment);
        let index = vec![ExtentMap::default(); state.description.volumes.len()];
        Self::resumed(state, open, segments, index)
    }

    /// A cycle as `open` describes it.
    pub(super) fn resumed(
        state: Arc<ChainState>,
        open: OpenCycle,
        segments: SegmentWriter,
        index: Vec<ExtentMap>,
    ) -> Self {
        Self {
            appended: Progress::of(&open),
            durable: open,
            segments,
            index,
            state,
        }
    }

    pub(super) fn last_message(&self) -> u64 {
        self.appended.last_message
    }

    pub(super) fn changes(&self) -> &[ChangeDigest] {
        &self.appended.changes
    }

    pub(super) fn has_unsynced(&self) -> bool {
        self.appended != Progress::of(&self.durable)
    }

    /// Appends a message whose frames and watermarks are known to be in bounds; all of it or nothing.
    pub(super) fn append(
        &mut self,
        message_number: u64,
        frames: &[Frame],
        watermarks: &[(VolumeIndex, ByteOffset)],
    ) -> Result<(), StorageError> {
        let mut progress = self.appended.clone();
        progress.last_message = message_number;
        for frame in frames {
            if let Some(change) = progress.changes.get_mut(frame.volume().as_usize()) {
                let mut hasher = ChangeHasher::resume(*change);
                hasher.update(
                    frame.volume(),
                    frame.extent().start(),
                    frame.raw_length(),
                    &frame.raw_digest(),
                );
                *change = hasher.digest();
            }
        }
        for (volume, offset) in watermarks {
            if let Some(watermark) = progress.watermarks.get_mut(volume.as_usize()) {
                *watermark = *offset;
            }
        }
        let places = self.segments.write(frames)?;
        for (frame, place) in frames.iter().zip(places) {
            if let Some(map) = self.index.get_mut(frame.volume().as_usize()) {
                map.insert(frame.extent(), place);
            }
        }
        self.appended = progress;
        Ok(())
    }

    /// Makes the frames durable. When this fails it is unknown which are.
    pub(super) fn sync_segments(&mut self) -> Result<(), StorageError> {
        self.segments.sync()
    }

    /// Writes down, durably, that everything appended is held, under `epoch`. The frames must be durable already.
    /// When this fails, either the old record or the new one is on disk, and both are true.
    pub(super) fn replace_open(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        let progress = self.appended.clone();
        let open = OpenCycle {
            epoch,
            last_message: progress.last_message,
            watermarks: progress.watermarks,
            changes: progress.changes,
            segments: self.segments.range(),
            ..self.durable.clone()
        };
        let path = self.state.layout.open();
        let record = encode_record(RecordKind::Open, self.state.identity, 0, &open).map_err(|error| {
            StorageError::new("encode the record for", &path, std::io::Error::other(error))
        })?;
        self.state.disk.replace_file(&path, &record)?;
        self.durable = open;
        Ok(())
    }
}

impl Progress {
    fn of(open: &OpenCycle) -> Self {
        Self {
            last_message: open.last_message,
            watermarks: open.watermarks.clone(),
            changes: open.changes.clone(),
        }
    }
}

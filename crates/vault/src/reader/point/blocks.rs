//! The block checksums of a group, kept so that small reads of large frames need not read the directory each time.

use crate::{
    damage::FileError,
    entry::Entry,
    format::{FormatError, StoredFrame, block_count},
    segment::SegmentFile,
};

/// The frames of a group that have block checksums.
#[derive(Debug)]
pub(super) struct GroupBlocks {
    /// Where the payload begins, the frame, and its first checksum; in the order of the payloads.
    frames: Vec<(u32, StoredFrame, usize)>,
    checksums: Vec<u32>,
}

impl GroupBlocks {
    /// Reads the directory of the group at `start`.
    pub(super) fn read(file: &SegmentFile, start: u32) -> Result<Self, FileError> {
        let found = file.group_at(start)?.ok_or_else(|| {
            let error = FormatError::Bounds { field: "place" };
            FileError::damaged(file.path(), u64::from(start), error)
        })?;
        let mut frames = Vec::new();
        let mut first: usize = 0;
        for (offset, stored) in found.frames() {
            let count = usize::try_from(block_count(stored)).unwrap_or(usize::MAX);
            if count > 0 {
                frames.push((offset, *stored, first));
                first = first.saturating_add(count);
            }
        }
        Ok(Self {
            frames,
            checksums: found.group.blocks,
        })
    }

    /// The checksums of the frame whose payload lies at `offset`; it must be the very frame that the
    /// index means.
    pub(super) fn of(&self, offset: u32, entry: &Entry) -> Result<&[u32], FormatError> {
        let elsewhere = FormatError::Identity { field: "frame" };
        let found = self.frames.binary_search_by_key(&offset, |(offset, ..)| *offset);
        let Some((_, stored, first)) = found.ok().and_then(|at| self.frames.get(at)) else {
            return Err(elsewhere);
        };
        if entry.place.stored_frame(entry.volume) != Some(*stored) {
            return Err(elsewhere);
        }
        let count = usize::try_from(block_count(stored)).unwrap_or(0);
        let checksums = self.checksums.get(*first..first.saturating_add(count));
        checksums.ok_or(FormatError::Bounds {
            field: "number of block checksums",
        })
    }

    /// How much memory it takes, about.
    pub(super) fn weight(&self) -> usize {
        let frames = self
            .frames
            .len()
            .saturating_mul(size_of::<(u32, StoredFrame, usize)>());
        frames
            .saturating_add(self.checksums.len().saturating_mul(4))
            .saturating_add(64)
    }
}

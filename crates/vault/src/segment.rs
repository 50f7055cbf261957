//! Reading a segment: no byte of a frame is handed out before header and payload were checked.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use farshore_blocks::{Frame, Sequence, VolumeIndex};

use crate::{
    damage::{FileError, read_exactly},
    format::{FRAME_HEADER_BYTES, FormatError, FrameHeader, Identity, SEGMENT_HEADER_BYTES, SegmentHeader},
    index::FramePlace,
    layout::ChainLayout,
    records::SegmentRange,
    storage::StorageError,
};

/// A segment, open for reading.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    path: PathBuf,
    identity: Identity,
    number: u64,
    sequence: Sequence,
}

impl SegmentFile {
    /// Opens the segment `number`, written for the point `sequence`, and checks its header.
    pub(crate) fn open(
        layout: &ChainLayout,
        identity: Identity,
        number: u64,
        sequence: Sequence,
    ) -> Result<Self, FileError> {
        let path = layout.segment(number);
        let file = File::open(&path).map_err(|error| StorageError::new("open", &path, error))?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        read_exactly(&file, &path, &mut header, 0)?;
        SegmentHeader::decode(&header)
            .and_then(|header| header.expect(identity, number, sequence))
            .map_err(|error| FileError::damaged(&path, 0, error))?;
        Ok(Self {
            file,
            path,
            identity,
            number,
            sequence,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The header of the frame at `position`, checked.
    pub(crate) fn header_at(&self, position: u32) -> Result<FrameHeader, FileError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        read_exactly(&self.file, &self.path, &mut header, u64::from(position))?;
        self.decode_header(&header, position)
    }

    /// The frame behind a header, its payload checked.
    pub(crate) fn frame_of(&self, header: &FrameHeader) -> Result<Frame, FileError> {
        let position = u64::from(header.position).saturating_add(wide(FRAME_HEADER_BYTES));
        let mut payload = vec![0; usize::try_from(header.payload_bytes()).unwrap_or(0)];
        read_exactly(&self.file, &self.path, &mut payload, position)?;
        header
            .frame(Bytes::from(payload))
            .map_err(|error| FileError::damaged(&self.path, position, error))
    }

    /// The frame that an index says lies at `place`, in one read, its header and payload checked.
    pub(crate) fn frame_at(&self, volume: VolumeIndex, place: &FramePlace) -> Result<Frame, FileError> {
        let expected = place.header(volume);
        let mut stored = vec![0; usize::try_from(expected.stored_bytes()).unwrap_or(0)];
        let position = u64::from(place.position);
        read_exactly(&self.file, &self.path, &mut stored, position)?;
        let header = self.decode_header(&stored, place.position)?;
        if header != expected {
            let error = FormatError::Identity {
                field: "frame header",
            };
            return Err(FileError::damaged(&self.path, position, error));
        }
        let payload = Bytes::from(stored).split_off(FRAME_HEADER_BYTES);
        header
            .frame(payload)
            .map_err(|error| FileError::damaged(&self.path, position, error))
    }

    fn decode_header(&self, bytes: &[u8], position: u32) -> Result<FrameHeader, FileError> {
        let damaged = |error| FileError::damaged(&self.path, u64::from(position), error);
        let header = FrameHeader::decode(bytes, self.identity, self.number, position).map_err(damaged)?;
        if header.sequence == self.sequence {
            Ok(header)
        } else {
            Err(damaged(FormatError::Identity { field: "sequence" }))
        }
    }

    /// Visits the headers of all frames up to where `range` says that the segment ends.
    pub(crate) fn scan<E: From<FileError>>(
        &self,
        range: &SegmentRange,
        mut visit: impl FnMut(&FrameHeader) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.end_in(range)?;
        let mut position = wide(SEGMENT_HEADER_BYTES);
        while position < end {
            let too_far =
                |_| FileError::damaged(&self.path, position, FormatError::Bounds { field: "position" });
            let header = self.header_at(u32::try_from(position).map_err(too_far)?)?;
            let next = position.saturating_add(header.stored_bytes());
            if next > end {
                let error = FormatError::TooShort {
                    expected: next,
                    actual: end,
                };
                return Err(FileError::damaged(&self.path, position, error).into());
            }
            visit(&header)?;
            position = next;
        }
        Ok(())
    }

    /// Where this segment ends, as one of `range`.
    pub(crate) fn end_in(&self, range: &SegmentRange) -> Result<u64, FileError> {
        if range.last == self.number {
            return Ok(range.last_length.0);
        }
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|error| StorageError::new("ask the length of", &self.path, error))?;
        Ok(metadata.len())
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

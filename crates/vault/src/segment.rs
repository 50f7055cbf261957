//! Reading segments and packs: no byte of a frame is handed out before its checksum was checked.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use farshore_blocks::{Encoding, Frame, Sequence};

use crate::{
    damage::{FileError, read_exactly},
    entry::{Entry, FramePlace},
    format::{
        FormatError, GROUP_HEADER_BYTES, Group, GroupHeader, Identity, Position, SegmentName, StoredFrame,
        UNIT_BYTES,
    },
    layout::ChainLayout,
    storage::StorageError,
};

/// A segment or pack, open for reading.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    path: PathBuf,
    identity: Identity,
    name: SegmentName,
}

/// A group as it stands in a file; its payloads were not looked at.
#[derive(Debug, Clone)]
pub(crate) struct FoundGroup {
    pub(crate) at: Position,
    pub(crate) group: Group,
    /// Where the payload of the first frame begins.
    payload_offset: u32,
    /// Where the next group begins.
    pub(crate) end: Position,
}

impl FoundGroup {
    /// A group as it was just written.
    pub(crate) fn written(at: Position, group: Group) -> Self {
        let layout = group.layout();
        Self {
            at,
            group,
            payload_offset: at.offset.saturating_add(layout.payload_start()),
            end: at.advanced(layout.total_bytes()),
        }
    }

    /// Each frame with where its payload begins in the file.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u32, &StoredFrame)> {
        let mut offset = self.payload_offset;
        self.group.frames.iter().map(move |frame| {
            let at = offset;
            offset = offset.saturating_add(frame.stored_bytes);
            (at, frame)
        })
    }

    /// Each frame with where it was ingested: what the index calls its place.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Position, &StoredFrame)> {
        let segment = self.at.segment;
        let mut origins = self.group.origins.iter().copied();
        self.frames().map(move |(offset, frame)| {
            let here = Position { segment, offset };
            (origins.next().unwrap_or(here), frame)
        })
    }

    /// The index entries of its frames, in the order in which they were shipped.
    pub(crate) fn entries(&self, sequence: Sequence) -> impl Iterator<Item = Entry> {
        self.places().flat_map(move |(position, frame)| {
            Entry::of_frame(frame.volume, frame.extent, sequence, place_of(position, frame))
        })
    }
}

/// What the index says of a frame that was ingested at `position`.
pub(crate) fn place_of(position: Position, frame: &StoredFrame) -> FramePlace {
    FramePlace {
        segment: position.segment,
        position: position.offset,
        stored_bytes: frame.stored_bytes,
        frame_start: frame.extent.start().0,
        raw_bytes: frame.raw_bytes(),
        encoding: frame.encoding,
        crc32: frame.crc32,
        fingerprint: frame.fingerprint,
    }
}

impl SegmentFile {
    /// Opens a segment or pack and checks its header.
    pub(crate) fn open(
        layout: &ChainLayout,
        identity: Identity,
        name: SegmentName,
    ) -> Result<Self, FileError> {
        let path = layout.segment(name);
        let file = File::open(&path).map_err(|error| StorageError::new("open", &path, error))?;
        let mut header = [0; UNIT_BYTES];
        read_exactly(&file, &path, &mut header, 0)?;
        name.check(identity, &header)
            .map_err(|error| FileError::damaged(&path, 0, error))?;
        Ok(Self {
            file,
            path,
            identity,
            name,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn length(&self) -> Result<u64, StorageError> {
        let metadata = self.file.metadata();
        Ok(metadata
            .map_err(|error| StorageError::new("ask the length of", &self.path, error))?
            .len())
    }

    /// The group at `offset`; none where the file ends.
    pub(crate) fn group_at(&self, offset: u32) -> Result<Option<FoundGroup>, FileError> {
        let position = u64::from(offset);
        let damaged = |error| FileError::damaged(&self.path, position, error);
        let length = self.length()?;
        if position == length {
            return Ok(None);
        }
        let at = Position {
            segment: self.name.number,
            offset,
        };
        let mut directory = vec![0; UNIT_BYTES];
        read_exactly(&self.file, &self.path, &mut directory, position)?;
        let header = directory.get(..GROUP_HEADER_BYTES).unwrap_or_default();
        let header = GroupHeader::decode(header, self.identity, at).map_err(damaged)?;
        let end = position.saturating_add(u64::from(header.layout.total_bytes()));
        // Behind that no place can be named; a walk would stand still there.
        if end > u64::from(u32::MAX) {
            return Err(damaged(FormatError::Bounds { field: "length" }));
        }
        if end > length {
            return Err(damaged(FormatError::TooShort {
                expected: end,
                actual: length,
            }));
        }
        let directory_bytes = usize::try_from(header.layout.payload_start()).unwrap_or(usize::MAX);
        if directory_bytes > UNIT_BYTES {
            directory.resize(directory_bytes, 0);
            read_exactly(&self.file, &self.path, &mut directory, position)?;
        }
        let group = header.group(&directory).map_err(damaged)?;
        Ok(Some(FoundGroup {
            at,
            group,
            payload_offset: offset.saturating_add(header.layout.payload_start()),
            end: at.advanced(header.layout.total_bytes()),
        }))
    }

    /// Where the group behind the one at `offset` begins, by that group's header alone.
    pub(crate) fn group_behind(&self, offset: u32) -> Result<u32, FileError> {
        let mut header = [0; GROUP_HEADER_BYTES];
        read_exactly(&self.file, &self.path, &mut header, u64::from(offset))?;
        let at = Position {
            segment: self.name.number,
            offset,
        };
        let header = GroupHeader::decode(&header, self.identity, at)
            .map_err(|error| FileError::damaged(&self.path, u64::from(offset), error))?;
        Ok(offset.saturating_add(header.layout.total_bytes()))
    }

    /// Of a pack: where the payload of each frame lies, by where the frame was ingested.
    pub(crate) fn origins(&self) -> Result<BTreeMap<Position, u32>, FileError> {
        let mut origins = BTreeMap::new();
        let mut at = Position::beginning_of(self.name.number);
        while let Some(found) = self.group_at(at.offset)? {
            let places = found.places().zip(found.frames());
            // A frame of zeroes has nothing to lead to, and no place of its own.
            let places = places.filter(|(_, (_, frame))| frame.encoding != Encoding::Zero);
            origins.extend(places.map(|((origin, _), (offset, _))| (origin, offset)));
            at = found.end;
        }
        Ok(origins)
    }

    /// Fills `into` with the payload at `offset` as it stands, unchecked.
    pub(crate) fn read_payload(&self, offset: u32, into: &mut [u8]) -> Result<(), FileError> {
        read_exactly(&self.file, &self.path, into, u64::from(offset))
    }

    /// The frame whose payload begins at `offset`, checked.
    pub(crate) fn frame_at(&self, offset: u32, frame: &StoredFrame) -> Result<Frame, FileError> {
        let mut payload = vec![0; usize::try_from(frame.stored_bytes).unwrap_or(0)];
        read_exactly(&self.file, &self.path, &mut payload, u64::from(offset))?;
        frame
            .frame(Bytes::from(payload))
            .map_err(|error| FileError::damaged(&self.path, u64::from(offset), error))
    }

    /// Checks the payloads of all frames of a group, and the padding behind them.
    pub(crate) fn check_payloads(&self, found: &FoundGroup) -> Result<(), FileError> {
        let mut end = found.payload_offset;
        for (offset, frame) in found.frames() {
            self.frame_at(offset, frame)?;
            end = offset.saturating_add(frame.stored_bytes);
        }
        self.check_padding(end, found.end.offset)
    }

    /// Checks that nothing stands between the last payload and the next group.
    pub(crate) fn check_padding(&self, from: u32, to: u32) -> Result<(), FileError> {
        let mut padding = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        read_exactly(&self.file, &self.path, &mut padding, u64::from(from))?;
        if padding.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let error = FormatError::Bounds { field: "padding" };
        Err(FileError::damaged(&self.path, u64::from(from), error))
    }

    /// Bytes of the file as they stand.
    pub(crate) fn raw(&self, from: u32, to: u32) -> Result<Vec<u8>, FileError> {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        read_exactly(&self.file, &self.path, &mut bytes, u64::from(from))?;
        Ok(bytes)
    }
}

/// Visits all groups between two positions of the ingested segments; all of them must be whole.
pub(crate) fn walk<E: From<FileError>>(
    (layout, identity): (&ChainLayout, Identity),
    from: Position,
    to: Position,
    mut visit: impl FnMut(&SegmentFile, FoundGroup) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = from;
    while at < to {
        let segment = SegmentFile::open(layout, identity, SegmentName::ingested(at.segment))?;
        while at.segment < to.segment || at.offset < to.offset {
            let Some(found) = segment.group_at(at.offset)? else {
                break;
            };
            at = found.end;
            visit(&segment, found)?;
        }
        if at.segment == to.segment {
            if at == to {
                return Ok(());
            }
            let error = FormatError::TooShort {
                expected: u64::from(to.offset),
                actual: u64::from(at.offset),
            };
            return Err(FileError::damaged(segment.path(), u64::from(at.offset), error).into());
        }
        at = Position::beginning_of(at.segment.saturating_add(1));
    }
    Ok(())
}

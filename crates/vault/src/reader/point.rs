//! One point as a set of volumes that can be read at any offset; every byte is checked before it is handed out.

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, Encoding, Extent, Frame, Sequence, VolumeIndex};

use super::{ReadError, recent::Recent};
use crate::{
    damage::FileError,
    format::{FormatError, Identity},
    index::{ExtentMap, FramePlace},
    layout::ChainLayout,
    records::{ChainDescription, PointRecord, VolumeDescription},
    run::read_run,
    segment::SegmentFile,
};

/// How many frames are kept in memory, of at most 64 KiB each: 2 MiB.
const FRAMES_KEPT: usize = 32;

/// How many segments are kept open.
const SEGMENTS_KEPT_OPEN: usize = 64;

/// What is known of an extent without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// It holds data.
    Data,
    /// Zeroes were written to it.
    Zero,
    /// It was never written, and reads as zeroes.
    Hole,
}

/// A point, open for reading. Any number of threads may read at once.
#[derive(Debug)]
pub struct PointReader {
    layout: ChainLayout,
    identity: Identity,
    description: ChainDescription,
    record: PointRecord,
    index: Vec<ExtentMap>,
    segments: Recent<u64, Arc<SegmentFile>>,
    frames: Recent<(u64, u32), Frame>,
}

impl PointReader {
    /// Opens the last of `points`, which are all from the chain's first on.
    pub(super) fn open(
        layout: ChainLayout,
        identity: Identity,
        description: ChainDescription,
        points: Vec<PointRecord>,
    ) -> Result<Self, ReadError> {
        let mut index = vec![ExtentMap::default(); description.volumes.len()];
        for point in &points {
            add_run(&layout, identity, &description, point, &mut index).map_err(|source| {
                ReadError::Index {
                    point: point.sequence,
                    source,
                }
            })?;
        }
        let chain = identity.chain;
        let record = points.into_iter().next_back().ok_or(ReadError::UnknownPoint {
            chain,
            point: Sequence(0),
            newest: Sequence(0),
        })?;
        Ok(Self {
            layout,
            identity,
            description,
            record,
            index,
            segments: Recent::new(SEGMENTS_KEPT_OPEN),
            frames: Recent::new(FRAMES_KEPT),
        })
    }

    /// What the log says of the point.
    #[must_use]
    pub fn record(&self) -> &PointRecord {
        &self.record
    }

    /// The protected VM's name.
    #[must_use]
    pub fn vm(&self) -> &str {
        &self.description.vm
    }

    /// Its volumes, in the order of their indices.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeDescription] {
        &self.description.volumes
    }

    /// Fills `buffer` with the volume's bytes from `offset`; what was never written is zero.
    ///
    /// # Errors
    /// When there are no such bytes, or any is damaged; the buffer's content then means nothing.
    pub fn read_at(
        &self,
        volume: VolumeIndex,
        offset: ByteOffset,
        buffer: &mut [u8],
    ) -> Result<(), ReadError> {
        let length = ByteCount(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        let Some((map, extent)) = self.find(volume, offset, length)? else {
            return Ok(());
        };
        let mut rest = buffer;
        for (part, place) in map.pieces(extent) {
            let (into, behind) =
                rest.split_at_mut(usize::try_from(part.length().0).unwrap_or(0).min(rest.len()));
            rest = behind;
            match place {
                Some(place) => {
                    self.copy_part(volume, &place, part, into)
                        .map_err(|source| ReadError::Unreadable {
                            point: self.record.sequence,
                            volume,
                            offset: part.start(),
                            source,
                        })?;
                }
                None => into.fill(0),
            }
        }
        Ok(())
    }

    /// What is known of `extent`, in order and without gaps; neighbours of one kind are joined.
    ///
    /// # Errors
    /// When the volume has no such extent.
    pub fn extents(
        &self,
        volume: VolumeIndex,
        extent: Extent,
    ) -> Result<Vec<(Extent, Allocation)>, ReadError> {
        let mut extents: Vec<(Extent, Allocation)> = Vec::new();
        let Some((map, extent)) = self.find(volume, extent.start(), extent.length())? else {
            return Ok(extents);
        };
        for (part, place) in map.pieces(extent) {
            let allocation = match place.map(|place| place.encoding) {
                Some(Encoding::Raw) => Allocation::Data,
                Some(Encoding::Zero) => Allocation::Zero,
                None => Allocation::Hole,
            };
            let joined = extents
                .last()
                .filter(|(_, last)| *last == allocation)
                .and_then(|(last, _)| {
                    Extent::new(
                        last.start(),
                        ByteCount(last.length().0.saturating_add(part.length().0)),
                    )
                });
            match (joined, extents.last_mut()) {
                (Some(joined), Some(last)) => last.0 = joined,
                (_, _) => extents.push((part, allocation)),
            }
        }
        Ok(extents)
    }

    /// The volume's map and the extent asked for; `None` when nothing is asked for.
    fn find(
        &self,
        volume: VolumeIndex,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<Option<(&ExtentMap, Extent)>, ReadError> {
        let volumes = &self.description.volumes;
        let (Some(map), Some(described)) =
            (self.index.get(volume.as_usize()), volumes.get(volume.as_usize()))
        else {
            let volumes = volumes.len();
            return Err(ReadError::UnknownVolume { volume, volumes });
        };
        if offset
            .checked_add(length)
            .is_none_or(|end| end.0 > described.size.0)
        {
            return Err(ReadError::OutOfBounds {
                volume,
                offset,
                length,
                size: described.size,
            });
        }
        Ok(Extent::new(offset, length).map(|extent| (map, extent)))
    }

    fn copy_part(
        &self,
        volume: VolumeIndex,
        place: &FramePlace,
        part: Extent,
        into: &mut [u8],
    ) -> Result<(), FileError> {
        let frame = self.frames.get_or_fetch((place.segment, place.position), || {
            self.segment(place)?.frame_at(volume, place)
        })?;
        match frame.encoding() {
            Encoding::Zero => into.fill(0),
            Encoding::Raw => {
                let skipped = part.start().0.saturating_sub(place.frame.start().0);
                let from = usize::try_from(skipped).unwrap_or(usize::MAX);
                let raw = frame.payload().get(from..from.saturating_add(into.len()));
                let error = FormatError::Bounds { field: "extent" };
                let path = self.layout.segment(place.segment);
                let raw = raw.ok_or_else(|| FileError::damaged(&path, u64::from(place.position), error))?;
                into.copy_from_slice(raw);
            }
        }
        Ok(())
    }

    fn segment(&self, place: &FramePlace) -> Result<Arc<SegmentFile>, FileError> {
        self.segments.get_or_fetch(place.segment, || {
            SegmentFile::open(&self.layout, self.identity, place.segment, place.sequence).map(Arc::new)
        })
    }
}

fn add_run(
    layout: &ChainLayout,
    identity: Identity,
    description: &ChainDescription,
    point: &PointRecord,
    index: &mut [ExtentMap],
) -> Result<(), FileError> {
    let path = layout.run(point.sequence);
    let mut wrong = None;
    read_run(&path, identity, point.sequence, &point.run, |entry| {
        let volume = entry.volume.as_usize();
        let size = description.volumes.get(volume).map_or(0, |volume| volume.size.0);
        let own = point.segments.is_some_and(|range| range.contains(entry.segment));
        match index.get_mut(volume) {
            Some(map) if own && entry.extent.end().0 <= size => {
                map.insert(entry.extent, FramePlace::of_entry(&entry, point.sequence));
            }
            Some(_) | None => wrong = Some(FormatError::Bounds { field: "entries" }),
        }
    })?;
    match wrong {
        Some(error) => Err(FileError::damaged(&path, 0, error)),
        None => Ok(()),
    }
}

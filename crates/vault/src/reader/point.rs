//! One point as a set of volumes that can be read at any offset; every byte is checked before it is handed out.

mod blocks;
mod copying;
mod hashes;

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, Extent, Frame, Sequence, VolumeIndex};

use super::{Allocation, Lease, ReadError, VaultReader, allocation, cache::Cache, homes::Homes};
use crate::{
    damage::FileError,
    entry::{CHUNK_BYTES, Entry},
    format::Identity,
    memtable::Memtable,
    records::{ChainDescription, PointRecord, VolumeDescription},
    segment::walk,
    state::ChainState,
    tree::{NodeCache, Run},
    versions::{Layer, resolve},
};
use blocks::GroupBlocks;
use copying::Copying;
pub use hashes::HashSource;

/// How much memory the index's nodes may take, per point that is read: 16 MiB.
const NODE_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// How much memory what shows in chunks may take: 48 MiB, which holds 4 GiB of a volume written in pieces of 4 KiB.
const CHUNK_CACHE_BYTES: usize = 48 * 1024 * 1024;
/// How much memory whole frames may take of which parts were read: 8 MiB.
const FRAME_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// How much memory the block checksums of groups may take: 16 MiB, which is those of 8 GiB.
const GROUP_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// What an entry takes in memory, with its share of what holds it.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// A point, open for reading. Any number of threads may read at once. What it needs stays while it is open.
#[derive(Debug)]
pub struct PointReader {
    description: Arc<ChainDescription>,
    record: Arc<PointRecord>,
    /// The entries of groups that were in no run when the point was opened.
    unindexed: Memtable,
    /// Newest first.
    runs: Vec<Run>,
    chunks: Cache<(VolumeIndex, u64), Arc<[Entry]>>,
    frames: Cache<(u32, u32), Frame>,
    /// The block checksums of groups, by segment and where in the file the group begins.
    groups: Cache<(u32, u32), Arc<GroupBlocks>>,
    homes: Homes,
    _lease: Option<Lease>,
}

/// A part of what was asked for, and what shows there.
#[derive(Debug, Clone, Copy)]
struct Piece {
    extent: Extent,
    entry: Option<Entry>,
}

impl PointReader {
    pub(super) fn open(
        reader: VaultReader,
        identity: Identity,
        state: &ChainState,
        record: Arc<PointRecord>,
        lease: Option<Lease>,
    ) -> Result<Self, ReadError> {
        let point = record.sequence;
        let failed = |source| ReadError::Index { point, source };
        let layout = reader.layout().chain(identity.chain);
        let nodes = Arc::new(NodeCache::new(NODE_CACHE_BYTES));
        let needed = state
            .runs
            .iter()
            .rev()
            .filter(|run| run.entries > 0 && run.first_sequence <= point);
        let runs = needed.map(|run| Run::open(&layout.run(run.number), identity, run, Arc::clone(&nodes)));
        let runs = runs.collect::<Result<Vec<_>, FileError>>().map_err(failed)?;
        let mut unindexed = Memtable::default();
        walk::<FileError>(
            (&layout, identity),
            state.indexed_through,
            state.tail,
            |_, found| {
                let sequence = found.group.words.sequence;
                if sequence <= point {
                    found.entries(sequence).for_each(|entry| unindexed.insert(entry));
                }
                Ok(())
            },
        )
        .map_err(failed)?;
        Ok(Self {
            description: Arc::clone(state.descriptions.at(point)),
            record,
            unindexed,
            runs,
            chunks: Cache::new(CHUNK_CACHE_BYTES),
            frames: Cache::new(FRAME_CACHE_BYTES),
            groups: Cache::new(GROUP_CACHE_BYTES),
            homes: Homes::new(reader, identity),
            _lease: lease,
        })
    }

    /// What the journal says of the point.
    #[must_use]
    pub fn record(&self) -> &PointRecord {
        &self.record
    }

    /// The protected VM's name.
    #[must_use]
    pub fn vm(&self) -> &str {
        &self.description.vm
    }

    /// Its volumes, in the order of their indices. Those that were not there at its instant have no size.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeDescription] {
        &self.description.volumes
    }

    /// Those of its volumes that were there at its instant.
    pub fn volumes_there(&self) -> impl Iterator<Item = (VolumeIndex, &VolumeDescription)> {
        let indexed = (0..).map(VolumeIndex).zip(self.volumes());
        indexed.filter(|(_, volume)| volume.is_there())
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
        let Some(extent) = self.find(volume, offset, length)? else {
            return Ok(());
        };
        let copying = Copying {
            homes: &self.homes,
            frames: &self.frames,
            groups: &self.groups,
        };
        let pieces = self.pieces(volume, extent)?;
        copying
            .copy(&pieces, buffer)
            .map_err(|(offset, source)| ReadError::Unreadable {
                point: self.record.sequence,
                volume,
                offset,
                source,
            })
    }

    /// What is known of `extent`, in order and without gaps; neighbours of one kind are joined.
    ///
    /// # Errors
    /// When the volume has no such extent, or the index is damaged.
    pub fn extents(
        &self,
        volume: VolumeIndex,
        extent: Extent,
    ) -> Result<Vec<(Extent, Allocation)>, ReadError> {
        let mut extents = Vec::new();
        let Some(extent) = self.find(volume, extent.start(), extent.length())? else {
            return Ok(extents);
        };
        for part in extent.pieces(ByteCount(CHUNK_BYTES)) {
            for piece in self.pieces(volume, part)? {
                let kind = Allocation::of(piece.entry.map(|entry| entry.place.encoding));
                allocation::push(&mut extents, piece.extent, kind);
            }
        }
        Ok(extents)
    }

    /// The extent asked for, if the volume has it; `None` when nothing is asked for.
    fn find(
        &self,
        volume: VolumeIndex,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<Option<Extent>, ReadError> {
        let volumes = &self.description.volumes;
        let Some(described) = volumes.get(volume.as_usize()) else {
            let volumes = volumes.len();
            return Err(ReadError::UnknownVolume { volume, volumes });
        };
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end.0 > described.size.0) {
            return Err(ReadError::OutOfBounds {
                volume,
                offset,
                length,
                size: described.size,
            });
        }
        Ok(Extent::new(offset, length))
    }

    /// What shows in each part of `extent`, in order and without gaps.
    fn pieces(&self, volume: VolumeIndex, extent: Extent) -> Result<Vec<Piece>, ReadError> {
        let mut pieces = Vec::new();
        let mut at = extent.start();
        let end = extent.end();
        let first = extent.start().0 / CHUNK_BYTES;
        let last = end.0.saturating_sub(1) / CHUNK_BYTES;
        for chunk in first..=last {
            for entry in self.chunk(volume, chunk)?.iter() {
                let shown = Extent::new(ByteOffset(entry.start), ByteCount(u64::from(entry.length)));
                let Some(part) = shown.and_then(|shown| shown.intersection(extent)) else {
                    continue;
                };
                pieces.extend(hole(at, part.start()));
                let entry = Some(*entry);
                pieces.push(Piece { extent: part, entry });
                at = part.end();
            }
        }
        pieces.extend(hole(at, end));
        Ok(pieces)
    }

    /// What shows in one chunk.
    fn chunk(&self, volume: VolumeIndex, chunk: u64) -> Result<Arc<[Entry]>, ReadError> {
        let point = self.record.sequence;
        self.chunks.get_or_fetch((volume, chunk), || {
            let mut layers = vec![Layer::Memtable(&self.unindexed)];
            layers.extend(self.runs.iter().map(Layer::Run));
            let shown = resolve(&layers, volume, chunk, point);
            let shown: Arc<[Entry]> = shown.map_err(|source| ReadError::Index { point, source })?.into();
            let weight = shown.len().saturating_add(2).saturating_mul(ENTRY_BYTES);
            Ok((shown, weight))
        })
    }

    /// The point's sequence.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.record.sequence
    }
}

fn hole(from: ByteOffset, to: ByteOffset) -> Option<Piece> {
    let extent = Extent::new(from, ByteCount(to.0.checked_sub(from.0)?))?;
    Some(Piece { extent, entry: None })
}

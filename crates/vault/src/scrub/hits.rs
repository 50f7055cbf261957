//! From a damaged place to the points that it hits.

use std::sync::Arc;

use farshore_blocks::{ByteOffset, Extent, Sequence, VolumeIndex};

use super::Scrub;
use crate::{
    damage::FileError,
    entry::{CHUNK_BYTES, FramePlace},
    format::StoredFrame,
    memtable::Memtable,
    segment::walk,
    state::ChainState,
    tree::{NodeCache, Run},
    versions::{Layer, resolve_extent},
};

/// How much memory the index's nodes may take.
const NODE_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// What was damaged first, and whom it hits.
type Hit = (Option<(VolumeIndex, ByteOffset)>, Vec<Sequence>);

impl Scrub {
    /// The retained points in which a frame shows. Where the index cannot be read, all points from the frame's on.
    pub(super) fn points_that_show(
        &self,
        state: &ChainState,
        stored: &StoredFrame,
        place: &FramePlace,
    ) -> Vec<Sequence> {
        let (runs, unindexed) = self.layers(state);
        let mut layers = vec![Layer::Memtable(&unindexed)];
        layers.extend(runs.iter().map(Layer::Run));
        let shows = |point: Sequence| {
            let parts = stored.extent.start().0 / CHUNK_BYTES
                ..=(stored.extent.end().0.saturating_sub(1)) / CHUNK_BYTES;
            parts.into_iter().any(|chunk| {
                let chunk = Extent::new(
                    ByteOffset(chunk.saturating_mul(CHUNK_BYTES)),
                    farshore_blocks::ByteCount(CHUNK_BYTES),
                );
                let part = chunk.and_then(|chunk| chunk.intersection(stored.extent));
                let shown = part.map(|part| resolve_extent(&layers, stored.volume, part, point));
                match shown {
                    Some(Ok(shown)) => shown.iter().any(|entry| entry.place == *place),
                    Some(Err(_)) => true,
                    None => false,
                }
            })
        };
        state
            .points()
            .map(|point| point.sequence)
            .filter(|point| shows(*point))
            .collect()
    }

    /// The retained points that may need any of the frames that `belongs` picks, and the first of these.
    pub(super) fn points_that_need(&self, state: &ChainState, belongs: impl Fn(&FramePlace) -> bool) -> Hit {
        let (runs, unindexed) = self.layers(state);
        let entries = runs
            .iter()
            .flat_map(Run::entries)
            .filter_map(Result::ok)
            .chain(unindexed.entries());
        let mut first = None;
        let mut oldest: Option<Sequence> = None;
        for entry in entries.filter(|entry| belongs(&entry.place)) {
            let place = (entry.place.segment, entry.place.position);
            if first.is_none_or(|(at, _)| place < at) {
                first = Some((place, (entry.volume, ByteOffset(entry.start))));
            }
            oldest = Some(oldest.map_or(entry.sequence, |oldest| oldest.min(entry.sequence)));
        }
        let points = state.points().map(|point| point.sequence);
        let hit = points
            .filter(|point| oldest.is_some_and(|oldest| *point >= oldest))
            .collect();
        (first.map(|(_, place)| place), hit)
    }

    fn layers(&self, state: &ChainState) -> (Vec<Run>, Memtable) {
        let nodes = Arc::new(NodeCache::new(NODE_CACHE_BYTES));
        let runs = state.runs.iter().rev();
        let runs = runs.filter_map(|run| {
            Run::open(
                &self.layout.run(run.number),
                self.identity,
                run,
                Arc::clone(&nodes),
            )
            .ok()
        });
        let runs = runs.collect();
        let mut unindexed = Memtable::default();
        let place = (&self.layout, self.identity);
        // What cannot be walked through is told of by itself.
        let _ = walk::<FileError>(place, state.indexed_through, state.tail, |_, found| {
            let sequence = found.group.words.sequence;
            found.entries(sequence).for_each(|entry| unindexed.insert(entry));
            Ok(())
        });
        (runs, unindexed)
    }
}

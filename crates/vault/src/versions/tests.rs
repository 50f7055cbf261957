//! Layers against a slow oracle, byte by byte.
#![expect(clippy::cast_possible_truncation, reason = "test volumes are small")]

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, Encoding, Extent, Sequence, VolumeIndex};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Chunks, Layer, Merge, resolve, resolve_extent, thin};
use crate::{
    damage::FileError,
    entry::{
        CHUNK_BYTES, Entry,
        samples::{IDENTITY, entry, frame},
    },
    memtable::Memtable,
    storage::{Disk, LocalStorage},
    tree::{NodeCache, Run, RunSummary, RunWriter},
};

/// The bytes that the tests write lie around the border of two chunks.
const FIRST: u64 = CHUNK_BYTES - 40;
const BYTES: u64 = 80;
const VOLUMES: u32 = 2;

/// One frame, as it was written after those before it.
#[derive(Debug, Clone)]
struct Write {
    volume: u32,
    sequence: u64,
    start: u64,
    length: u32,
    encoding: Encoding,
    begins_layer: bool,
}

/// Layers, and the directory of their files.
struct Stack {
    directory: TempDir,
    cache: Arc<NodeCache>,
    layers: Vec<Stored>,
}

enum Stored {
    Memtable(Memtable),
    Run(Run),
}

impl Stack {
    /// Every other layer is a run.
    fn of(writes: &[Write]) -> Self {
        let mut stack = Self {
            directory: tempfile::tempdir().unwrap(),
            cache: Arc::new(NodeCache::new(1 << 20)),
            layers: Vec::new(),
        };
        let mut table = Memtable::default();
        for (number, write) in (0_u32..).zip(writes) {
            if write.begins_layer {
                stack.push(std::mem::take(&mut table));
            }
            let span = (write.start, write.length);
            let entries = frame(number, write.volume, write.sequence, span, write.encoding);
            entries.into_iter().for_each(|entry| table.insert(entry));
        }
        stack.push(table);
        stack
    }

    fn push(&mut self, table: Memtable) {
        let layer = if self.layers.len().is_multiple_of(2) {
            Stored::Run(self.run(table.entries().map(Ok)))
        } else {
            Stored::Memtable(table)
        };
        self.layers.insert(0, layer);
    }

    fn run(&self, entries: impl Iterator<Item = Result<Entry, FileError>>) -> Run {
        let number = self.directory.path().read_dir().unwrap().count() as u64;
        let path = self.directory.path().join(number.to_string());
        let disk = Disk::new(Arc::new(LocalStorage));
        let mut writer = RunWriter::create(&disk, &path, IDENTITY, number).unwrap();
        entries.for_each(|entry| writer.push(&entry.unwrap()).unwrap());
        let summary: RunSummary = writer.finish(b"").unwrap();
        let run = Run::open(&path, IDENTITY, &summary, Arc::clone(&self.cache)).unwrap();
        run.check().unwrap();
        run
    }

    fn layers(&self) -> Vec<Layer<'_>> {
        self.layers
            .iter()
            .map(|layer| match layer {
                Stored::Memtable(table) => Layer::Memtable(table),
                Stored::Run(run) => Layer::Run(run),
            })
            .collect()
    }

    /// What the pipeline of a merge makes of the newest `count` layers.
    fn merged(&self, count: usize, retained: &[Sequence]) -> Run {
        let chunks = Chunks::new(Merge::new(&self.layers()[..count]));
        let thinned = chunks.flat_map(|chunk| thin(&chunk.unwrap(), retained));
        self.run(thinned.map(Ok))
    }
}

/// The number of the write that shows at each byte of a volume at a point.
fn oracle(writes: &[Write], volume: u32, at: u64) -> Vec<Option<u32>> {
    let mut shown = vec![None; BYTES as usize];
    for (number, write) in (0_u32..).zip(writes) {
        if write.volume == volume && write.sequence <= at {
            let from = (write.start - FIRST) as usize;
            shown[from..from + write.length as usize].fill(Some(number));
        }
    }
    shown
}

/// The same, as the layers have it.
fn shown(layers: &[Layer<'_>], volume: u32, at: u64) -> Vec<Option<u32>> {
    let mut shown = vec![None; BYTES as usize];
    for chunk in 0..2 {
        let visible = resolve(layers, VolumeIndex(volume), chunk, Sequence(at)).unwrap();
        assert!(visible.iter().all(|entry| entry.chunk() == chunk));
        let ends = |entry: &Entry| entry.start + u64::from(entry.length);
        assert!(visible.is_sorted_by(|left, right| ends(left) <= right.start));
        for entry in visible {
            let from = (entry.start - FIRST) as usize;
            shown[from..from + entry.length as usize].fill(Some(entry.place.segment));
        }
    }
    shown
}

fn last_sequence(writes: &[Write]) -> u64 {
    writes.last().map_or(0, |write| write.sequence)
}

fn histories() -> impl Strategy<Value = Vec<Write>> {
    let encoding = prop::sample::select(vec![Encoding::Raw, Encoding::Zstd, Encoding::Zero]);
    let write = (0..VOLUMES, 0_u64..3, 0..BYTES, 1_u32..50, encoding, 0_u32..8);
    prop::collection::vec(write, 0..70).prop_map(|writes| {
        let mut at = 1;
        writes
            .into_iter()
            .map(|(volume, step, start, length, encoding, layer)| {
                // Half of the frames are of the sequence before, so that layers begin amid a sequence.
                at += step / 2;
                Write {
                    volume,
                    sequence: at,
                    start: FIRST + start,
                    length: length.min((BYTES - start) as u32),
                    encoding,
                    begins_layer: layer == 0,
                }
            })
            .collect()
    })
}

fn retained_of(writes: &[Write], chosen: &[bool]) -> Vec<Sequence> {
    (1..=last_sequence(writes))
        .zip(chosen)
        .filter_map(|(sequence, chosen)| chosen.then_some(Sequence(sequence)))
        .collect()
}

proptest! {
    #[test]
    fn every_point_shows_what_was_written_up_to_it(
        writes in histories(),
        part in (0..BYTES, 1..=BYTES),
    ) {
        let stack = Stack::of(&writes);
        let layers = stack.layers();
        for volume in 0..VOLUMES {
            for at in 0..=last_sequence(&writes) + 1 {
                let expected = oracle(&writes, volume, at);
                prop_assert_eq!(&shown(&layers, volume, at), &expected);

                let extent = Extent::new(ByteOffset(FIRST + part.0), ByteCount(part.1)).unwrap();
                let seen = resolve_extent(&layers, VolumeIndex(volume), extent, Sequence(at)).unwrap();
                let border = (extent.start().0 / CHUNK_BYTES + 1) * CHUNK_BYTES;
                let wanted = extent.start().0..extent.end().0.min(border).min(FIRST + BYTES);
                let mut actual = vec![None; BYTES as usize];
                for entry in seen {
                    prop_assert!(wanted.contains(&entry.start));
                    let from = (entry.start - FIRST) as usize;
                    actual[from..from + entry.length as usize].fill(Some(entry.place.segment));
                }
                let mut part_of_expected = vec![None; BYTES as usize];
                let range = (wanted.start - FIRST) as usize..(wanted.end - FIRST) as usize;
                part_of_expected[range.clone()].copy_from_slice(&expected[range]);
                prop_assert_eq!(actual, part_of_expected);
            }
        }
    }

    #[test]
    fn a_merge_changes_no_point(writes in histories()) {
        let stack = Stack::of(&writes);
        let merged = stack.run(Merge::new(&stack.layers()));
        for volume in 0..VOLUMES {
            for at in 0..=last_sequence(&writes) {
                prop_assert_eq!(shown(&[Layer::Run(&merged)], volume, at), oracle(&writes, volume, at));
            }
        }
    }

    #[test]
    fn a_thinned_merge_of_all_layers_keeps_the_retained_points_and_nothing_else(
        writes in histories(),
        chosen in prop::collection::vec(any::<bool>(), 70),
    ) {
        let stack = Stack::of(&writes);
        let retained = retained_of(&writes, &chosen);
        let last_retained = retained.last().copied().unwrap_or_default();
        let merged = stack.merged(stack.layers.len(), &retained);
        let points: Vec<u64> = retained.iter().map(|point| point.0).collect();
        for volume in 0..VOLUMES {
            for at in points.iter().copied().chain([last_sequence(&writes)]) {
                let actual = shown(&[Layer::Run(&merged)], volume, at);
                prop_assert_eq!(actual, oracle(&writes, volume, at));
            }
        }
        for entry in merged.entries().map(Result::unwrap) {
            if entry.sequence <= last_retained {
                prop_assert!(lives(&writes, &points, &entry), "{:?} is dead", entry);
            }
        }
    }

    #[test]
    fn a_thinned_merge_over_older_layers_keeps_the_retained_points(
        writes in histories(),
        chosen in prop::collection::vec(any::<bool>(), 70),
        percent in 0_usize..=100,
    ) {
        let stack = Stack::of(&writes);
        let retained = retained_of(&writes, &chosen);
        let last_retained = retained.last().copied().unwrap_or_default();
        let points: Vec<u64> = retained.iter().map(|point| point.0).collect();
        let count = stack.layers.len() * percent / 100;
        let merged = stack.merged(count, &retained);
        let mut layers = stack.layers();
        layers.splice(..count, [Layer::Run(&merged)]);
        for volume in 0..VOLUMES {
            for at in points.iter().copied().chain([last_sequence(&writes)]) {
                prop_assert_eq!(shown(&layers, volume, at), oracle(&writes, volume, at));
            }
        }
        for entry in merged.entries().map(Result::unwrap) {
            let open = entry.sequence > last_retained;
            prop_assert!(open || lives(&writes, &points, &entry), "{:?} is dead", entry);
        }
    }
}

/// Whether every byte of the entry shows at some point of those retained.
fn lives(writes: &[Write], points: &[u64], entry: &Entry) -> bool {
    let mut alive = vec![false; BYTES as usize];
    for point in points {
        let shown = oracle(writes, entry.volume.0, *point);
        for byte in bytes_of(entry) {
            alive[byte] |= shown[byte] == Some(entry.place.segment);
        }
    }
    bytes_of(entry).all(|byte| alive[byte])
}

fn bytes_of(entry: &Entry) -> std::ops::Range<usize> {
    let from = (entry.start - FIRST) as usize;
    from..from + entry.length as usize
}

#[test]
fn the_open_cycle_is_kept_as_it_is() {
    let open = [
        entry(4, 0, 9, 0, 4096),
        entry(3, 0, 8, 0, 4096),
        entry(2, 0, 6, 0, 4096),
        entry(1, 0, 4, 0, 4096),
    ];
    let retained = [Sequence(2), Sequence(7)];
    assert_eq!(thin(&open, &retained), open[..3]);
    assert_eq!(thin(&open, &[]), open, "no point is retained yet");
    let zero = frame(1, 0, 3, (0, 4096), Encoding::Zero);
    assert_eq!(thin(&zero, &[Sequence(2)]), zero);
    assert_eq!(thin(&zero, &[Sequence(3)]), zero);
}

#[test]
fn a_hundred_thousand_versions_of_a_block_are_thinned_in_one_walk() {
    let versions: Vec<_> = (1..=100_000_u32)
        .rev()
        .map(|number| entry(number, 0, u64::from(number), 8192, 4096))
        .collect();
    let retained: Vec<_> = (1..=10_000).map(|point| Sequence(point * 10)).collect();
    let kept = thin(&versions, &retained);
    let sequences: Vec<_> = kept.iter().rev().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, retained);
}

#[test]
fn a_damaged_run_ends_the_pipeline_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let disk = Disk::new(Arc::new(LocalStorage));
    let mut writer = RunWriter::create(&disk, &path, IDENTITY, 1).unwrap();
    let entries: Vec<_> = (0..400)
        .map(|number| entry(number, 0, 1, u64::from(number) * 100, 50))
        .collect();
    entries.iter().for_each(|entry| writer.push(entry).unwrap());
    let summary = writer.finish(b"").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 8192 + 500] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let run = Run::open(&path, IDENTITY, &summary, Arc::new(NodeCache::new(1 << 20))).unwrap();

    let mut whole = Memtable::default();
    whole.insert(entry(500, 0, 1, 39_990, 5));
    let mut merge = Merge::new(&[Layer::Memtable(&whole), Layer::Run(&run)]);
    assert!(matches!(merge.next(), Some(Err(FileError::Damaged(_)))));
    assert!(merge.next().is_none());

    let mut chunks = Chunks::new(run.entries());
    assert!(matches!(chunks.next(), Some(Err(FileError::Damaged(_)))));
    assert!(chunks.next().is_none());

    let wanted = resolve(&[Layer::Run(&run)], VolumeIndex(0), 0, Sequence(1));
    assert!(matches!(wanted, Err(FileError::Damaged(_))));
}

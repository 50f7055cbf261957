//! Runs as they are written and read, and as they are damaged.
#![expect(clippy::cast_possible_truncation, reason = "test volumes are small")]

mod damage;
mod scale;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::{ChainId, Sequence, VolumeIndex};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{NodeCache, Run, RunError, RunSummary, RunWriter};
use crate::{
    damage::FileError,
    entry::{
        CHUNK_BYTES, Entry, VersionKey,
        samples::{IDENTITY, entry},
    },
    format::{FormatError, Identity},
    storage::{Disk, LocalStorage},
};

/// A run in a directory of its own.
struct Written {
    directory: TempDir,
    summary: RunSummary,
}

impl Written {
    fn new(entries: &[Entry], attachment: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(&directory.path().join("run"), 7);
        entries.iter().for_each(|entry| writer.push(entry).unwrap());
        let summary = writer.finish(attachment).unwrap();
        Self { directory, summary }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn open_as(&self, identity: Identity, summary: &RunSummary) -> Result<Run, FileError> {
        let cache = Arc::new(NodeCache::new(1 << 20));
        Run::open(&self.path(), identity, summary, cache)
    }

    fn open(&self) -> Result<Run, FileError> {
        self.open_as(IDENTITY, &self.summary)
    }

    /// Whether opening and checking finds nothing.
    fn check(&self) -> Result<(), FileError> {
        self.open()?.check()
    }
}

fn writer(path: &Path, number: u64) -> RunWriter {
    let disk = Disk::new(Arc::new(LocalStorage));
    RunWriter::create(&disk, path, IDENTITY, number).unwrap()
}

/// Sorted entries: some chunks have many versions, some versions many entries.
fn entries(count: usize, seed: u64) -> Vec<Entry> {
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut made = std::collections::BTreeMap::new();
    for number in 0_u32.. {
        let (volume, chunk) = (random(3), random(8) * random(60) * 1000);
        let sequence = if chunk.is_multiple_of(5) {
            4
        } else {
            random(90) + 1
        };
        let start = chunk * CHUNK_BYTES + random(CHUNK_BYTES / 16) * 16;
        let entry = entry(number, volume as u32, sequence, start, random(16) as u32 + 1);
        made.insert(entry.key(), entry);
        if made.len() == count {
            break;
        }
    }
    made.into_values().collect()
}

fn read_all(run: &Run) -> Vec<Entry> {
    run.entries().map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_seek_finds_what_a_sorted_list_has(
        count in 1_usize..3000,
        seed: u64,
        asked in prop::collection::vec((0_u32..4, 0_u64..8, 0_u64..60, 0_u64..100), 50),
    ) {
        let entries = entries(count, seed);
        let run = Written::new(&entries, b"").open().unwrap();
        prop_assert_eq!(&read_all(&run), &entries);
        let exact = entries.iter().step_by(1 + count / 40).map(|entry| (entry.volume, entry.chunk(), entry.sequence));
        let random = asked.iter().map(|(volume, a, b, sequence)| (VolumeIndex(*volume), a * b * 1000, Sequence(*sequence)));
        for (volume, chunk, at_most) in exact.chain(random) {
            let from = entries.partition_point(|entry| entry.version() < VersionKey::new(volume, chunk, at_most));
            let found: Vec<_> = run.seek(volume, chunk, at_most).unwrap().take(400).map(Result::unwrap).collect();
            prop_assert_eq!(&found, &entries[from..entries.len().min(from + 400)]);
        }
        run.check().unwrap();
    }
}

#[test]
fn the_summary_says_what_was_written() {
    let entries = entries(1000, 1);
    let written = Written::new(&entries, b"usage and proofs");
    let summary = written.summary;
    assert_eq!((summary.number, summary.entries, summary.levels), (7, 1000, 2));
    let sequences = || entries.iter().map(|entry| entry.sequence);
    assert_eq!(summary.first_sequence, sequences().min().unwrap());
    assert_eq!(summary.last_sequence, sequences().max().unwrap());
    assert_eq!(summary.file_bytes, written.path().metadata().unwrap().len());
    assert_eq!(summary.file_bytes, 4096 + 7 * 8192 + 16);
    let run = written.open().unwrap();
    assert_eq!(run.attachment().unwrap(), b"usage and proofs");
    assert_eq!(run.summary(), &summary);
}

#[test]
fn a_run_of_any_small_size_is_whole() {
    for count in [0, 1, 2, 169, 170, 171, 339, 340, 341, 510, 511] {
        let entries = if count == 0 { Vec::new() } else { entries(count, 9) };
        let written = Written::new(&entries, &[]);
        written.check().unwrap();
        let run = written.open().unwrap();
        assert_eq!(read_all(&run), entries);
        assert_eq!(run.attachment().unwrap(), b"");
        let mut from_start = run.seek(VolumeIndex(0), 0, Sequence(u64::MAX)).unwrap();
        assert_eq!(from_start.next().transpose().unwrap(), entries.first().copied());
        let mut behind = run.seek(VolumeIndex(u32::MAX), u64::MAX, Sequence(0)).unwrap();
        assert!(behind.next().is_none());
    }
}

#[test]
fn what_comes_out_of_order_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused: [(Entry, Entry); 5] = [
        (entry(1, 0, 5, 4096, 4096), entry(2, 0, 5, 0, 4096)),
        (entry(1, 0, 5, 4096, 4096), entry(2, 0, 5, 8191, 4096)),
        (entry(1, 0, 5, 4096, 4096), entry(2, 0, 6, 4096, 4096)),
        (entry(1, 0, 5, 65536, 4096), entry(2, 0, 5, 0, 4096)),
        (entry(1, 1, 5, 0, 4096), entry(2, 0, 5, 0, 4096)),
    ];
    for (first, second) in refused {
        let mut writer = writer(&directory.path().join("run"), 1);
        writer.push(&first).unwrap();
        assert!(matches!(writer.push(&second), Err(RunError::Order { start, .. }) if start == second.start));
    }
    let mut impossible = entry(1, 0, 5, 0, 4096);
    impossible.length = 0;
    let mut writer = writer(&directory.path().join("run"), 1);
    assert!(matches!(
        writer.push(&impossible),
        Err(RunError::Entry(FormatError::Bounds { field: "length" }))
    ));
}

#[test]
fn a_run_of_another_chain_or_number_is_not_believed() {
    let written = Written::new(&entries(10, 3), b"");
    let other_chain = Identity {
        chain: ChainId::from_bytes([9; 16]),
        ..IDENTITY
    };
    let other_number = RunSummary {
        number: 8,
        ..written.summary
    };
    for (identity, summary, expected) in [
        (other_chain, written.summary, "chain"),
        (IDENTITY, other_number, "run number"),
    ] {
        match written.open_as(identity, &summary) {
            Err(FileError::Damaged(damaged)) => {
                assert!(matches!(damaged.source, FormatError::Identity { field } if field == expected));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unlinked_run_stays_readable() {
    let entries = entries(2000, 5);
    let written = Written::new(&entries, b"attached");
    let run = written.open().unwrap();
    std::fs::remove_file(written.path()).unwrap();
    assert_eq!(read_all(&run), entries);
    assert_eq!(run.attachment().unwrap(), b"attached");
    run.check().unwrap();
}

#[test]
fn what_is_cached_is_not_read_again_but_a_check_reads_the_file() {
    let entries = entries(2000, 5);
    let written = Written::new(&entries, b"");
    let run = written.open().unwrap();
    let seek = || run.seek(VolumeIndex(0), 0, Sequence(u64::MAX)).unwrap();
    assert!(seek().all(|entry| entry.is_ok()));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(written.path())
        .unwrap();
    file.set_len(0).unwrap();
    assert_eq!(seek().map(Result::unwrap).collect::<Vec<_>>(), entries);
    assert!(run.check().is_err());
}

#[test]
fn the_cache_stays_within_its_bound_and_shares_it_between_runs() {
    let cache = Arc::new(NodeCache::new(300_000));
    let (first, second) = (entries(20_000, 1), entries(20_000, 2));
    let runs: Vec<_> = [&first, &second]
        .map(|entries| Written::new(entries, b""))
        .into_iter()
        .map(|written| Run::open(&written.path(), IDENTITY, &written.summary, Arc::clone(&cache)).unwrap())
        .collect();
    // Both have number 7, as if a number had been used again: neither may see the other's nodes.
    for round in 0..3 {
        for (run, entries) in runs.iter().zip([&first, &second]) {
            for wanted in entries.iter().skip(round).step_by(97) {
                let mut found = run.seek(wanted.volume, wanted.chunk(), wanted.sequence).unwrap();
                let version = found.next().unwrap().unwrap().version();
                assert_eq!(version, wanted.version());
                assert!(cache.held_bytes() <= 300_000);
            }
        }
    }
    assert!(cache.held_bytes() > 200_000, "it does cache");
}

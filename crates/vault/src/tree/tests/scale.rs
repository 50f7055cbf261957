//! A run of a million entries (fewer where the code is not optimised).

use super::*;

const ENTRIES: u32 = if cfg!(debug_assertions) {
    150_000
} else {
    1_000_000
};
/// What a writer may hold: its buffer, and a node for each level.
const WRITER_BYTES: usize = (1 << 20) + 8 * 16384;

/// 16 blocks of 4 KiB in each chunk, each in two versions.
fn nth(number: u32) -> Entry {
    let (chunk, within) = (u64::from(number / 32), number % 32);
    let sequence = if within < 16 { 2 } else { 1 };
    let start = chunk * CHUNK_BYTES + u64::from(within % 16) * 4096;
    entry(number, 0, sequence, start, 4096)
}

fn build(path: &Path) -> RunSummary {
    let mut writer = writer(path, 7);
    for number in 0..ENTRIES {
        writer.push(&nth(number)).unwrap();
        assert!(writer.memory_bytes() <= WRITER_BYTES);
    }
    writer.finish(b"").unwrap()
}

#[test]
fn a_large_run_is_written_in_bounded_memory_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let summary = build(&path);
    assert_eq!((summary.entries, summary.levels), (u64::from(ENTRIES), 3));
    let cache = Arc::new(NodeCache::new(1 << 20));
    let run = Run::open(&path, IDENTITY, &summary, Arc::clone(&cache)).unwrap();
    run.check().unwrap();
    assert_eq!(cache.held_bytes(), 0, "a check does not fill the cache");
    let mut expected = 0;
    for read in run.entries() {
        assert_eq!(read.unwrap(), nth(expected));
        expected += 1;
    }
    assert_eq!(expected, ENTRIES);
    assert_eq!(cache.held_bytes(), 0, "nor does a walk over everything");
    for number in (0..ENTRIES).step_by(7919) {
        let wanted = nth(number);
        let mut found = run.seek(wanted.volume, wanted.chunk(), wanted.sequence).unwrap();
        let first = nth(number - number % 16);
        assert_eq!(found.next().unwrap().unwrap(), first);
    }
}

/// `cargo test --release -p farshore-vault -- --ignored --nocapture seeks_per_second`
#[test]
#[ignore = "a measurement, not a check"]
fn seeks_per_second() {
    use crate::versions::{Layer, resolve};
    use std::time::Instant;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let began = Instant::now();
    let summary = build(&path);
    println!("written: {} entries, {:?}", summary.entries, began.elapsed());
    let cache = Arc::new(NodeCache::new(256 << 20));
    let run = Run::open(&path, IDENTITY, &summary, Arc::clone(&cache)).unwrap();
    let began = Instant::now();
    assert_eq!(run.entries().count(), ENTRIES as usize);
    println!("walked: {:?}", began.elapsed());
    run.seek(VolumeIndex(0), 0, Sequence(9)).unwrap().for_each(drop);
    println!("cached: {} bytes", cache.held_bytes());

    let count: u32 = 2_000_000;
    let chunks = u64::from(ENTRIES / 32);
    let seeks = |mut seed: u64| {
        for _ in 0..count {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let chunk = (seed >> 33) % chunks;
            let mut cursor = run.seek(VolumeIndex(0), chunk, Sequence(1)).unwrap();
            assert_eq!(cursor.next().unwrap().unwrap().chunk(), chunk);
        }
    };
    let began = Instant::now();
    seeks(1);
    let one = f64::from(count) / began.elapsed().as_secs_f64();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || seeks(seed));
        }
    });
    let two = 2.0 * f64::from(count) / began.elapsed().as_secs_f64();
    let began = Instant::now();
    for number in 0..count {
        let chunk = u64::from(number) * 7919 % chunks;
        let visible = resolve(&[Layer::Run(&run)], VolumeIndex(0), chunk, Sequence(1)).unwrap();
        assert_eq!(visible.len(), 16);
    }
    let resolved = f64::from(count) / began.elapsed().as_secs_f64();
    println!("seeks/s: {one:.0} on one thread, {two:.0} on two; chunks resolved/s: {resolved:.0}");
}

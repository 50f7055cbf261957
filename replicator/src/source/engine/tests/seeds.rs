//! First scans with a seed: only what differs travels, whatever happens to the seed and to the wire.

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use farshore_provider::{Capture, CaptureKind};
use farshore_transfer::Change;

use super::*;
use crate::{
    source::{
        seeding::Seed,
        tuning::Tuning,
        worklist::{Purpose, Worklist},
    },
    target::ChainSeeds,
};

const BLOCK: usize = 65536;

/// A target with files that are older copies of both disks.
struct Seeded {
    target: Target,
    epoch: Epoch,
    files: [PathBuf; 2],
}

impl Seeded {
    async fn start(directory: &Path, older: &[Vec<u8>]) -> Self {
        let target = Target::start(directory).await;
        let epoch = target.prepare();
        let files = ["root", "data"].map(|name| directory.join(format!("{name}.old")));
        for (file, bytes) in files.iter().zip(older) {
            fs::write(file, bytes).unwrap();
        }
        let volumes = ["root", "data"].map(str::to_owned).into_iter().zip(files.clone());
        let seeds = ChainSeeds {
            volumes: volumes.collect(),
        };
        target.targets.keep_seeds(CHAIN, &seeds).unwrap();
        Self { target, epoch, files }
    }

    fn keeps_seeds(&self, directory: &Path) -> bool {
        directory.join(format!("target/seeds/{CHAIN}.json")).exists()
    }
}

/// Raw bytes that were shipped with this encoding.
fn shipped(metrics: &Metrics, encoding: &str) -> u64 {
    let label = format!("farshore_replicated_bytes_total{{encoding=\"{encoding}\",vm=\"vm\"}} ");
    value(metrics, &label)
}

/// Raw bytes that travelled, compressed or not.
fn carried(metrics: &Metrics) -> u64 {
    shipped(metrics, "raw") + shipped(metrics, "zstd")
}

fn on_the_wire(metrics: &Metrics) -> u64 {
    value(metrics, "farshore_wire_bytes_total ")
}

fn value(metrics: &Metrics, label: &str) -> u64 {
    let text = metrics.render().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.map_or(0, |value| value.parse().unwrap())
}

fn filled() -> Arc<MemoryVm> {
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    vm
}

#[tokio::test(flavor = "multi_thread")]
async fn only_blocks_that_differ_from_the_seed_travel_and_it_is_forgotten_with_the_first_point() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let older = vm.disks();
    vm.write(0, 5, 0xee);
    vm.write(1, 300, 0xee);
    vm.write(1, 301, 0);
    let seeded = Seeded::start(directory.path(), &older).await;
    assert!(seeded.keeps_seeds(directory.path()));
    let mut running = Running::start(&vm, assignment(&seeded.target.endpoint, seeded.epoch));
    let metrics = running.metrics.clone();
    running.point(1).await;
    let disk = DISK_BYTES as u64;
    assert_eq!(shipped(&metrics, "raw"), 2 * BLOCK as u64);
    assert_eq!(shipped(&metrics, "seed"), 2 * disk - 2 * BLOCK as u64);
    let digests = 32 * (2 * disk / BLOCK as u64 - 2);
    assert_eq!(on_the_wire(&metrics), 2 * BLOCK as u64 + digests);
    assert!(!seeded.keeps_seeds(directory.path()));
    vm.write_randomly(10);
    running.point(2).await;
    running.stop().await;
    assert_every_point_is_true(&seeded.target, &vm);
    seeded.target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_short_or_gone_saves_what_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let mut older = vm.disks();
    // Its last block is not whole.
    older[0].truncate(3 * BLOCK + 100);
    let seeded = Seeded::start(directory.path(), &older).await;
    fs::remove_file(&seeded.files[1]).unwrap();
    let mut running = Running::start(&vm, assignment(&seeded.target.endpoint, seeded.epoch));
    let metrics = running.metrics.clone();
    running.point(1).await;
    running.stop().await;
    assert_eq!(shipped(&metrics, "seed"), 3 * BLOCK as u64);
    assert_every_point_is_true(&seeded.target, &vm);
    assert!(!seeded.keeps_seeds(directory.path()));
    seeded.target.stop().await;
}

/// Spoils the second half of the first disk's seed after the source was told what is there, and gives how many bytes of the disks travelled.
async fn carried_if_the_seed_is_spoilt(spoil: impl FnOnce(&fs::File)) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let mut older = vm.disks();
    older[0][..DISK_BYTES / 2].fill(0xee);
    let seeded = Seeded::start(directory.path(), &older).await;
    let slow = Assignment {
        bandwidth: Some(ByteCount(1024 * 1024)),
        ..assignment(&seeded.target.endpoint, seeded.epoch)
    };
    let mut running = Running::start(&vm, slow);
    let metrics = running.metrics.clone();
    running
        .until("some of the scan", |state| state.sync_done.0 > 0)
        .await;
    let file = fs::File::options().write(true).open(&seeded.files[0]).unwrap();
    assert_eq!(shipped(&metrics, "seed"), 0, "it is spoilt too late");
    spoil(&file);
    running.point(1).await;
    running.stop().await;
    assert_every_point_is_true(&seeded.target, &vm);
    assert!(
        shipped(&metrics, "seed") >= DISK_BYTES as u64,
        "the other disk's seed is still used"
    );
    seeded.target.stop().await;
    carried(&metrics)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_seed_no_longer_has_travels_after_all_and_the_point_is_true() {
    let disk = DISK_BYTES as u64;
    let carried = carried_if_the_seed_is_spoilt(|seed| {
        for block in disk / 2 / 4096..disk / 4096 {
            seed.write_all_at(&[7; 10], block * 4096).unwrap();
        }
    })
    .await;
    assert_eq!(carried, disk, "all of the first disk, and nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_a_seed_can_no_longer_be_read_travels_after_all_and_the_point_is_true() {
    let disk = DISK_BYTES as u64;
    let carried = carried_if_the_seed_is_spoilt(|seed| seed.set_len(disk / 2).unwrap()).await;
    assert_eq!(carried, disk, "all of the first disk, and nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_no_longer_tells_of_its_seed_gets_the_bytes_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let mut older = vm.disks();
    older[0].fill(0xee);
    let seeded = Seeded::start(directory.path(), &older).await;
    let slow = Assignment {
        bandwidth: Some(ByteCount(2 * 1024 * 1024)),
        ..assignment(&seeded.target.endpoint, seeded.epoch)
    };
    let mut running = Running::start(&vm, slow);
    let metrics = running.metrics.clone();
    running
        .until("some of the scan", |state| state.sync_done.0 > 0)
        .await;
    seeded.target.targets.forget_seeds(CHAIN).unwrap();
    running.point(1).await;
    running.stop().await;
    assert_eq!(
        shipped(&metrics, "seed"),
        0,
        "the second disk was not asked for in time"
    );
    assert_eq!(carried(&metrics), 2 * DISK_BYTES as u64);
    assert_every_point_is_true(&seeded.target, &vm);
    seeded.target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_with_a_seed_goes_on_whenever_the_wire_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let older = vm.disks();
    vm.write_randomly(60);
    let seeded = Seeded::start(directory.path(), &older).await;
    let cutter = WireCutter::start(&seeded.target.endpoint, 150_000).await;
    let mut running = Running::start(&vm, assignment(cutter.address(), seeded.epoch));
    let metrics = running.metrics.clone();
    running.point(1).await;
    running.stop().await;
    assert!(cutter.cuts() >= 3, "the wire was cut {} times", cutter.cuts());
    assert!(shipped(&metrics, "seed") > 0);
    assert_every_point_is_true(&seeded.target, &vm);
    seeded.target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_and_a_source_that_restart_go_on_with_the_seed() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let mut older = vm.disks();
    // Half of the first disk differs, so that the scan takes a while.
    older[0][..DISK_BYTES / 2].fill(0xee);
    let seeded = Seeded::start(directory.path(), &older).await;
    let cutter = WireCutter::start(&seeded.target.endpoint, u64::MAX).await;
    let slow = Assignment {
        bandwidth: Some(ByteCount(1024 * 1024)),
        ..assignment(cutter.address(), seeded.epoch)
    };
    let mut first = Running::start(&vm, slow.clone());
    first
        .until("some of the scan", |state| state.sync_done.0 > 0)
        .await;
    first.task.abort();
    seeded.target.stop().await;
    let target = Target::start(directory.path()).await;
    cutter.redirect(&target.endpoint);
    let mut second = Running::start(&vm, slow);
    let metrics = second.metrics.clone();
    second.point(1).await;
    second.stop().await;
    assert!(
        shipped(&metrics, "seed") >= DISK_BYTES as u64,
        "the seed is still used"
    );
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_keeps_changing_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let seeded = Seeded::start(directory.path(), &vm.disks()).await;
    let assignment = assignment(&seeded.target.endpoint, seeded.epoch);
    let reach = Reach::of(&assignment, &Offers::default());
    let link = Link::open(&assignment, &reach).await.unwrap();
    let mut seed = Seed::named_by(&link.welcome, &assignment, &reach)
        .unwrap()
        .unwrap();
    let mut source = MemorySource::new(Arc::clone(&vm));
    source.begin_scan(Sequence(1)).await.unwrap();
    let capture = source.begin(CaptureKind::Scan, Sequence(1)).await.unwrap();
    let batch = Worklist::new(Purpose::SeedScan, capture.volumes(), &[]).next_batch();
    let batch = batch.unwrap();
    let (packers, tuning) = (Packers::new(), Tuning::new(Duration::from_millis(1)));
    for given_up in [false, true] {
        let read = seed.read("vm", (&capture, &batch), (&packers, &tuning)).await;
        for change in read.unwrap() {
            assert_eq!(matches!(change, Change::Sent(_)), given_up);
        }
        for _ in 0..8 {
            seed.has_changed("vm");
        }
    }
    seeded.target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_disks_grew_by_since_their_target_was_prepared_is_taken_from_the_seed_too() {
    let directory = tempfile::tempdir().unwrap();
    let vm = MemoryVm::new(DISK_BYTES);
    for disk in 0..2 {
        vm.grow(disk, 100);
    }
    vm.fill();
    let seeded = Seeded::start(directory.path(), &vm.disks()).await;
    let mut running = Running::start(&vm, assignment(&seeded.target.endpoint, seeded.epoch));
    let metrics = running.metrics.clone();
    running.point(1).await;
    running.stop().await;
    assert_eq!(shipped(&metrics, "seed"), 2 * (DISK_BYTES + 100 * 4096) as u64);
    assert_eq!(carried(&metrics), 0);
    assert_every_point_is_true(&seeded.target, &vm);
    seeded.target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_joins_in_the_middle_of_a_seeded_scan_is_whole_in_the_first_point() {
    let directory = tempfile::tempdir().unwrap();
    let vm = filled();
    let mut older = vm.disks();
    older[1][..DISK_BYTES / 2].fill(0xee);
    let seeded = Seeded::start(directory.path(), &older).await;
    let slow = Assignment {
        bandwidth: Some(ByteCount(1024 * 1024)),
        ..assignment(&seeded.target.endpoint, seeded.epoch)
    };
    let mut running = Running::start(&vm, slow.clone());
    running
        .until("some of the scan", |state| state.sync_done.0 > 0)
        .await;
    running.stop().await;
    assert_eq!(seeded.target.newest(), None);
    vm.add_disk(100);
    vm.write(2, 50, 7);
    let mut volumes = slow.volumes.clone();
    volumes.push(AssignedVolume {
        name: "new".to_owned(),
        size: ByteCount(100 * 4096),
    });
    let source = MemorySource::declaring(Arc::clone(&vm), vec![0, 1, 2]);
    let mut running = Running::start_of(source, Assignment { volumes, ..slow });
    let metrics = running.metrics.clone();
    running.point(1).await;
    running.stop().await;
    assert!(shipped(&metrics, "seed") > 0, "the seed was given up");
    let first = seeded.target.disks_at(Sequence(1));
    assert!(first == vm.disks(), "the first point is not the disks");
    assert!(!seeded.keeps_seeds(directory.path()));
    seeded.target.stop().await;
}

//! The upkeep of a real vault, driven round by round on a clock that the tests move.

use std::{
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use farshore_blocks::{ByteOffset, ChangeHasher, Digest, Epoch, Frame, HolderNonce, Sequence, VolumeIndex};
use farshore_vault::{
    ChainDescription, ChainWriter, CycleBegin, CycleKind, Pin, PinRefused, PointKind, RetentionPolicy,
    SealRequest, Vault, VolumeDescription,
};
use tempfile::TempDir;

use super::*;
use crate::{configuration::BytesPerSecond, metrics::Metrics, target::NewestNeeds};
use farshore_blocks::ChainId;

const CHAIN: ChainId = ChainId::from_bytes([3; 16]);
const MIB: u64 = 1 << 20;
/// So many messages a point, each a group of its own, that three points are more than may stay out of the index.
const MESSAGES: u64 = 1000;
const FRAME_BYTES: u64 = 4096;
/// In this many rounds of a scrub of 1 MiB a second everything is read more than twice.
const ROUNDS: usize = 12;
/// The largest group of a pack, with its directory: what a turn may read over.
const LARGEST_GROUP: u64 = 4 * MIB + MIB / 2;
const LIMIT: Duration = Duration::from_secs(60);

struct Fixture {
    targets: Targets,
    epoch: Epoch,
    metrics: Metrics,
    rates: VaultUpkeep,
    uptime: Arc<AtomicU64>,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::create(&directory.path().join("vault")).unwrap();
        let targets = Targets::open(vault, &directory.path().join("state")).unwrap();
        let description = ChainDescription {
            vm: "db".to_owned(),
            volumes: vec![VolumeDescription {
                name: "root".to_owned(),
                size: ByteCount(16 * MIB),
            }],
        };
        let holder = HolderNonce::from_bytes([1; 16]);
        let epoch = targets.prepare(CHAIN, &description, holder).unwrap();
        Self {
            targets,
            epoch,
            metrics: Metrics::new().unwrap(),
            rates: VaultUpkeep {
                scrub_rate: rate(MIB),
                maintenance_rate: rate(u64::MAX),
            },
            uptime: Arc::default(),
            directory,
        }
    }

    fn rounds(&self) -> Rounds {
        let uptime = Arc::clone(&self.uptime);
        Rounds::new(Means {
            targets: self.targets.clone(),
            rates: self.rates,
            metrics: self.metrics.vault().clone(),
            switch: StopSwitch::default(),
            uptime: Arc::new(move || Duration::from_secs(uptime.load(Ordering::Relaxed))),
        })
    }

    fn round(&self, rounds: &mut Rounds) {
        self.uptime.fetch_add(3, Ordering::Relaxed);
        rounds.go(WallTime::now());
    }

    /// Two segments: of the two points in the first, the older is overwritten, and the three in the second let the
    /// first be settled.
    fn seal_two_segments(&self) {
        self.seal(2);
        self.seal(3);
    }

    /// Seals points of 4 MiB each: the first two over one another, and later ones beside them.
    fn seal(&self, points: u64) {
        let mut writer = self.targets.vault().chain_writer(CHAIN).unwrap();
        for _ in 0..points {
            let request = self.write(&mut writer, MESSAGES);
            let point = writer.seal(&request).unwrap();
            self.targets.sealed(CHAIN, &point);
        }
        // What a cycle that is given up wrote ends the segment.
        let given_up = self.write(&mut writer, 1);
        writer.sync().unwrap();
        writer.abandon(self.epoch, given_up.cycle).unwrap();
    }

    fn write(&self, writer: &mut ChainWriter, messages: u64) -> SealRequest {
        let base = writer.head().newest;
        let cycle = base.as_ref().map_or(0, |base| base.sequence.0) + 1;
        let kind = if base.is_some() {
            CycleKind::Delta
        } else {
            CycleKind::Base
        };
        let begin = CycleBegin {
            epoch: self.epoch,
            cycle,
            base: base.as_ref().map(|point| point.as_base()),
            kind,
        };
        let open = writer.begin(&begin).unwrap();
        let mut hasher = ChangeHasher::default();
        let beside = if cycle > 2 { 4 * MIB } else { 0 };
        for message in 1..=messages {
            let (volume, offset) = (VolumeIndex(0), ByteOffset(beside + message * FRAME_BYTES));
            let byte = u8::try_from((message + cycle * 7) % 251).unwrap() + 1;
            let raw = vec![byte; usize::try_from(FRAME_BYTES).unwrap()];
            let frame = Frame::from_raw(volume, offset, raw.into()).unwrap();
            hasher.update(volume, offset, frame.raw_length(), &frame.raw_digest());
            writer.append(self.epoch, message, &[frame], &[]).unwrap();
        }
        SealRequest {
            epoch: self.epoch,
            cycle,
            sequence: open.sequence,
            captured_at: WallTime(1_700_000_000_000_000_000 + cycle * 3_600_000_000_000),
            clock_offset_nanoseconds: 0,
            clock_uncertainty: Duration::ZERO,
            kind: PointKind::CrashConsistent,
            machine: Vec::new(),
            parent: base.map_or(Digest::default(), |point| point.digest),
            changes: vec![hasher.digest()],
            messages,
        }
    }

    fn keep_only_the_newest(&self) {
        let policy = RetentionPolicy {
            keep_all: Duration::ZERO,
            daily: 0,
            weekly: 0,
            ..RetentionPolicy::default()
        };
        self.targets.set_retention(CHAIN, policy).unwrap();
    }

    fn points(&self) -> u64 {
        self.targets.standings()[0].1.points
    }

    fn used_bytes(&self) -> u64 {
        self.targets.vault().used_bytes().unwrap().0
    }

    fn shows(&self, series: &str) -> bool {
        self.metrics.render().unwrap().lines().any(|line| line == series)
    }

    fn value(&self, series: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap();
        line.trim().parse().unwrap()
    }
}

fn rate(bytes: u64) -> BytesPerSecond {
    BytesPerSecond(NonZeroU64::new(bytes).unwrap())
}

/// The largest file below: a segment full of frames.
fn largest(directory: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(entry.path()),
                false => files.push((entry.metadata().unwrap().len(), entry.path())),
            }
        }
    }
    files.into_iter().max().unwrap().1
}

/// Changes one byte of a frame.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let is_frame = |bytes: &[u8]| bytes[0] != 0 && bytes.iter().all(|byte| *byte == bytes[0]);
    let middle = bytes.len() / 2;
    let length = usize::try_from(FRAME_BYTES).unwrap() / 2;
    let in_frame = bytes[middle..].windows(length).position(is_frame).unwrap();
    bytes[middle + in_frame] ^= 0xff;
    // In place, so that a file that is open is the file that changes.
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_the_policy_lets_go_goes_and_its_space_is_given_back() {
    let at = Fixture::new();
    at.seal_two_segments();
    let mut rounds = at.rounds();
    at.round(&mut rounds);
    assert_eq!(at.points(), 5, "nothing goes before a policy was told");

    at.keep_only_the_newest();
    let before = at.used_bytes();
    at.round(&mut rounds);
    assert_eq!(at.points(), 1);
    let newest = at.targets.standings()[0].1.newest.clone().unwrap();
    assert_eq!(newest.sequence, Sequence(5));
    let left: Vec<_> = at.targets.reader().points(CHAIN).unwrap();
    assert_eq!(left, [newest]);
    let after = at.used_bytes();
    assert!(after + 8 * MIB < before, "{after} of {before}");

    assert!(at.shows("farshore_vault_points_dropped_total 4"));
    assert!(at.value("farshore_vault_maintenance_bytes_total{what=\"given_back\"}") > 8 * MIB);
    assert!(at.value("farshore_vault_maintenance_bytes_total{what=\"written\"}") > 4 * MIB);
}

#[test]
fn a_chain_is_thinned_once_a_minute() {
    let at = Fixture::new();
    at.seal(1);
    at.keep_only_the_newest();
    let mut rounds = at.rounds();
    at.round(&mut rounds);
    at.seal(1);
    at.round(&mut rounds);
    assert_eq!(at.points(), 2, "it was thinned just now");
    at.uptime.fetch_add(60, Ordering::Relaxed);
    at.round(&mut rounds);
    assert_eq!(at.points(), 1);
}

#[test]
fn a_point_that_is_pinned_or_locked_stays() {
    let at = Fixture::new();
    at.seal(3);
    at.keep_only_the_newest();
    let lock = Pin::LockedUntil(WallTime(u64::MAX));
    at.targets.set_pin(CHAIN, Sequence(1), Some(Pin::Pinned)).unwrap();
    at.targets.set_pin(CHAIN, Sequence(2), Some(lock)).unwrap();
    let mut rounds = at.rounds();
    at.round(&mut rounds);
    assert_eq!(at.points(), 3);
    at.targets.set_pin(CHAIN, Sequence(1), None).unwrap();
    let refused = at.targets.set_pin(CHAIN, Sequence(2), None);
    assert!(matches!(refused, Err(PinRefused::Locked { .. })), "{refused:?}");
    at.uptime.fetch_add(60, Ordering::Relaxed);
    at.round(&mut rounds);
    let left = at.targets.reader().points(CHAIN).unwrap();
    let left: Vec<_> = left.iter().map(|point| point.sequence).collect();
    assert_eq!(left, [Sequence(2), Sequence(3)]);
}

#[test]
fn a_flipped_byte_is_found_and_told_until_it_is_as_it_was() {
    let at = Fixture::new();
    at.seal(1);
    let mut rounds = at.rounds();
    (0..ROUNDS).for_each(|_| at.round(&mut rounds));
    assert!(at.shows("farshore_vault_damaged_places{vm=\"db\"} 0"));
    assert!(at.value("farshore_vault_scrub_passes_total") > 0);
    assert!(at.value("farshore_vault_scrubbed_bytes_total") >= MESSAGES * FRAME_BYTES);

    let segment = largest(at.directory.path());
    let sound = fs::read(&segment).unwrap();
    flip(&segment);
    (0..ROUNDS).for_each(|_| at.round(&mut rounds));
    let damage = at.targets.damage(CHAIN);
    assert_eq!(damage.total(), 1);
    let place = damage.places().next().unwrap();
    let file = segment.strip_prefix(at.targets.vault().path()).unwrap();
    assert_eq!(place.whereabouts.file, file.display().to_string());
    let (volume, offset) = place.whereabouts.volume.clone().unwrap();
    assert_eq!(volume, "root");
    assert!(offset > 0 && offset < (MESSAGES + 1) * FRAME_BYTES, "{offset}");
    assert_eq!(
        (place.first, place.last, place.points),
        (Sequence(1), Sequence(1), 1)
    );
    assert_eq!(place.newest, NewestNeeds::Yes);
    assert!(at.shows("farshore_vault_damaged_places{vm=\"db\"} 1"));

    fs::write(&segment, sound).unwrap();
    (0..ROUNDS).for_each(|_| at.round(&mut rounds));
    assert_eq!(at.targets.damage(CHAIN).total(), 0);
    assert!(at.shows("farshore_vault_damaged_places{vm=\"db\"} 0"));
}

#[test]
fn a_damaged_index_is_found_and_made_again() {
    let at = Fixture::new();
    at.seal(1);
    let mut rounds = at.rounds();
    at.round(&mut rounds);
    let runs = largest(at.directory.path());
    let runs = runs.parent().unwrap().with_file_name("runs");
    let run = largest(&runs);
    let mut bytes = fs::read(&run).unwrap();
    bytes[5000] ^= 1;
    fs::write(&run, bytes).unwrap();
    (0..2 * ROUNDS).for_each(|_| at.round(&mut rounds));
    assert!(!run.exists(), "another is in its place");
    assert_eq!(at.targets.damage(CHAIN).total(), 0);
    let report = farshore_vault::verify(at.targets.vault().path(), |_| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_chain_without_a_policy_is_maintained_as_well() {
    let at = Fixture::new();
    at.seal(3);
    at.round(&mut at.rounds());
    assert!(at.value("farshore_vault_maintenance_bytes_total{what=\"written\"}") > 0);
    assert_eq!(at.points(), 3);
}

#[test]
fn the_scrub_reads_no_faster_than_it_may() {
    let at = Fixture::new();
    at.seal(3);
    let mut rounds = at.rounds();
    for round in 1..=4u64 {
        at.round(&mut rounds);
        let read = at.value("farshore_vault_scrubbed_bytes_total");
        // The last turn may read over by one group, and pays for it before the next.
        assert!(read <= round * 3 * MIB + LARGEST_GROUP, "{read} in round {round}");
    }
    assert!(at.value("farshore_vault_scrubbed_bytes_total") >= 10 * MIB);
    // A day of suspension is not made up for.
    let before = at.value("farshore_vault_scrubbed_bytes_total");
    at.uptime.fetch_add(24 * 3600, Ordering::Relaxed);
    at.round(&mut rounds);
    let read = at.value("farshore_vault_scrubbed_bytes_total") - before;
    assert!(read <= 10 * MIB + LARGEST_GROUP, "{read}");
}

#[tokio::test]
async fn the_thread_is_stopped_in_the_middle_of_its_work() {
    let mut at = Fixture::new();
    at.seal_two_segments();
    at.keep_only_the_newest();
    let before = at.used_bytes();
    // At a byte a second a pass would take months.
    at.rates.maintenance_rate = rate(1);
    let metrics = at.metrics.vault().clone();
    let upkeep = Upkeep::start(at.targets.clone(), at.rates, metrics).unwrap();
    let thinned = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while at.points() > 1 {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, thinned).await.unwrap();
    tokio::time::timeout(LIMIT, upkeep.stop()).await.unwrap();
    assert!(at.used_bytes() + MIB > before, "it was in the middle of its work");
    // The thread has let the vault go.
    let Fixture {
        targets, directory, ..
    } = at;
    drop(targets);
    let vault = Vault::open(&directory.path().join("vault")).unwrap();
    let again = Targets::open(vault, &directory.path().join("state")).unwrap();
    assert_eq!(again.standings()[0].1.points, 1);
}

#[test]
fn how_long_a_point_stayed_valid_is_known_after_a_restart() {
    let at = Fixture::new();
    at.seal(1);
    let newest = at.targets.standings()[0].1.newest.clone().unwrap();
    let later = |seconds: u64| WallTime(newest.captured_at.0 + seconds * 1_000_000_000);
    for seconds in [10, 20, 39, 40, 60] {
        at.targets.still_valid(CHAIN, Some(Sequence(1)), later(seconds));
    }
    assert_eq!(at.targets.standings()[0].1.valid_through, Some(later(60)));
    // The vault was told at 10 and, 30 s later, at 40.
    assert_eq!(at.targets.reader().still_valid(CHAIN).unwrap(), Some(later(40)));
    let Fixture {
        targets, directory, ..
    } = at;
    drop(targets);
    let vault = Vault::open(&directory.path().join("vault")).unwrap();
    let again = Targets::open(vault, &directory.path().join("state")).unwrap();
    assert_eq!(again.standings()[0].1.valid_through, Some(later(40)));
}

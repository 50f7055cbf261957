//! What a source of raw disks knows of them, across captures and processes.

use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::FileExt,
    path::Path,
};

use farshore_blocks::{ChainId, Incarnation};
use tempfile::TempDir;

use super::*;

const IDENTITY: TrackingIdentity = TrackingIdentity {
    vault: Incarnation::from_bytes([1; 16]),
    chain: ChainId::from_bytes([2; 16]),
};

struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["a.raw", "b.raw"] {
            fs::write(machine.path(name), vec![1; 1 << 20]).unwrap();
            machine.rest(name, 100);
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn source(&self) -> RawSource {
        RawSource::new(RawSourceConfig {
            vm: "vm".to_owned(),
            disks: vec![self.path("a.raw"), self.path("b.raw")],
            directory: self.path("notes"),
        })
    }

    /// As if the last write had been so long ago, and was another than before.
    fn rest(&self, name: &str, seconds: u64) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(WallTime::now().0);
        let times = FileTimes::new().set_modified(then - Duration::from_secs(seconds));
        file.set_times(times).unwrap();
        wait_until_quiet(&self.path(name));
    }

    fn write(&self, name: &str) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.write_all_at(&[2; 4096], 0).unwrap();
    }
}

/// The time of a file's last change cannot be set.
fn wait_until_quiet(path: &Path) {
    let disk = RawDisk::open(path).unwrap();
    let deadline = WallTime::now().0 + 20_000_000_000;
    loop {
        let now = WallTime::now().0;
        assert!(now < deadline, "{} does not become quiet", path.display());
        if disk
            .is_quiet(SystemTime::UNIX_EPOCH + Duration::from_nanos(now))
            .unwrap()
        {
            return;
        }
        std::thread::yield_now();
    }
}

fn replica(newest: u64, scan: ScanState) -> ReplicaState {
    ReplicaState {
        newest: Sequence(newest),
        sizes: Vec::new(),
        scan,
    }
}

#[tokio::test]
async fn a_scan_of_quiet_disks_becomes_a_point_and_nothing_is_left() {
    let machine = Machine::new();
    let mut source = machine.source();
    let tracking = source
        .attach(IDENTITY, replica(0, ScanState::None))
        .await
        .unwrap();
    assert!(matches!(tracking, Tracking::Lost { .. }));
    source.begin_scan(Sequence(1)).await.unwrap();
    let scan = source.begin(CaptureKind::Scan, Sequence(1)).await.unwrap();
    assert_eq!(scan.volumes()[1].extents[0].extent.length().0, 1 << 20);
    let volume = scan.volumes()[0].index;
    let all = scan.volumes()[0].extents[0].extent;
    assert_eq!(scan.read(volume, all).await.unwrap(), vec![1; 1 << 20]);
    source.finish(scan, Outcome::Done).await.unwrap();
    assert_eq!(source.backlog().await.unwrap(), ByteCount(0));
    // Another process goes on with the same scan.
    let mut source = machine.source();
    let tracking = source
        .attach(IDENTITY, replica(0, ScanState::Open))
        .await
        .unwrap();
    assert_eq!(tracking, Tracking::SinceScan);
    let instant = source.begin(CaptureKind::Instant, Sequence(1)).await.unwrap();
    assert!(instant.knows_changes() && instant.volumes().iter().all(|volume| volume.extents.is_empty()));
    instant.confirm().await.unwrap();
    source.finish(instant, Outcome::Done).await.unwrap();
    assert_eq!(source.backlog().await.unwrap(), ByteCount(0));
    let mut source = machine.source();
    let tracking = source
        .attach(IDENTITY, replica(1, ScanState::None))
        .await
        .unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    assert_eq!(source.backlog().await.unwrap(), ByteCount(0));
}

#[tokio::test]
async fn a_write_makes_all_of_the_disks_candidates_and_not_changes() {
    let machine = Machine::new();
    let mut source = machine.source();
    let tracking = source
        .attach(IDENTITY, replica(4, ScanState::None))
        .await
        .unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    assert_eq!(source.backlog().await.unwrap(), ByteCount(2 << 20));
    let instant = source.begin(CaptureKind::Instant, Sequence(5)).await.unwrap();
    assert!(!instant.knows_changes());
    instant.confirm().await.unwrap();
    source.finish(instant, Outcome::Done).await.unwrap();
    assert_eq!(source.backlog().await.unwrap(), ByteCount(0));
    machine.write("b.raw");
    assert_eq!(source.backlog().await.unwrap(), ByteCount(2 << 20));
}

#[tokio::test]
async fn what_was_written_while_it_was_read_is_not_confirmed() {
    let machine = Machine::new();
    let mut source = machine.source();
    source
        .attach(IDENTITY, replica(4, ScanState::None))
        .await
        .unwrap();
    let instant = source.begin(CaptureKind::Instant, Sequence(5)).await.unwrap();
    machine.write("a.raw");
    let refused = instant.confirm().await.unwrap_err();
    assert!(matches!(refused, SourceError::TrackingLost { .. }), "{refused}");
    source.finish(instant, Outcome::Failed).await.unwrap();
    let too_soon = source.begin(CaptureKind::Instant, Sequence(5)).await;
    let Err(SourceError::Unfit { why, .. }) = too_soon else {
        panic!("a disk that is being written was captured")
    };
    assert!(why.contains("two seconds"), "{why}");
}

#[tokio::test]
async fn a_scan_of_a_disk_that_is_written_begins_anew() {
    let machine = Machine::new();
    let mut source = machine.source();
    source
        .attach(IDENTITY, replica(0, ScanState::None))
        .await
        .unwrap();
    source.begin_scan(Sequence(1)).await.unwrap();
    machine.write("a.raw");
    let backlog = source.backlog().await.unwrap_err();
    assert!(matches!(backlog, SourceError::TrackingLost { .. }), "{backlog}");
    let tracking = source
        .attach(IDENTITY, replica(0, ScanState::Open))
        .await
        .unwrap();
    assert!(matches!(tracking, Tracking::Lost { .. }));
}

#[tokio::test]
async fn every_disk_is_checked() {
    let machine = Machine::new();
    fs::write(machine.path("b.raw"), [1; 100]).unwrap();
    let checks = machine.source().checks().await;
    let outcomes: Vec<_> = checks.iter().map(|check| check.outcome).collect();
    use farshore_provider::CheckOutcome::{Failed, Passed};
    assert_eq!(outcomes, [Passed, Failed]);
    assert!(checks[1].found.contains("multiple of 512") && !checks[1].remedy.is_empty());
}

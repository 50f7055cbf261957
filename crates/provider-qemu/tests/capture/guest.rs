//! A real guest that writes records to two disks in a fixed order all the while.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use farshore_blocks::{ByteCount, Extent, Sequence};
use farshore_guest::{
    disk_layout::{REGION_A, REGION_B},
    image::{GuestAgent, GuestImage, ImageRequest, WorkloadExecutable},
    judge::judge,
    machine::{DiskThreads, SourceVm, SourceVmRequest},
    record::Stream,
    region::RegionScan,
    witness::{Acknowledged, Testimony},
};
use farshore_provider::{
    Capture, CaptureKind, Consistency, DiskBus, DiskSpecification, Firmware, MachineSpecification, Outcome,
    ReplicaState, ScanState, Source, SourceError, StateOfBytes, Tracking,
};
use farshore_provider_qemu::{GuestAgentConfig, QemuCapture, QemuSource, QemuSourceConfig};
use farshore_qmp::{ConnectOptions, Monitor};
use serde_json::{Value, json};

use crate::{
    freezing::freezer,
    proxy::{Cut, Proxy},
    replica::IDENTITY,
    surroundings::SmallFileSystem,
};

const PATIENCE: Duration = Duration::from_secs(120);
const END: Duration = Duration::from_secs(20);

struct Guest {
    vm: SourceVm,
    machine: MachineSpecification,
    directory: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.vm.kill9(END));
    }
}

/// The example of this package, which cargo builds beside the tests.
fn workload() -> WorkloadExecutable {
    let test = env::current_exe().unwrap();
    let build = test.parent().and_then(Path::parent).unwrap();
    WorkloadExecutable {
        path: build.join("examples/guest_workload"),
        leading_arguments: Vec::new(),
    }
}

impl Guest {
    fn start() -> Self {
        Self::start_with(GuestAgent::Absent, DiskThreads::MainLoop)
    }

    fn start_threaded() -> Self {
        Self::start_with(GuestAgent::Absent, DiskThreads::IoThreads)
    }

    fn start_with(agent: GuestAgent, disk_threads: DiskThreads) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut image = ImageRequest::small(directory.path(), "web-1", workload());
        image.agent = agent;
        let disks = GuestImage::build(&image).unwrap();
        let mut request = SourceVmRequest::small(directory.path(), "web-1", &disks);
        if agent == GuestAgent::Installed {
            let channel = directory.path().join("agent");
            request.extra_arguments = [
                "-chardev",
                &format!("socket,id=agent,path={},server=on,wait=off", channel.display()),
                "-device",
                "virtserialport,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0",
            ]
            .map(str::to_owned)
            .to_vec();
        }
        request.disk_threads = disk_threads;
        let vm = SourceVm::start(request).unwrap();
        assert!(vm.wait_for_boot(PATIENCE).unwrap().is_clean());
        let disk = |name: &str| DiskSpecification {
            name: name.to_owned(),
            device: format!("vd{name}"),
            bus: DiskBus::VirtioBlk,
        };
        let machine = MachineSpecification {
            vm: "web-1".into(),
            uuid: None,
            processors: 1,
            memory: ByteCount(256 << 20),
            firmware: Firmware::Bios,
            machine_type: "pc".into(),
            disks: vec![disk("root"), disk("data")],
            nics: Vec::new(),
        };
        Self {
            vm,
            machine,
            directory,
        }
    }

    fn monitor(&self) -> PathBuf {
        self.vm.request().monitors[0].clone()
    }

    fn source(&self, monitor: PathBuf) -> QemuSource {
        let channel = self.directory.path().join("agent");
        QemuSource::new(QemuSourceConfig {
            monitor,
            machine: self.machine.clone(),
            scratch_directory: self.directory.path().join("scratch"),
            watchdog: None,
            guest_agent: channel.exists().then(|| GuestAgentConfig {
                channel,
                freezer: freezer(),
                leading_arguments: Vec::new(),
                limit: END,
            }),
        })
    }

    /// Whether a disk that an I/O thread serves is captured by local copies: later versions bear filters there.
    async fn is_copied(&self) -> bool {
        let options = ConnectOptions { timeout: END };
        let monitor = Monitor::connect(&self.vm.request().monitors[1], options).await;
        monitor.unwrap().version().major < 10
    }

    /// Waits until the guest has written on: it lives, and was not refused a write.
    fn writes_on(&self) {
        let testimony = self.vm.testimony().unwrap();
        let wanted = testimony.acknowledged.region_b + 20;
        let more = |testimony: &Testimony| (testimony.acknowledged.region_b >= wanted).then_some(());
        self.vm.wait_for(PATIENCE, more).unwrap();
        assert_eq!(self.vm.testimony().unwrap().errors, Vec::<String>::new());
    }

    fn acknowledged(&self) -> Acknowledged {
        self.vm.testimony().unwrap().acknowledged
    }
}

/// Copies of both disks.
struct Copies {
    newest: Sequence,
    disks: Vec<Vec<u8>>,
}

impl Copies {
    fn state(&self) -> ReplicaState {
        ReplicaState {
            newest: self.newest,
            sizes: Vec::new(),
            scan: ScanState::None,
        }
    }

    /// What was applied before a failure does no harm: the next capture gives it again.
    async fn apply(&mut self, capture: &QemuCapture) -> Result<(), SourceError> {
        for (volume, disk) in capture.volumes().iter().zip(&mut self.disks) {
            disk.resize(usize::try_from(volume.size.0).unwrap(), 0);
            for stated in volume
                .extents
                .iter()
                .filter(|stated| stated.state == StateOfBytes::Data)
            {
                for piece in stated.extent.pieces(ByteCount(1 << 20)) {
                    let bytes = capture.read(volume.index, piece).await?;
                    disk[range(piece)].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    async fn instant(&mut self, guest: &Guest, source: &mut QemuSource) -> Result<(), SourceError> {
        let acknowledged = guest.acknowledged();
        let capture = source.begin(CaptureKind::Instant, self.newest.next()).await?;
        self.apply(&capture).await?;
        self.judge(acknowledged);
        self.newest = self.newest.next();
        source.finish(capture, Outcome::Done).await
    }

    /// All records up to some number and none after it, on both disks alike, and all that were acknowledged before.
    fn judge(&self, acknowledged: Acknowledged) {
        let b = RegionScan::read(&self.disks[0], REGION_B, Stream::RegionB).unwrap();
        let a = RegionScan::read(&self.disks[1], REGION_A, Stream::RegionA).unwrap();
        let judgement = judge(&a, &b, acknowledged);
        assert!(judgement.lost_nothing(), "{}", judgement.describe());
    }
}

fn range(extent: Extent) -> std::ops::Range<usize> {
    usize::try_from(extent.start().0).unwrap()..usize::try_from(extent.end().0).unwrap()
}

/// A guest with one sealed point.
async fn protected_guest(start: fn() -> Guest) -> (Guest, Copies) {
    let guest = tokio::task::spawn_blocking(start).await.unwrap();
    let mut copies = Copies {
        newest: Sequence(0),
        disks: vec![Vec::new(); 2],
    };
    let mut source = guest.source(guest.monitor());
    source.attach(IDENTITY, copies.state()).await.unwrap();
    source.begin_scan(Sequence(1)).await.unwrap();
    for kind in [CaptureKind::Scan, CaptureKind::Round, CaptureKind::Round] {
        let capture = source.begin(kind, Sequence(1)).await.unwrap();
        copies.apply(&capture).await.unwrap();
        source.finish(capture, Outcome::Done).await.unwrap();
    }
    copies.instant(&guest, &mut source).await.unwrap();
    (guest, copies)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instant_of_a_writing_guest_is_an_exact_prefix_of_its_writes() {
    take_instants(Guest::start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instant_of_a_guest_with_io_threads_is_an_exact_prefix_of_its_writes() {
    take_instants(Guest::start_threaded).await;
}

async fn take_instants(start: fn() -> Guest) {
    let (guest, mut copies) = protected_guest(start).await;
    let mut source = guest.source(guest.monitor());
    source.attach(IDENTITY, copies.state()).await.unwrap();
    for _ in 0..20 {
        guest.writes_on();
        copies.instant(&guest, &mut source).await.unwrap();
    }
    source.detach().await.unwrap();
    guest.writes_on();
    let image = Command::new("qemu-img")
        .args(["info", "-U", "--output=json"])
        .arg(&guest.vm.request().disks[0].path)
        .output();
    assert!(image.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_never_notices_a_cut_after_any_command_of_a_cycle() {
    cut_after_each_command(Guest::start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_io_threads_never_notices_a_cut_after_any_command_of_a_cycle() {
    cut_after_each_command(Guest::start_threaded).await;
}

async fn cut_after_each_command(start: fn() -> Guest) {
    let (guest, mut copies) = protected_guest(start).await;
    for at in 1.. {
        let path = guest.directory.path().join("proxy");
        let proxy = Proxy::start(path.clone(), guest.monitor(), at, Cut::After);
        let mut doomed = guest.source(path);
        let lived = async {
            doomed.attach(IDENTITY, copies.state()).await?;
            copies.instant(&guest, &mut doomed).await
        };
        let lived = lived.await;
        drop(doomed);
        let reached = proxy.commands() >= at;
        assert_eq!(lived.is_err(), reached, "{at}: {lived:?}");
        guest.writes_on();
        let mut successor = guest.source(guest.monitor());
        let tracking = successor.attach(IDENTITY, copies.state()).await.unwrap();
        assert_eq!(tracking, Tracking::SincePoint, "{at}");
        copies.instant(&guest, &mut successor).await.unwrap();
        if !reached {
            break;
        }
    }
    guest.writes_on();
}

/// Where ext4 on the data disk says whether its journal must be replayed: a flag of the superblock's "incompatible"
/// features (Linux, Documentation/filesystems/ext4/super.rst).
const RECOVERY_FLAG_AT: usize = (33 << 20) + 1024 + 0x60;
const NEEDS_RECOVERY: u8 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_guests_file_system_needs_no_replay_of_its_journal_and_it_writes_on() {
    let (guest, mut copies) =
        protected_guest(|| Guest::start_with(GuestAgent::Installed, DiskThreads::MainLoop)).await;
    let mut source = guest.source(guest.monitor());
    source.attach(IDENTITY, copies.state()).await.unwrap();
    let needs_recovery = |copies: &Copies| copies.disks[1][RECOVERY_FLAG_AT] & NEEDS_RECOVERY != 0;
    for _ in 0..3 {
        guest.writes_on();
        copies.instant(&guest, &mut source).await.unwrap();
        assert!(
            needs_recovery(&copies),
            "a file system in use that needs no replay"
        );
        let capture = source
            .begin_application_consistent(copies.newest.next())
            .await
            .unwrap();
        assert_eq!(capture.consistency(), Consistency::Application);
        copies.apply(&capture).await.unwrap();
        copies.newest = copies.newest.next();
        source.finish(capture, Outcome::Done).await.unwrap();
        assert!(!needs_recovery(&copies), "it was not frozen at the instant");
    }
    guest.writes_on();
}

/// Stands where a guest would be frozen, between the taking of room and the instant: takes all the room that is left, and
/// lets the guest change more than room was taken for.
fn room_taker(directory: &Path, scratch: &Path) -> PathBuf {
    let script = directory.join("take-room");
    let text = format!(
        "#!/bin/sh\ndd if=/dev/zero of={}/filler bs=64k 2>/dev/null\nsleep 1\necho 'refused: only room is taken'\n",
        scratch.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn room_for_a_copy_cannot_be_taken_away_before_the_instant() {
    let (guest, mut copies) = protected_guest(Guest::start_threaded).await;
    if !guest.is_copied().await {
        // A filter gives its snapshot up where there is no room, and the guest does not notice.
        return;
    }
    let scratch = guest.directory.path().join("small");
    let small = SmallFileSystem::mount(&scratch, "80m");
    for _ in 0..3 {
        let mut source = QemuSource::new(QemuSourceConfig {
            monitor: guest.monitor(),
            machine: guest.machine.clone(),
            scratch_directory: scratch.clone(),
            watchdog: None,
            guest_agent: Some(GuestAgentConfig {
                channel: guest.directory.path().join("nobody"),
                freezer: room_taker(guest.directory.path(), &scratch),
                leading_arguments: Vec::new(),
                limit: END,
            }),
        });
        // The NBD server of the one before listens elsewhere.
        guest.source(guest.monitor()).detach().await.unwrap();
        // Detached, it lost its bitmaps.
        let tracking = source.attach(IDENTITY, copies.state()).await.unwrap();
        if !matches!(tracking, Tracking::SincePoint) {
            source.begin_scan(copies.newest.next()).await.unwrap();
            let scan = source
                .begin(CaptureKind::Scan, copies.newest.next())
                .await
                .unwrap();
            copies.apply(&scan).await.unwrap();
            source.finish(scan, Outcome::Done).await.unwrap();
        }
        let capture = source
            .begin_application_consistent(copies.newest.next())
            .await
            .unwrap();
        assert!(matches!(
            capture.consistency(),
            Consistency::Crash { why: Some(_) }
        ));
        copies.apply(&capture).await.unwrap();
        copies.newest = copies.newest.next();
        source.finish(capture, Outcome::Done).await.unwrap();
        fs::remove_file(scratch.join("filler")).unwrap();
        guest.writes_on();
        copies.instant(&guest, &mut source).await.unwrap();
        source.detach().await.unwrap();
    }
    drop(small);
}

/// As a process leaves it that died when its copy had found no room.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_a_dead_processs_copy_paused_goes_on_with_its_successor() {
    let (guest, mut copies) = protected_guest(Guest::start_threaded).await;
    let scratch = guest.directory.path().join("small");
    let small = SmallFileSystem::mount(&scratch, "1m");
    let file = scratch.join("copy");
    let bytes = copies.disks[1].len() as u64;
    fs::File::create(&file).unwrap().set_len(bytes).unwrap();
    let options = ConnectOptions { timeout: END };
    let control = Monitor::connect(&guest.vm.request().monitors[1], options)
        .await
        .unwrap();
    let node = json!({"driver": "file", "node-name": "fs-s-7", "filename": file});
    control.execute("blockdev-add", node).await.unwrap();
    let copy = json!({"job-id": "fs-j-7", "device": "data", "target": "fs-s-7", "sync": "none"});
    control.execute("blockdev-backup", copy).await.unwrap();
    let mut events = control.subscribe();
    while control.execute("query-status", Value::Null).await.unwrap()["status"] != "io-error" {
        tokio::time::timeout(PATIENCE, events.recv())
            .await
            .unwrap()
            .unwrap();
    }
    let mut successor = guest.source(guest.monitor());
    let tracking = successor.attach(IDENTITY, copies.state()).await.unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    guest.writes_on();
    copies.instant(&guest, &mut successor).await.unwrap();
    drop(small);
}

//! Checks, refusals, and what others do with the same VM.

use std::process::Command;

use farshore_blocks::{ByteCount, ChainId, Sequence};
use farshore_provider::{
    Capture, CaptureKind, Check, CheckOutcome, DiskBus, DiskSpecification, Firmware, Outcome, Source,
    SourceError, Tracking, TrackingIdentity,
};
use serde_json::{Value, json};

use crate::{
    proxy::mute,
    replica::{IDENTITY, Model, PAIR, Target, protected},
    vm::{DISK_BYTES, Kind, Vm},
};

fn outcome(checks: &[Check], code: &str) -> CheckOutcome {
    let check = checks.iter().find(|check| check.code == code);
    check.unwrap_or_else(|| panic!("no {code} in {checks:?}")).outcome
}

fn failed(checks: &[Check]) -> Vec<&str> {
    let failed = checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed);
    failed.map(|check| check.code.as_str()).collect()
}

#[tokio::test]
async fn a_fit_vm_passes_every_check_and_checks_change_nothing() {
    let vm = Vm::start(PAIR).await;
    let mut source = vm.source();
    for _ in 0..2 {
        let checks = source.checks().await;
        assert!(checks.len() >= 10, "{checks:?}");
        assert_eq!(failed(&checks), [""; 0], "{checks:?}");
        assert_eq!(outcome(&checks, "nics-match"), CheckOutcome::Passed);
        assert_eq!(outcome(&checks, "vm-running"), CheckOutcome::Passed);
        assert_eq!(vm.leftovers().await, [""; 0]);
    }
    assert_eq!(source.sizes().await.unwrap(), [ByteCount(DISK_BYTES as u64); 2]);
    // Also while attached, and then the connection stays.
    source.attach(IDENTITY, Target::new(2).state()).await.unwrap();
    assert_eq!(failed(&source.checks().await), [""; 0]);
    source.begin_scan(Sequence(1)).await.unwrap();
}

#[tokio::test]
async fn every_failed_prerequisite_is_listed_at_once() {
    let vm = Vm::start(PAIR).await;
    vm.command("stop", Value::Null).await.unwrap();
    let mut machine = vm.machine();
    machine.uuid = Some("11111111-2222-3333-4444-555555555555".into());
    machine.processors = 7;
    machine.firmware = Firmware::Uefi;
    machine.nics[0].mac = "52:54:00:00:00:00".into();
    machine.disks.push(DiskSpecification {
        name: "third".into(),
        device: "vd2".into(),
        bus: DiskBus::VirtioBlk,
    });
    let mut source = vm.source_of(machine, &vm.monitor());
    let checks = source.checks().await;
    assert_eq!(
        failed(&checks),
        ["firmware-supported", "machine-matches", "disks-trackable"],
        "{checks:?}"
    );
    for code in ["nics-match", "vm-running"] {
        assert_eq!(outcome(&checks, code), CheckOutcome::Warning);
    }
    let found = &checks
        .iter()
        .find(|check| check.code == "machine-matches")
        .unwrap()
        .found;
    for part in ["7 are declared", "11111111", "vd2"] {
        assert!(found.contains(part), "{found}");
    }
    let refused = source.attach(IDENTITY, Target::new(2).state()).await;
    assert!(matches!(refused, Err(SourceError::Unfit { .. })), "{refused:?}");
    assert_eq!(vm.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn a_monitor_that_is_silent_or_gone_is_a_failed_check() {
    let vm = Vm::start(PAIR).await;
    let silent = vm.path("silent");
    let peer = mute(&silent);
    for monitor in [silent, vm.path("nobody")] {
        let checks = vm.source_at(&monitor).checks().await;
        assert_eq!(failed(&checks), ["monitor-reachable"], "{checks:?}");
    }
    peer.abort();
}

/// `make test-newer-qemu` says which it must be: a search path that was lost on the way must not pass for a test.
#[tokio::test]
async fn these_tests_run_on_the_hypervisor_that_was_asked_for() {
    let vm = Vm::start(&[]).await;
    let version = vm.command("query-version", Value::Null).await.unwrap();
    let major = version["qemu"]["major"].to_string();
    println!("captures are tested on QEMU {major}");
    if let Some(wanted) = std::env::var_os("FARSHORE_TEST_QEMU_MAJOR") {
        assert_eq!(wanted, *major);
    }
}

#[tokio::test]
async fn an_nbd_server_of_someone_else_is_not_touched() {
    let vm = Vm::start(PAIR).await;
    let address = json!({"addr": {"type": "unix", "data": {"path": vm.path("theirs")}}});
    vm.command("nbd-server-start", address).await.unwrap();
    let mut source = vm.source();
    assert_eq!(failed(&source.checks().await), ["nbd-server-free"]);
    let refused = source.attach(IDENTITY, Target::new(2).state()).await;
    assert!(matches!(refused, Err(SourceError::Unfit { .. })), "{refused:?}");
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, [""; 0]);
    assert!(tokio::net::UnixStream::connect(vm.path("theirs")).await.is_ok());
}

#[tokio::test]
async fn captures_go_on_after_someone_stopped_the_nbd_server() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    vm.command("nbd-server-stop", Value::Null).await.unwrap();
    let refused = source.begin(CaptureKind::Instant, Sequence(2)).await.map(drop);
    assert!(matches!(refused, Err(SourceError::Refused { .. })), "{refused:?}");
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn a_bitmap_that_someone_removed_is_noticed() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    let nodes = vm
        .command("query-named-block-nodes", json!({"flat": true}))
        .await
        .unwrap();
    let node = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["node-name"] == "node1")
        .unwrap();
    let name = &node["dirty-bitmaps"][0]["name"];
    let remove = json!({"node": "node1", "name": name});
    vm.command("block-dirty-bitmap-remove", remove).await.unwrap();
    let noticed = source.begin(CaptureKind::Instant, Sequence(2)).await.map(drop);
    assert!(
        matches!(noticed, Err(SourceError::TrackingLost { .. })),
        "{noticed:?}"
    );
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert!(matches!(tracking, Tracking::Lost { .. }), "{tracking:?}");
    target
        .resume(&mut source, &vm, &mut model, &tracking)
        .await
        .unwrap();
}

#[tokio::test]
async fn tracking_for_another_chain_is_dropped_and_that_of_others_left_alone() {
    let (vm, _, target) = protected(PAIR).await;
    let theirs = json!({"node": "node0", "name": "backup-of-someone"});
    vm.command("block-dirty-bitmap-add", theirs).await.unwrap();
    let other = TrackingIdentity {
        chain: ChainId::from_bytes([9; 16]),
        ..IDENTITY
    };
    let mut source = vm.source();
    let tracking = source.attach(other, target.state()).await.unwrap();
    assert!(matches!(tracking, Tracking::Lost { .. }), "{tracking:?}");
    assert_eq!(vm.leftovers().await, ["backup-of-someone", "fs-w-0", "fs-w-1"]);
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, ["backup-of-someone"]);
}

#[tokio::test]
async fn disks_declared_in_another_order_are_wrapped_anew() {
    let (vm, _, _) = protected(PAIR).await;
    let mut machine = vm.machine();
    machine.disks.reverse();
    let mut source = vm.source_of(machine, &vm.monitor());
    let tracking = source.attach(IDENTITY, Target::new(2).state()).await.unwrap();
    assert!(matches!(tracking, Tracking::Lost { .. }), "{tracking:?}");
    source.begin_scan(Sequence(1)).await.unwrap();
    vm.qemu_io(1, "write -P 5 0 4096").await;
    let capture = source.begin(CaptureKind::Instant, Sequence(1)).await.unwrap();
    let changed: Vec<_> = capture
        .volumes()
        .iter()
        .map(|volume| volume.extents.len())
        .collect();
    assert_eq!(changed, [1, 0], "the second device is the first volume now");
    source.finish(capture, Outcome::Done).await.unwrap();
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, [""; 0]);
}

/// A small file system of its own, so that scratch space can run out.
pub(crate) struct SmallFileSystem<'a>(&'a std::path::Path);

impl<'a> SmallFileSystem<'a> {
    pub(crate) fn mount(at: &'a std::path::Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .status();
        assert!(mounted.unwrap().success(), "this test needs root");
        Self(at)
    }
}

impl Drop for SmallFileSystem<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[tokio::test]
async fn full_scratch_space_costs_the_capture_and_nothing_else() {
    let vm = Vm::start(&[Kind::Raw]).await;
    let scratch = vm.scratch();
    let small = SmallFileSystem::mount(&scratch, "256k");
    let (mut model, mut target) = (Model::new(1), Target::new(1));
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.open_scan();
    source.begin_scan(Sequence(1)).await.unwrap();
    target.live(&mut source, CaptureKind::Scan).await.unwrap();
    vm.qemu_io(0, &format!("write -P 9 0 {DISK_BYTES}")).await;
    let capture = source.begin(CaptureKind::Instant, Sequence(1)).await.unwrap();
    // More than scratch space holds; an error of a write would fail here.
    vm.qemu_io(0, &format!("write -P 10 0 {DISK_BYTES}")).await;
    model.disks[0].fill(10);
    let read = target.with(&capture).await.map(drop);
    assert!(matches!(read, Err(SourceError::Read { .. })), "{read:?}");
    source.finish(capture, Outcome::Failed).await.unwrap();
    let status = vm.command("query-status", Value::Null).await.unwrap();
    assert_eq!(status["status"], "running");
    let capture = source.begin(CaptureKind::Instant, Sequence(1)).await.unwrap();
    assert_eq!(target.with(&capture).await.unwrap(), model.disks);
    source.finish(capture, Outcome::Done).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&scratch)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["nbd.sock"]);
    source.detach().await.unwrap();
    drop(small);
}

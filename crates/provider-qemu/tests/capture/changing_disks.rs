//! Disks that join and leave: the others' tracking goes on, and a disk that is not protected any more is left as it was.

use farshore_blocks::ByteCount;
use farshore_provider::{Capture, CaptureKind, Outcome, ReplicaState, Source, Tracking};
use serde_json::Value;

use crate::{
    replica::{IDENTITY, Model, PAIR, Target, protected},
    vm::{DISK_BYTES, Kind, Vm},
};

/// A source of these of the VM's disks.
fn source_of(vm: &Vm, disks: &[usize]) -> farshore_provider_qemu::QemuSource {
    let mut machine = vm.machine();
    let all = machine.disks.clone();
    machine.disks = disks.iter().map(|disk| all[*disk].clone()).collect();
    vm.source_of(machine, &vm.monitor())
}

fn of_sizes(target: &Target, sizes: &[usize]) -> ReplicaState {
    ReplicaState {
        sizes: sizes.iter().map(|size| ByteCount(*size as u64)).collect(),
        ..target.state()
    }
}

/// The node that each device uses.
async fn top_nodes(vm: &Vm) -> Vec<String> {
    let devices = vm.command("query-block", Value::Null).await.unwrap();
    let nodes = devices.as_array().unwrap().iter();
    nodes
        .filter_map(|device| device["inserted"]["node-name"].as_str())
        .map(str::to_owned)
        .collect()
}

async fn backlog_of(target: &mut Target, source: &mut farshore_provider_qemu::QemuSource) -> u64 {
    let capture = source
        .begin(CaptureKind::Instant, target.newest.next())
        .await
        .unwrap();
    let extents = capture.volumes().iter().flat_map(|volume| &volume.extents);
    let bytes = extents.map(|stated| stated.extent.length().0).sum();
    source.finish(capture, Outcome::Done).await.unwrap();
    target.newest = target.newest.next();
    bytes
}

#[tokio::test]
async fn a_disk_joins_by_a_scan_of_itself_and_another_leaves_without_one() {
    one_joins_and_one_leaves(PAIR).await;
}

#[tokio::test]
async fn a_disk_with_an_io_thread_joins_by_a_scan_of_itself_and_another_leaves_without_one() {
    one_joins_and_one_leaves(&[Kind::RawWithIothread, Kind::Qcow2WithIothread]).await;
}

async fn one_joins_and_one_leaves(kinds: &[Kind]) {
    let (vm, mut model, mut target) = protected(kinds).await;
    // At first only one disk is declared.
    let mut source = source_of(&vm, &[0]);
    let mut first = Target::new(1);
    let lost = source.attach(IDENTITY, first.state()).await.unwrap();
    assert!(matches!(lost, Tracking::Lost { .. }), "{lost:?}");
    source.begin_scan(first.newest.next()).await.unwrap();
    first.open_scan();
    first.live(&mut source, CaptureKind::Scan).await.unwrap();
    backlog_of(&mut first, &mut source).await;
    drop(source);
    target.newest = first.newest;
    joins(&vm, (&mut model, &mut target), first.sealed.len()).await;
    leaves(&vm, &mut target).await;
}

async fn joins(vm: &Vm, (model, target): (&mut Model, &mut Target), known: usize) {
    assert_eq!(known, 1);
    let mut source = source_of(vm, &[0, 1]);
    let tracking = source
        .attach(IDENTITY, of_sizes(target, &[DISK_BYTES, 0]))
        .await
        .unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    vm.qemu_io(0, "write -P 3 4096 4096").await;
    assert!(source.backlog().await.unwrap() >= ByteCount(DISK_BYTES as u64));
    let next = target.newest.next();
    let scan = source.begin(CaptureKind::Scan, next).await.unwrap();
    let [old, new] = scan.volumes() else {
        panic!("two volumes")
    };
    assert_eq!(old.extents, []);
    let covered: u64 = new.extents.iter().map(|stated| stated.extent.length().0).sum();
    assert_eq!(covered, DISK_BYTES as u64);
    target.sealed = target.with(&scan).await.unwrap();
    vm.qemu_io(1, "write -P 4 8192 4096").await;
    source.finish(scan, Outcome::Done).await.unwrap();
    let capture = source.begin(CaptureKind::Instant, next).await.unwrap();
    let sealed = target.with(&capture).await.unwrap();
    let changed: Vec<u64> = capture
        .volumes()
        .iter()
        .map(|volume| volume.extents.iter().map(|stated| stated.extent.length().0).sum())
        .collect();
    assert_eq!(changed, [4096, 4096]);
    model.disks[1][8192..8192 + 4096].fill(4);
    assert_eq!(sealed[1], model.disks[1]);
    target.seal(sealed);
    source.finish(capture, Outcome::Done).await.unwrap();
    assert_eq!(source.backlog().await.unwrap(), ByteCount(0));
}

async fn leaves(vm: &Vm, target: &mut Target) {
    vm.qemu_io(0, "write -P 5 0 4096").await;
    vm.qemu_io(1, "write -P 6 65536 8192").await;
    let mut source = source_of(vm, &[1]);
    let tracking = source
        .attach(IDENTITY, of_sizes(target, &[DISK_BYTES]))
        .await
        .unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    // The other one is on its own node again, and runs on.
    let tops = top_nodes(vm).await;
    let wrapped = tops.iter().filter(|node| node.starts_with("fs-"));
    assert!(wrapped.count() <= 1, "{tops:?}");
    vm.qemu_io(0, "read -P 5 0 4096").await;
    assert_eq!(backlog_of(target, &mut source).await, 8192);
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, Vec::<String>::new());
}

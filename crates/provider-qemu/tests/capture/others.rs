//! What others do with a protected VM: snapshots, jobs, another node for the device, another size, a migration. The guest
//! must keep what it wrote, no capture may be wrong, and what was lost is said.

use std::time::Duration;

use farshore_blocks::ByteCount;
use farshore_provider::{
    Capture, CaptureKind, Outcome, ReplicaState, Source, SourceError, StateOfBytes, Tracking,
};
use farshore_provider_qemu::QemuSource;
use farshore_qmp::QmpError;
use serde_json::{Value, json};

use crate::{
    replica::{IDENTITY, Model, PAIR, Target, protected},
    vm::{DISK_BYTES, Kind, Vm},
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn run(vm: &Vm, command: &str, arguments: Value) {
    vm.command(command, arguments).await.unwrap();
}

/// A source that has just taken a point.
async fn replicating(vm: &Vm, model: &mut Model, target: &mut Target) -> QemuSource {
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.instant(&mut source, vm, model).await.unwrap();
    source
}

async fn refused(source: &mut QemuSource, target: &Target, words: &str) {
    let refused = source
        .begin(CaptureKind::Instant, target.newest.next())
        .await
        .map(drop);
    assert!(
        matches!(&refused, Err(SourceError::Unfit { why, .. }) if why.contains(words)),
        "{refused:?}"
    );
}

/// Tracking was lost by something that is said with these words; afterwards everything goes on.
async fn starts_over(
    source: &mut QemuSource,
    vm: &Vm,
    (model, target): (&mut Model, &mut Target),
    words: &str,
) {
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert!(
        matches!(&tracking, Tracking::Lost { why } if why.contains(words)),
        "{tracking:?}"
    );
    target.resume(source, vm, model, &tracking).await.unwrap();
    target.instant(source, vm, model).await.unwrap();
}

fn overlay(vm: &Vm, of: &str, name: &str) -> Value {
    json!({"node-name": of, "snapshot-file": vm.path(name), "snapshot-node-name": name})
}

#[tokio::test]
async fn a_snapshot_below_the_wrapper_is_noticed_and_keeps_the_guests_writes() {
    for node in ["node0", "node1"] {
        let (vm, mut model, mut target) = protected(PAIR).await;
        let mut source = replicating(&vm, &mut model, &mut target).await;
        run(&vm, "blockdev-snapshot-sync", overlay(&vm, node, "overlay")).await;
        model.scribble(&vm).await;
        refused(&mut source, &target, "a snapshot was taken").await;
        starts_over(
            &mut source,
            &vm,
            (&mut model, &mut target),
            "a snapshot was taken",
        )
        .await;
        source.detach().await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_in_the_middle_of_a_capture_keeps_the_guests_writes() {
    for node in ["node0", "node1"] {
        for outcome in [Outcome::Done, Outcome::Failed] {
            let (vm, mut model, mut target) = protected(PAIR).await;
            let mut source = replicating(&vm, &mut model, &mut target).await;
            let capture = source
                .begin(CaptureKind::Instant, target.newest.next())
                .await
                .unwrap();
            let then = model.disks.clone();
            model.scribble(&vm).await;
            run(&vm, "blockdev-snapshot-sync", overlay(&vm, node, "overlay")).await;
            model.scribble(&vm).await;
            if outcome == Outcome::Done {
                let disks = target.with(&capture).await.unwrap();
                crate::replica::assert_equal(&disks, &then);
                target.seal(disks);
            }
            let finished = source.finish(capture, outcome).await;
            assert!(
                matches!(finished, Err(SourceError::TrackingLost { .. })),
                "{finished:?}"
            );
            starts_over(
                &mut source,
                &vm,
                (&mut model, &mut target),
                "a snapshot was taken",
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_above_the_wrapper_is_noticed_and_keeps_the_guests_writes() {
    let (vm, mut model, mut target) = protected(&[Kind::Raw, Kind::ScsiRaw]).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    run(&vm, "blockdev-snapshot-sync", overlay(&vm, "fs-w-0", "overlay0")).await;
    let by_device =
        json!({"device": "node1", "snapshot-file": vm.path("overlay1"), "snapshot-node-name": "overlay1"});
    run(&vm, "blockdev-snapshot-sync", by_device).await;
    model.scribble(&vm).await;
    refused(&mut source, &target, "another node").await;
    starts_over(
        &mut source,
        &vm,
        (&mut model, &mut target),
        "a snapshot was taken",
    )
    .await;
    source.detach().await.unwrap();
    // What lies below an overlay cannot be taken out; it lets everything through.
    assert_eq!(vm.leftovers().await, ["fs-w-0", "fs-w-1"]);
}

/// What a person types.
async fn typed(vm: &Vm, line: &str) -> String {
    let order = json!({"command-line": line});
    let said = vm.command("human-monitor-command", order).await.unwrap();
    said.as_str().unwrap_or_default().to_owned()
}

/// Runs a job of internal snapshots over the VM's two disks, and gives why it failed, if it did.
async fn snapshot_job(vm: &Vm, command: &str, tag: &str) -> Option<String> {
    let job = json!({"job-id": "theirs", "tag": tag, "vmstate": "node0", "devices": ["node0", "node1"]});
    run(vm, command, job).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let jobs = vm.command("query-jobs", Value::Null).await.unwrap();
        let job = &jobs.as_array().unwrap()[0];
        if job["status"] == "concluded" {
            run(vm, "job-dismiss", json!({"id": "theirs"})).await;
            return job["error"].as_str().map(str::to_owned);
        }
        assert!(tokio::time::Instant::now() < deadline, "{jobs}");
    }
}

#[tokio::test]
async fn a_snapshot_within_the_images_costs_no_point_and_nobody_goes_back_to_it_unnoticed() {
    let (vm, mut model, mut target) = protected(&[Kind::Qcow2, Kind::ScsiQcow2]).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    // Without a list of disks QEMU takes scratch nodes for some of the VM.
    let said = typed(&vm, "savevm before").await;
    assert!(said.contains("does not support snapshots"), "{said}");
    for number in 0..3 {
        let failed = snapshot_job(&vm, "snapshot-save", &format!("before-{number}")).await;
        assert_eq!(failed, None);
        model.scribble(&vm).await;
        target.instant(&mut source, &vm, &mut model).await.unwrap();
    }
    // It would change the disks behind the bitmaps' back.
    let failed = snapshot_job(&vm, "snapshot-load", "before-0").await;
    assert!(failed.is_some_and(|why| why.contains("dirty bitmaps")));
    run(&vm, "cont", Value::Null).await;
    model.scribble(&vm).await;
    target.instant(&mut source, &vm, &mut model).await.unwrap();
    source.detach().await.unwrap();
}

/// Waits until a job of this status is listed, or none at all.
async fn job(vm: &Vm, status: Option<&str>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let jobs = vm.command("query-jobs", Value::Null).await.unwrap();
        let jobs = jobs.as_array().unwrap();
        match status {
            None if jobs.is_empty() => return,
            Some(status) if jobs.iter().any(|job| job["status"] == status) => return,
            _ => assert!(tokio::time::Instant::now() < deadline, "{jobs:?}"),
        }
    }
}

async fn add_file(vm: &Vm, name: &str) {
    let file = std::fs::File::create(vm.path(name)).unwrap();
    file.set_len(DISK_BYTES as u64).unwrap();
    let node = json!({"driver": "file", "node-name": name, "filename": vm.path(name), "discard": "unmap"});
    run(vm, "blockdev-add", node).await;
}

#[tokio::test]
async fn captures_go_on_under_a_mirror_and_its_end_is_noticed() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    add_file(&vm, "elsewhere").await;
    let mirror = json!({"job-id": "theirs", "device": "fs-w-0", "target": "elsewhere", "sync": "full"});
    run(&vm, "blockdev-mirror", mirror).await;
    job(&vm, Some("ready")).await;
    for _ in 0..3 {
        model.scribble(&vm).await;
        target.instant(&mut source, &vm, &mut model).await.unwrap();
    }
    run(&vm, "job-complete", json!({"id": "theirs"})).await;
    job(&vm, None).await;
    model.scribble(&vm).await;
    refused(&mut source, &target, "another node").await;
    starts_over(
        &mut source,
        &vm,
        (&mut model, &mut target),
        "the disk was replaced",
    )
    .await;
}

#[tokio::test]
async fn a_backup_of_someone_else_is_waited_for() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    add_file(&vm, "elsewhere").await;
    let backup = json!({"job-id": "theirs", "device": "node1", "target": "elsewhere", "sync": "none"});
    run(&vm, "blockdev-backup", backup).await;
    model.scribble(&vm).await;
    refused(&mut source, &target, "another tool's job").await;
    let attached = source.attach(IDENTITY, target.state()).await;
    assert!(
        matches!(&attached, Err(SourceError::Unfit { why, .. }) if why.contains("when it has ended")),
        "{attached:?}"
    );
    run(&vm, "job-cancel", json!({"id": "theirs"})).await;
    job(&vm, None).await;
    model.scribble(&vm).await;
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn a_device_that_was_given_another_node_is_noticed() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    add_file(&vm, "elsewhere").await;
    let swap = json!({"path": "/machine/peripheral/vd0", "property": "drive", "value": "elsewhere"});
    run(&vm, "qom-set", swap).await;
    model.disks[0].fill(0);
    model.scribble(&vm).await;
    refused(&mut source, &target, "another node").await;
    starts_over(
        &mut source,
        &vm,
        (&mut model, &mut target),
        "the disk was replaced",
    )
    .await;
}

#[tokio::test]
async fn a_disk_that_grew_is_captured_with_what_it_grew_by() {
    let grown = DISK_BYTES * 2;
    for (kind, resized) in [
        (Kind::Raw, "fs-w-0"),
        (Kind::Raw, "node0"),
        (Kind::Qcow2, "fs-w-0"),
    ] {
        let (vm, mut model, mut target) = protected(&[kind]).await;
        let mut source = replicating(&vm, &mut model, &mut target).await;
        // Refused in the middle of a capture, by whatever name.
        let next = target.newest.next();
        let capture = source.begin(CaptureKind::Instant, next).await.unwrap();
        let size = json!({"node-name": resized, "size": grown});
        let allowed = vm.command("block_resize", size.clone()).await;
        assert!(matches!(allowed, Err(QmpError::Refused { .. })), "{allowed:?}");
        target.seal(target.with(&capture).await.unwrap());
        source.finish(capture, Outcome::Done).await.unwrap();
        run(&vm, "block_resize", size).await;
        // If need be, the source shows the device what was done below it.
        let capture = source
            .begin(CaptureKind::Instant, target.newest.next())
            .await
            .unwrap();
        source.finish(capture, Outcome::Failed).await.unwrap();
        vm.qemu_io(0, &format!("write -P 9 {} 4096", DISK_BYTES + 8192))
            .await;
        for outcome in [Outcome::Failed, Outcome::Done] {
            let capture = source
                .begin(CaptureKind::Instant, target.newest.next())
                .await
                .unwrap();
            let [volume] = capture.volumes() else {
                panic!("one volume")
            };
            assert_eq!(volume.size, ByteCount(grown as u64));
            let last = volume.extents.last().unwrap();
            assert_eq!(last.state, StateOfBytes::Data);
            assert_eq!(last.extent.start().0, DISK_BYTES as u64);
            assert_eq!(last.extent.end().0, grown as u64);
            let bytes = capture.read(volume.index, last.extent).await.unwrap();
            let mut expected = vec![0; DISK_BYTES];
            expected[8192..8192 + 4096].fill(9);
            let differs = bytes
                .iter()
                .zip(&expected)
                .position(|(found, written)| found != written);
            assert_eq!(differs, None, "{kind:?} resized by {resized}, {outcome:?}");
            source.finish(capture, outcome).await.unwrap();
        }
        // It is known now; only what changes is captured again.
        let next = target.newest.next().next();
        vm.qemu_io(0, &format!("write -P 8 {} 4096", grown - 4096)).await;
        let capture = source.begin(CaptureKind::Instant, next).await.unwrap();
        let extents = &capture.volumes()[0].extents;
        assert_eq!(extents.len(), 1, "{extents:?}");
        assert_eq!(extents[0].extent.start().0, (grown - 4096) as u64);
        source.finish(capture, Outcome::Done).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_disk_grew_by_while_no_source_was_attached_is_told_by_the_size_at_the_target() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let source = replicating(&vm, &mut model, &mut target).await;
    drop(source);
    let grown = DISK_BYTES + 65536;
    run(&vm, "block_resize", json!({"node-name": "fs-w-0", "size": grown})).await;
    vm.qemu_io(0, &format!("write -P 9 {} 4096", grown - 4096)).await;
    let replica = ReplicaState {
        sizes: vec![ByteCount(DISK_BYTES as u64); PAIR.len()],
        ..target.state()
    };
    let mut source = vm.source();
    let tracking = source.attach(IDENTITY, replica).await.unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    // There is something to do, even if nothing had been written.
    assert!(source.backlog().await.unwrap() >= ByteCount(65536));
    let next = target.newest.next();
    let capture = source.begin(CaptureKind::Instant, next).await.unwrap();
    let volumes = capture.volumes();
    let last = volumes[0].extents.last().unwrap().extent;
    assert_eq!((last.start().0, last.end().0), (DISK_BYTES as u64, grown as u64));
    let bytes = capture.read(volumes[0].index, last).await.unwrap();
    assert!(bytes[65536 - 4096..].iter().all(|byte| *byte == 9));
    source.finish(capture, Outcome::Done).await.unwrap();
    assert_eq!(source.backlog().await.unwrap(), ByteCount(0));
}

#[tokio::test]
async fn a_disk_that_shrank_is_refused_and_its_tracking_kept() {
    let (vm, mut model, mut target) = protected(&[Kind::Raw]).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    let size = |bytes: usize| json!({"node-name": "fs-w-0", "size": bytes});
    run(&vm, "block_resize", size(DISK_BYTES / 2)).await;
    refused(&mut source, &target, "not shrink").await;
    run(&vm, "block_resize", size(DISK_BYTES)).await;
    model.disks[0][DISK_BYTES / 2..].fill(0);
    vm.qemu_io(0, &format!("write -P 0 {} {}", DISK_BYTES / 2, DISK_BYTES / 2))
        .await;
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

/// The disks go to another process: nothing can be captured here, nor may the VM come to harm if it comes back.
#[tokio::test]
async fn a_vm_that_migrates_away_and_comes_back_is_captured_again() {
    for in_capture in [false, true] {
        let (vm, mut model, mut target) = protected(PAIR).await;
        let mut source = replicating(&vm, &mut model, &mut target).await;
        let next = target.newest.next();
        if in_capture {
            // As by a crash.
            drop(source.begin(CaptureKind::Instant, next).await.unwrap());
            source = vm.source();
        }
        run(&vm, "migrate", json!({"uri": "exec:cat > /dev/null"})).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let ended = loop {
            let status = vm.command("query-migrate", Value::Null).await.unwrap();
            let status = status["status"].as_str().unwrap_or_default().to_owned();
            if ["completed", "failed"].contains(&status.as_str()) {
                break status;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status}");
        };
        if ended == "completed" {
            let attached = source.attach(IDENTITY, target.state()).await;
            assert!(
                matches!(&attached, Err(SourceError::Unfit { why, .. }) if why.contains("migrated")),
                "{attached:?}"
            );
        } else {
            // A capture's nodes cannot be handed over: the migration fails, and the VM stays and runs on.
            assert!(in_capture, "{ended}");
        }
        // Here it is for a VM that came back.
        run(&vm, "cont", Value::Null).await;
        model.scribble(&vm).await;
        let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
        target
            .resume(&mut source, &vm, &mut model, &tracking)
            .await
            .unwrap();
        let status = vm.command("query-status", Value::Null).await.unwrap();
        assert_eq!(status["status"], "running");
    }
}

#[tokio::test]
async fn a_vm_that_migrates_away_under_a_settled_source_is_not_captured() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = replicating(&vm, &mut model, &mut target).await;
    run(&vm, "migrate", json!({"uri": "exec:cat > /dev/null"})).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while vm.command("query-status", Value::Null).await.unwrap()["status"] != "postmigrate" {
        assert!(tokio::time::Instant::now() < deadline);
    }
    refused(&mut source, &target, "migrated").await;
}

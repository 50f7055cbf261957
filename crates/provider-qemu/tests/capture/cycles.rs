//! Scans, rounds and instants that go well, and such that are given up.

use std::time::Instant;

use farshore_blocks::{ByteCount, ByteOffset, Extent, Sequence, VolumeIndex};
use farshore_provider::{Capture, CaptureKind, Outcome, Source, SourceError, Tracking};
use serde_json::Value;

use crate::{
    proxy::{Cut, Proxy},
    replica::{IDENTITY, Model, PAIR, Target, protected},
    vm::{DISK_BYTES, Kind, Vm},
};

#[tokio::test]
async fn a_scan_rounds_and_instants_give_exactly_what_the_disks_held() {
    let vm = Vm::start(&[Kind::Raw, Kind::Qcow2, Kind::ScsiRaw]).await;
    let (mut model, mut target) = (Model::new(3), Target::new(3));
    model.scribble(&vm).await;
    let mut source = vm.source();
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert!(matches!(tracking, Tracking::Lost { .. }), "{tracking:?}");
    target.initial(&mut source, &vm, &mut model).await.unwrap();
    for _ in 0..10 {
        model.scribble(&vm).await;
        target.instant(&mut source, &vm, &mut model).await.unwrap();
    }
    assert_eq!(target.newest, Sequence(11));
    let between = [
        "fs-s-0", "fs-s-1", "fs-s-2", "fs-w-0", "fs-w-1", "fs-w-2", "since 11", "since 11", "since 11",
    ];
    assert_eq!(vm.leftovers().await, between);
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, [""; 0]);
}

/// More than the monitor queues before it stops reading.
#[tokio::test]
async fn many_disks_of_every_kind_are_taken_at_one_instant() {
    let kinds = [
        Kind::Raw,
        Kind::Qcow2,
        Kind::ScsiRaw,
        Kind::ScsiQcow2,
        Kind::RawWithMetadata,
    ]
    .repeat(4);
    let (vm, mut model, mut target) = protected(&kinds).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    for _ in 0..3 {
        target.instant(&mut source, &vm, &mut model).await.unwrap();
    }
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn a_failed_capture_is_given_again_with_what_changed_meanwhile() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    for _ in 0..3 {
        let capture = source.begin(CaptureKind::Instant, Sequence(2)).await.unwrap();
        model.scribble(&vm).await;
        source.finish(capture, Outcome::Failed).await.unwrap();
        assert_eq!(
            vm.leftovers().await,
            ["fs-s-0", "fs-s-1", "fs-w-0", "fs-w-1", "since 1", "since 1"]
        );
        model.scribble(&vm).await;
    }
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn a_failed_round_is_given_again_with_what_changed_meanwhile() {
    let vm = Vm::start(PAIR).await;
    let (mut model, mut target) = (Model::new(2), Target::new(2));
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.open_scan();
    source.begin_scan(Sequence(1)).await.unwrap();
    let scan = source.begin(CaptureKind::Scan, Sequence(1)).await.unwrap();
    source.finish(scan, Outcome::Failed).await.unwrap();
    target.live(&mut source, CaptureKind::Scan).await.unwrap();
    model.scribble(&vm).await;
    let round = source.begin(CaptureKind::Round, Sequence(1)).await.unwrap();
    model.scribble(&vm).await;
    source.finish(round, Outcome::Failed).await.unwrap();
    let instant = source.begin(CaptureKind::Instant, Sequence(1)).await.unwrap();
    model.scribble(&vm).await;
    source.finish(instant, Outcome::Failed).await.unwrap();
    target.rest_of_scan(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn reads_of_one_instant_may_cross_and_overlap() {
    let (vm, model, target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    // All of the first disk changes, so that all of it may be read; a part of it again after the instant.
    vm.qemu_io(0, &format!("write -P 7 0 {DISK_BYTES}")).await;
    let capture = source.begin(CaptureKind::Instant, Sequence(2)).await.unwrap();
    for start in (0..DISK_BYTES).step_by(256 << 10) {
        vm.qemu_io(0, &format!("write -z -u {start} 70000")).await;
    }
    let whole = Extent::new(ByteOffset(0), ByteCount(DISK_BYTES as u64)).unwrap();
    let inner = Extent::new(ByteOffset(1000), ByteCount(600_001)).unwrap();
    let read = |extent| capture.read(VolumeIndex(0), extent);
    let (a, b, c, d) = tokio::join!(read(whole), read(inner), read(whole), read(inner));
    for bytes in [a, b, c, d] {
        assert!(bytes.unwrap().iter().all(|byte| *byte == 7));
    }
    source.finish(capture, Outcome::Failed).await.unwrap();
    drop(model);
}

#[tokio::test]
async fn after_a_read_that_was_given_up_the_snapshot_is_not_read_any_more() {
    let (vm, _, target) = protected(&[Kind::Raw]).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    vm.qemu_io(0, &format!("write -P 7 0 {DISK_BYTES}")).await;
    let capture = source.begin(CaptureKind::Instant, Sequence(2)).await.unwrap();
    let whole = Extent::new(ByteOffset(0), ByteCount(DISK_BYTES as u64)).unwrap();
    {
        let mut given_up = Box::pin(capture.read(VolumeIndex(0), whole));
        tokio::select! {
            biased;
            _ = &mut given_up => panic!("a read of 2 MiB cannot be done at once"),
            () = tokio::task::yield_now() => {}
        }
    }
    let later = capture.read(VolumeIndex(0), whole).await;
    assert!(matches!(later, Err(SourceError::Read { .. })), "{later:?}");
    source.finish(capture, Outcome::Failed).await.unwrap();
}

#[tokio::test]
async fn a_capture_out_of_turn_is_refused_and_changes_nothing() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    for (kind, next) in [
        (CaptureKind::Scan, 2),
        (CaptureKind::Round, 2),
        (CaptureKind::Instant, 1),
        (CaptureKind::Instant, 3),
    ] {
        let refused = source.begin(kind, Sequence(next)).await.map(drop);
        assert!(
            matches!(refused, Err(SourceError::Unfit { .. })),
            "{kind:?} {next}: {refused:?}"
        );
    }
    let open = source.begin(CaptureKind::Instant, Sequence(2)).await.unwrap();
    let second = source.begin(CaptureKind::Instant, Sequence(2)).await.map(drop);
    assert!(
        matches!(second, Err(SourceError::TrackingLost { .. })),
        "{second:?}"
    );
    drop(open);
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn the_backlog_counts_what_changed() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.instant(&mut source, &vm, &mut model).await.unwrap();
    target.instant(&mut source, &vm, &mut model).await.unwrap();
    let before = source.backlog().await.unwrap();
    assert!(
        before > ByteCount(0),
        "what changed while the last one was read counts"
    );
    vm.qemu_io(0, "write -z 0 2M").await;
    vm.qemu_io(1, "write -P 1 8192 4096").await;
    assert!(source.backlog().await.unwrap() >= ByteCount(DISK_BYTES as u64 + 4096));
}

#[tokio::test]
async fn an_operators_pause_is_left_as_it_is() {
    let (vm, mut model, mut target) = protected(PAIR).await;
    vm.command("stop", Value::Null).await.unwrap();
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.instant(&mut source, &vm, &mut model).await.unwrap();
    target.initial(&mut source, &vm, &mut model).await.unwrap();
    source.detach().await.unwrap();
    let status = vm.command("query-status", Value::Null).await.unwrap();
    assert_eq!(status["status"], "paused");
}

/// Not a measure of anything but of this machine; it prints what a cycle takes. The bounds on commands are promises.
#[tokio::test]
async fn a_cycle_with_little_to_send_costs_few_commands() {
    let (vm, _, mut target) = protected(PAIR).await;
    let proxy = Proxy::start(vm.path("proxy"), vm.monitor(), usize::MAX, Cut::After);
    let mut source = vm.source_at(&proxy.path);
    source.attach(IDENTITY, target.state()).await.unwrap();
    for (what, written, most_commands) in [("idle", 0, 14), ("one disk", 1, 18), ("both disks", 2, 21)] {
        let before = (proxy.commands(), proxy.bytes());
        let mut times = Vec::new();
        for _ in 0..51 {
            for disk in 0..written {
                vm.qemu_io(disk, "write -P 3 8192 4096").await;
            }
            let began = Instant::now();
            let capture = source
                .begin(CaptureKind::Instant, target.newest.next())
                .await
                .unwrap();
            let (begun, held) = (began.elapsed(), capture.held());
            let disks = target.with(&capture).await.unwrap();
            target.seal(disks);
            source.finish(capture, Outcome::Done).await.unwrap();
            times.push((began.elapsed(), begun, held));
        }
        let commands = (proxy.commands() - before.0) / times.len();
        let bytes = (proxy.bytes() - before.1) / times.len();
        times.sort();
        let (whole, begin, held) = times[25];
        println!(
            "{what}: {commands} commands of {bytes} bytes; p50 {whole:?} (begin {begin:?}, held {held:?}), max {:?}",
            times[50].0
        );
        assert!(commands <= most_commands, "{what}: {commands}");
    }
}

#[tokio::test]
async fn looking_for_changes_takes_one_command() {
    let (vm, _, target) = protected(PAIR).await;
    let proxy = Proxy::start(vm.path("proxy"), vm.monitor(), usize::MAX, Cut::After);
    let mut source = vm.source_at(&proxy.path);
    source.attach(IDENTITY, target.state()).await.unwrap();
    let before = proxy.commands();
    source.backlog().await.unwrap();
    assert_eq!(proxy.commands() - before, 1);
}

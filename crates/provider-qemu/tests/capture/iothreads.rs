//! Disks that I/O threads serve: on a QEMU that bears no filter there, captures are copies. Whichever form they take, they
//! give exactly what the disks held.

use farshore_blocks::{ByteCount, Sequence};
use farshore_provider::{Capture, CaptureKind, CheckOutcome, Outcome, Source, Tracking};
use serde_json::{Value, json};

use crate::{
    deaths::{die_at_each_command, die_in_each_stage},
    replica::{IDENTITY, Model, Target, protected},
    vm::{DISK_BYTES, Kind, PowerOff, Vm},
};

pub(crate) const THREADED_PAIR: &[Kind] = &[Kind::RawWithIothread, Kind::Qcow2WithIothread];

/// Every kind of disk that a thread serves, and one that none does.
const MIXED: &[Kind] = &[
    Kind::RawWithIothread,
    Kind::Qcow2WithIothread,
    Kind::ScsiRawWithIothread,
    Kind::RawWithMetadataAndIothread,
    Kind::Qcow2,
];

#[tokio::test]
async fn disks_with_io_threads_and_without_are_fit_and_captured_at_one_instant() {
    let (vm, mut model, mut target) = protected(MIXED).await;
    let mut source = vm.source();
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    for _ in 0..10 {
        model.scribble(&vm).await;
        target.instant(&mut source, &vm, &mut model).await.unwrap();
    }
    let checks = source.checks().await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    source.detach().await.unwrap();
    assert_eq!(vm.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn a_copy_that_failed_is_given_again_with_what_changed_meanwhile() {
    let (vm, mut model, mut target) = protected(THREADED_PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    for _ in 0..3 {
        let capture = source.begin(CaptureKind::Instant, Sequence(2)).await.unwrap();
        model.scribble(&vm).await;
        source.finish(capture, Outcome::Failed).await.unwrap();
        model.scribble(&vm).await;
    }
    target.instant(&mut source, &vm, &mut model).await.unwrap();
    target.open_scan();
    source.begin_scan(target.newest.next()).await.unwrap();
    let scan = source
        .begin(CaptureKind::Scan, target.newest.next())
        .await
        .unwrap();
    source.finish(scan, Outcome::Failed).await.unwrap();
    target.live(&mut source, CaptureKind::Scan).await.unwrap();
    let round = source
        .begin(CaptureKind::Round, target.newest.next())
        .await
        .unwrap();
    model.scribble(&vm).await;
    source.finish(round, Outcome::Failed).await.unwrap();
    target.rest_of_scan(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn what_disks_with_io_threads_grew_by_is_in_the_next_copy_and_in_none_after_it() {
    for kind in [Kind::RawWithIothread, Kind::Qcow2WithIothread] {
        let (vm, mut model, mut target) = protected(&[kind]).await;
        let mut source = vm.source();
        source.attach(IDENTITY, target.state()).await.unwrap();
        model.scribble(&vm).await;
        target.instant(&mut source, &vm, &mut model).await.unwrap();
        let grown = DISK_BYTES * 2;
        let size = json!({"node-name": "node0", "size": grown});
        vm.command("block_resize", size).await.unwrap();
        // The first capture of it shows the device what was done below it, where need be.
        let next = target.newest.next();
        let capture = source.begin(CaptureKind::Instant, next).await.unwrap();
        source.finish(capture, Outcome::Failed).await.unwrap();
        vm.qemu_io(0, &format!("write -P 9 {} 4096", DISK_BYTES + 8192))
            .await;
        for outcome in [Outcome::Failed, Outcome::Done] {
            let capture = source.begin(CaptureKind::Instant, next).await.unwrap();
            let volume = &capture.volumes()[0];
            assert_eq!(volume.size, ByteCount(grown as u64));
            let last = volume.extents.last().unwrap();
            assert_eq!(last.extent.start().0, DISK_BYTES as u64);
            assert_eq!(last.extent.end().0, grown as u64);
            let bytes = capture.read(volume.index, last.extent).await.unwrap();
            let mut expected = vec![0; DISK_BYTES];
            expected[8192..8192 + 4096].fill(9);
            assert!(bytes == expected, "{kind:?}, {outcome:?}");
            source.finish(capture, outcome).await.unwrap();
        }
        vm.qemu_io(0, &format!("write -P 8 {} 4096", grown - 4096)).await;
        let capture = source.begin(CaptureKind::Instant, next.next()).await.unwrap();
        let extents = &capture.volumes()[0].extents;
        assert_eq!(extents.len(), 1, "{extents:?}");
        assert!(
            extents[0].extent.start().0 >= (grown - 65536) as u64,
            "{extents:?}"
        );
        source.finish(capture, Outcome::Done).await.unwrap();
    }
}

#[tokio::test]
async fn a_successor_goes_on_from_every_stage_of_copying() {
    die_in_each_stage(THREADED_PAIR).await;
}

#[tokio::test]
async fn whichever_command_of_a_copy_is_the_last_one_the_next_is_exact() {
    die_at_each_command(THREADED_PAIR).await;
}

#[tokio::test]
async fn an_operators_pause_is_left_as_it_is_by_copies() {
    let (vm, mut model, mut target) = protected(THREADED_PAIR).await;
    vm.command("stop", Value::Null).await.unwrap();
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.instant(&mut source, &vm, &mut model).await.unwrap();
    target.initial(&mut source, &vm, &mut model).await.unwrap();
    source.detach().await.unwrap();
    let status = vm.command("query-status", Value::Null).await.unwrap();
    assert_eq!(status["status"], "paused");
}

#[tokio::test]
async fn a_qcow2_disk_with_an_io_thread_keeps_tracking_over_a_power_off() {
    let (mut vm, mut model, mut target) = protected(&[Kind::Qcow2WithIothread]).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    let open = source
        .begin(CaptureKind::Instant, target.newest.next())
        .await
        .unwrap();
    vm.power_off(PowerOff::Orderly).await;
    drop(open);
    vm.power_on().await;
    model.scribble(&vm).await;
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!(tracking, Tracking::SincePoint);
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

/// Metadata of an image that QEMU had not yet written down when tracking began.
#[tokio::test]
async fn what_was_written_just_before_tracking_began_is_in_the_scan() {
    for _ in 0..5 {
        let vm = Vm::start(&[Kind::Qcow2WithIothread]).await;
        let (mut model, mut target) = (Model::new(1), Target::new(1));
        let mut source = vm.source();
        source.attach(IDENTITY, target.state()).await.unwrap();
        for _ in 0..10 {
            model.scribble(&vm).await;
        }
        target.initial(&mut source, &vm, &mut model).await.unwrap();
    }
}

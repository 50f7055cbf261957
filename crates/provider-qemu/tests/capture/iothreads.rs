//! Disks that I/O threads serve: on a QEMU that bears no filter there, captures are copies. Whichever form they take, they
//! give exactly what the disks held.

use farshore_blocks::Sequence;
use farshore_provider::{CaptureKind, CheckOutcome, Outcome, Source, Tracking};
use serde_json::Value;

use crate::{
    deaths::{die_at_each_command, die_in_each_stage},
    replica::{IDENTITY, Model, Target, protected},
    vm::{Kind, PowerOff, Vm},
};

const THREADED_PAIR: &[Kind] = &[Kind::RawWithIothread, Kind::Qcow2WithIothread];

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

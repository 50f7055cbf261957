//! VMs that are switched off, killed and started again.

use farshore_provider::{CaptureKind, Source, SourceError, Tracking};

use crate::{
    replica::{IDENTITY, Model, PAIR, Target, protected},
    vm::{Kind, PowerOff, Vm},
};

#[tokio::test]
async fn a_qcow2_disk_keeps_tracking_over_an_orderly_power_off() {
    let (mut vm, mut model, mut target) = protected(&[Kind::Qcow2]).await;
    vm.power_off(PowerOff::Orderly).await;
    vm.power_on().await;
    model.scribble(&vm).await;
    let mut source = vm.source();
    assert_eq!(
        source.attach(IDENTITY, target.state()).await.unwrap(),
        Tracking::SincePoint
    );
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

#[tokio::test]
async fn a_qcow2_disk_keeps_tracking_when_powered_off_in_the_middle_of_a_capture() {
    let (mut vm, mut model, mut target) = protected(&[Kind::Qcow2]).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    let open = source
        .begin(CaptureKind::Instant, target.newest.next())
        .await
        .unwrap();
    model.scribble(&vm).await;
    vm.power_off(PowerOff::Orderly).await;
    drop(open);
    let gone = source.backlog().await;
    assert!(matches!(gone, Err(SourceError::Monitor { .. })), "{gone:?}");
    let again = source
        .begin(CaptureKind::Instant, target.newest.next())
        .await
        .map(drop);
    assert!(
        matches!(again, Err(SourceError::TrackingLost { .. })),
        "{again:?}"
    );
    vm.power_on().await;
    model.scribble(&vm).await;
    assert_eq!(
        source.attach(IDENTITY, target.state()).await.unwrap(),
        Tracking::SincePoint
    );
    target.instant(&mut source, &vm, &mut model).await.unwrap();
}

/// Attaches after a restart in which tracking must have been lost, and starts over.
async fn starts_over(vm: &Vm, model: &mut Model, target: &mut Target) {
    model.scribble(vm).await;
    let mut source = vm.source();
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert!(
        matches!(&tracking, Tracking::Lost { why } if why.contains("disk")),
        "{tracking:?}"
    );
    target.resume(&mut source, vm, model, &tracking).await.unwrap();
}

#[tokio::test]
async fn a_raw_disk_loses_tracking_at_power_off_and_that_is_said() {
    let (mut vm, mut model, mut target) = protected(PAIR).await;
    vm.power_off(PowerOff::Orderly).await;
    vm.power_on().await;
    starts_over(&vm, &mut model, &mut target).await;
}

#[tokio::test]
async fn a_raw_disk_with_metadata_beside_it_keeps_tracking_and_stays_raw() {
    let (mut vm, mut model, mut target) = protected(&[Kind::RawWithMetadata]).await;
    for _ in 0..2 {
        vm.power_off(PowerOff::Orderly).await;
        assert!(
            std::fs::read(vm.path("disk-0")).unwrap() == model.disks[0],
            "it is not raw any more"
        );
        vm.power_on().await;
        model.scribble(&vm).await;
        let mut source = vm.source();
        assert_eq!(
            source.attach(IDENTITY, target.state()).await.unwrap(),
            Tracking::SincePoint
        );
        target.instant(&mut source, &vm, &mut model).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_vm_loses_tracking_and_that_is_said() {
    let (mut vm, mut model, mut target) = protected(&[Kind::Qcow2]).await;
    // The bitmap is of the image from here on, and inconsistent after the kill.
    vm.power_off(PowerOff::Orderly).await;
    vm.power_on().await;
    vm.qemu_io(0, "flush").await;
    vm.power_off(PowerOff::Killed).await;
    vm.power_on().await;
    starts_over(&vm, &mut model, &mut target).await;
}

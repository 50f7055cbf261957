//! A process that dies at any moment, and its successor.

use farshore_provider::{CaptureKind, Outcome, Source, SourceError, Tracking};
use farshore_provider_qemu::QemuSource;

use crate::{
    proxy::{Cut, Proxy},
    replica::{IDENTITY, Model, PAIR, Target, assert_equal, protected},
    vm::{Kind, Vm},
};

/// Where a process died, and what had been sealed by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    InScan,
    InRound,
    AfterRoundShipped,
    InInstantOfScan,
    AfterSealOfScan,
    InInstant,
    AfterSeal,
}

#[tokio::test]
async fn a_successor_goes_on_from_every_stage_in_which_a_process_can_die() {
    die_in_each_stage(PAIR).await;
}

/// Leaves a VM at each stage as a dead process does, one VM after the other.
pub(crate) async fn die_in_each_stage(kinds: &[Kind]) {
    for death in [
        Death::InScan,
        Death::InRound,
        Death::AfterRoundShipped,
        Death::InInstantOfScan,
        Death::AfterSealOfScan,
        Death::InInstant,
        Death::AfterSeal,
    ] {
        let (vm, mut model, mut target) = protected(kinds).await;
        die(death, &vm, &mut model, &mut target).await;
        model.scribble(&vm).await;
        let mut successor = vm.source();
        let tracking = successor.attach(IDENTITY, target.state()).await.unwrap();
        let expected = match death {
            Death::InScan | Death::InRound | Death::AfterRoundShipped | Death::InInstantOfScan => {
                Tracking::SinceScan
            }
            Death::AfterSealOfScan | Death::InInstant | Death::AfterSeal => Tracking::SincePoint,
        };
        assert_eq!(tracking, expected, "{death:?}");
        target
            .resume(&mut successor, &vm, &mut model, &tracking)
            .await
            .unwrap();
        target.instant(&mut successor, &vm, &mut model).await.unwrap();
    }
}

/// Lives until `death`; whatever is open is dropped without an end.
async fn die(death: Death, vm: &Vm, model: &mut Model, target: &mut Target) {
    let mut source = vm.source();
    let next = target.newest.next();
    source.attach(IDENTITY, target.state()).await.unwrap();
    if !matches!(death, Death::InInstant | Death::AfterSeal) {
        target.open_scan();
        source.begin_scan(next).await.unwrap();
        let scan = source.begin(CaptureKind::Scan, next).await.unwrap();
        target.scan = Some(target.with(&scan).await.unwrap());
        target.scanned = true;
        if death == Death::InScan {
            return;
        }
        source.finish(scan, Outcome::Done).await.unwrap();
        model.scribble(vm).await;
        let round = source.begin(CaptureKind::Round, next).await.unwrap();
        model.scribble(vm).await;
        if death == Death::InRound {
            return;
        }
        target.scan = Some(target.with(&round).await.unwrap());
        if death == Death::AfterRoundShipped {
            return;
        }
        source.finish(round, Outcome::Done).await.unwrap();
    }
    let instant = source.begin(CaptureKind::Instant, next).await.unwrap();
    let then = model.disks.clone();
    model.scribble(vm).await;
    let disks = target.with(&instant).await.unwrap();
    assert_equal(&disks, &then);
    if matches!(death, Death::AfterSeal | Death::AfterSealOfScan) {
        target.seal(disks);
    }
}

/// One life of a process: it attaches, repeats a scan if it must, takes a failed instant and a good one.
async fn life(
    source: &mut QemuSource,
    vm: &Vm,
    model: &mut Model,
    target: &mut Target,
) -> Result<(), SourceError> {
    source.attach(IDENTITY, target.state()).await?;
    target.initial(source, vm, model).await?;
    model.scribble(vm).await;
    let failed = source.begin(CaptureKind::Instant, target.newest.next()).await?;
    source.finish(failed, Outcome::Failed).await?;
    target.instant(source, vm, model).await?;
    source.backlog().await.map(drop)
}

#[tokio::test]
async fn whichever_command_is_the_last_one_the_next_capture_is_exact() {
    die_at_each_command(PAIR).await;
}

/// Cuts the line at each command of a life, one life after the other.
pub(crate) async fn die_at_each_command(kinds: &[Kind]) {
    let (vm, mut model, mut target) = protected(kinds).await;
    let (mut since_point, mut since_scan, mut lost) = (0, 0, 0);
    for cut in [Cut::Racing, Cut::After] {
        for at in 1.. {
            let proxy = Proxy::start(vm.path("proxy"), vm.monitor(), at, cut);
            let mut doomed = vm.source_at(&proxy.path);
            let lived = life(&mut doomed, &vm, &mut model, &mut target).await;
            drop(doomed);
            let reached = proxy.commands() >= at;
            assert_eq!(lived.is_err(), reached, "{cut:?} {at}: {lived:?}");
            drop(proxy);
            model.scribble(&vm).await;
            let mut successor = vm.source();
            let tracking = successor.attach(IDENTITY, target.state()).await;
            let tracking = tracking.unwrap_or_else(|error| panic!("{cut:?} {at}: {error:?}"));
            match &tracking {
                Tracking::SincePoint => since_point += 1,
                Tracking::SinceScan => since_scan += 1,
                // Only between the opening of a scan at the target and the beginning of its tracking.
                Tracking::Lost { why } => {
                    assert!(target.scan.is_some(), "{cut:?} {at}: {why}");
                    lost += 1;
                }
            }
            target
                .resume(&mut successor, &vm, &mut model, &tracking)
                .await
                .unwrap();
            assert_eq!(vm.leftovers().await.len(), 6, "{cut:?} {at}");
            if !reached {
                break;
            }
        }
    }
    assert!(
        since_point > 30 && since_scan > 30 && lost > 0,
        "{since_point} {since_scan} {lost}"
    );
}

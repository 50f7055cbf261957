//! Fences that are ordered through the vault's directory.

use super::*;
use crate::fence_request::{FenceRequest, Withdrawn};

/// Awaits what `look` finds.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it in time")
}

fn soon() -> WallTime {
    WallTime(WallTime::now().0 + 60_000_000_000)
}

#[tokio::test]
async fn a_request_in_the_vaults_directory_fences_the_source_that_is_connected() {
    let site = Site::start().await;
    let stop = CancellationToken::new();
    let answering = tokio::spawn(answer_fence_requests(site.targets.clone(), stop.clone()));
    let mut peer = site.dial_into_cycle().await;
    let holder = HolderNonce::from_bytes([7; 16]);
    let vault = site.targets.vault().path().to_owned();
    let request = FenceRequest::new(&vault, CHAIN, holder);
    request.place(soon()).unwrap();
    let reader = VaultReader::open(&vault).unwrap();
    let granted = eventually(|| {
        let epoch = reader.current_epoch(CHAIN).unwrap().unwrap();
        (epoch.holder == holder).then_some(epoch)
    })
    .await;
    assert_eq!(granted.number, site.epoch.number + 1);
    assert_eq!(request.withdraw().unwrap(), Withdrawn::TooLate);
    peer.say(changes(1, vec![convert::frame_out(&frame(0))])).await;
    assert_eq!(peer.refusal().await.reason(), RefusalReason::Fenced);
    assert_eq!(site.targets.standings()[0].1.epoch, Some(granted));
    stop.cancel();
    answering.await.unwrap();
}

#[tokio::test]
async fn a_request_that_cannot_be_granted_is_answered_and_a_late_one_is_void() {
    let site = Site::start().await;
    let vault = site.targets.vault().path().to_owned();
    let holder = HolderNonce::from_bytes([7; 16]);
    let late = FenceRequest::new(&vault, CHAIN, holder);
    late.place(WallTime(1)).unwrap();
    let unknown = FenceRequest::new(&vault, ChainId::from_bytes([8; 16]), holder);
    unknown.place(soon()).unwrap();
    let stop = CancellationToken::new();
    let answering = tokio::spawn(answer_fence_requests(site.targets.clone(), stop.clone()));
    let why = eventually(|| unknown.refusal()).await;
    assert!(why.contains("has no chain"), "{why}");
    eventually(|| FenceRequest::waiting(&vault).unwrap().is_empty().then_some(())).await;
    stop.cancel();
    answering.await.unwrap();
    let reader = VaultReader::open(&vault).unwrap();
    assert_eq!(reader.current_epoch(CHAIN).unwrap(), Some(site.epoch));
}

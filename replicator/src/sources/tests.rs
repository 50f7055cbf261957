//! Sources whose VM and target are not there: what is told of them holds all the same.

use std::time::Duration;

use farshore_blocks::{Epoch, HolderNonce};
use tempfile::TempDir;

use super::*;
use crate::source::{LinkLimit, Own};

const CHAIN: ChainId = ChainId::from_bytes([3; 16]);
const FASTER: SourcePolicy = SourcePolicy {
    interval: Duration::from_millis(500),
    bandwidth: Some(ByteCount(1 << 20)),
    link: None,
    audit_rate: ByteCount(0),
    guest_cost_limit_percent: 0,
    app_consistency: None,
};

fn assigned(standing: Standing) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let machine = serde_json::json!({
        "vm": "vm", "uuid": null, "processors": 1, "memory": 1024, "firmware": "bios", "machineType": "pc",
        "nics": [], "disks": [{"name": "root", "device": "a", "bus": "virtioBlk"}],
    });
    let assignment = Assignment {
        chain: CHAIN,
        epoch: Epoch {
            number: 1,
            holder: HolderNonce::from_bytes([1; 16]),
        },
        standing,
        machine: serde_json::from_value(machine).unwrap(),
        place: SourcePlace::Monitor(directory.path().join("no-monitor")),
        target_endpoint: "http://127.0.0.1:1".to_owned(),
        interval: Duration::from_secs(2),
        bandwidth: None,
        link: None,
        audit_rate: ByteCount(0),
        guest_cost_limit_percent: 0,
        app_consistency: None,
        guest_agent: None,
        membership: None,
        volumes: Vec::new(),
    };
    let files = assignment::open(directory.path()).unwrap();
    files.keep(CHAIN, &assignment).unwrap();
    directory
}

async fn open(directory: &TempDir) -> Sources {
    let scratch = directory.path().join("scratch");
    let metrics = Metrics::new().unwrap();
    let own = Own {
        name: "east-1".to_owned(),
        site: "east".to_owned(),
    };
    Sources::open(
        directory.path(),
        (scratch, PathBuf::from("farshore")),
        Peers {
            plaintext: Plaintext::LoopbackOnly,
            offers: Offers::default(),
            groups: Groups::new(own, Plaintext::LoopbackOnly),
        },
        metrics,
    )
    .await
    .unwrap()
}

async fn only(sources: &Sources) -> (Assignment, SourceState) {
    let mut states = sources.states().await;
    assert_eq!(states.len(), 1);
    states.remove(0)
}

#[tokio::test]
async fn a_changed_policy_is_gone_by_at_once_and_after_a_restart() {
    for standing in [Standing::Installed, Standing::Enabled, Standing::Fenced] {
        let directory = assigned(standing);
        let sources = open(&directory).await;
        sources.set_policy(CHAIN, FASTER, None).await.unwrap();
        sources.set_policy(CHAIN, FASTER, None).await.unwrap();
        let (assignment, _) = only(&sources).await;
        assert_eq!((assignment.policy(), assignment.standing), (FASTER, standing));
        let runs = sources.seats.lock().await[&CHAIN].running.is_some();
        assert_eq!(runs, standing == Standing::Enabled);
        sources.shut_down().await;
        let (assignment, _) = only(&open(&directory).await).await;
        assert_eq!((assignment.policy(), assignment.standing), (FASTER, standing));
    }
}

#[tokio::test]
async fn a_links_limit_is_gone_by_without_ending_an_engine_and_after_a_restart() {
    let directory = assigned(Standing::Enabled);
    let sources = open(&directory).await;
    let limited = |to: &str, bytes: u64| SourcePolicy {
        link: Some(LinkLimit {
            to: to.to_owned(),
            bandwidth: Some(ByteCount(bytes)),
            hours: Vec::new(),
            connections: None,
        }),
        ..FASTER
    };
    sources
        .set_policy(CHAIN, limited("west", 1 << 20), None)
        .await
        .unwrap();
    let engine = async || {
        let seats = sources.seats.lock().await;
        seats[&CHAIN].running.as_ref().unwrap().task.id()
    };
    let before = engine().await;
    sources
        .set_policy(CHAIN, limited("west", 2 << 20), None)
        .await
        .unwrap();
    assert_eq!(engine().await, before);
    sources
        .set_policy(CHAIN, limited("north", 2 << 20), None)
        .await
        .unwrap();
    assert_ne!(engine().await, before, "it is another link");
    sources.shut_down().await;
    let (assignment, _) = only(&open(&directory).await).await;
    assert_eq!(assignment.policy(), limited("north", 2 << 20));
}

#[tokio::test]
async fn a_source_that_was_fenced_stays_so_by_another_policy() {
    let directory = assigned(Standing::Installed);
    let sources = open(&directory).await;
    let mut seats = sources.seats.lock().await;
    let seat = seats.get_mut(&CHAIN).unwrap();
    // As its engine leaves it: on disk it is fenced, the seat has not heard of it.
    seat.assignment.standing = Standing::Enabled;
    sources.start(seat);
    sources.end(seat).await.unwrap();
    seat.state.send_modify(|state| state.phase = SourcePhase::Fenced);
    let stop = CancellationToken::new();
    let source = sources.source_of(&seat.assignment);
    let task = tokio::spawn(async move { source });
    seat.running = Some(Running { stop, task });
    drop(seats);
    sources.set_policy(CHAIN, FASTER, None).await.unwrap();
    let (assignment, state) = only(&sources).await;
    assert_eq!(
        (assignment.standing, state.phase),
        (Standing::Fenced, SourcePhase::Fenced)
    );
    let (assignment, state) = only(&open(&directory).await).await;
    assert_eq!((assignment.policy(), state.phase), (FASTER, SourcePhase::Fenced));
}

#[tokio::test]
async fn a_chain_that_is_not_assigned_is_told_nothing() {
    let directory = assigned(Standing::Installed);
    let sources = open(&directory).await;
    let other = sources
        .set_policy(ChainId::from_bytes([4; 16]), FASTER, None)
        .await;
    assert!(matches!(other, Err(SourcesError::NotAssigned(_))), "{other:?}");
}

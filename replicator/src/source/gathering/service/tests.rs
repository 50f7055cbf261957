//! Two replicators of a site, over a network.

use std::time::Duration;

use farshore_provider::{Accord, Participant};
use tokio::{task::JoinHandle, time::Instant};

use super::*;
use crate::{
    assignment::{GroupLeader, Membership},
    configuration::Plaintext,
    source::gathering::{Meeting, Own, Seat, Wants},
};

const LONG: Duration = Duration::from_secs(20);

fn groups(name: &str) -> Groups {
    let own = Own {
        name: name.to_owned(),
        site: "east".to_owned(),
    };
    Groups::new(own, Plaintext::LoopbackOnly)
}

fn sit(groups: &Groups, vm: &str, endpoint: &str) -> Seat {
    let membership = Membership {
        group: "shop".to_owned(),
        members: vec!["a".to_owned(), "b".to_owned()],
        hold_limit: Duration::from_secs(5),
        watchdog_monitor: None,
        leader: Some(GroupLeader {
            replicator: "east-1".to_owned(),
            endpoint: endpoint.to_owned(),
        }),
    };
    groups.place(&membership, vm).sit()
}

async fn take(participant: Participant) -> Accord {
    participant.prepared().await.unwrap();
    participant.standing(Instant::now() + LONG).await.unwrap();
    participant.taken(Ok(())).await
}

/// Until both take an instant together; `why` each was alone until then.
async fn together(first: &mut Seat, second: &mut Seat) -> Vec<String> {
    let mut alone = Vec::new();
    let began = Instant::now();
    loop {
        let deadline = Instant::now() + Duration::from_millis(200);
        let met = tokio::join!(
            first.meet(Wants::Instant, deadline),
            second.meet(Wants::Instant, deadline)
        );
        match met {
            (Meeting::Together(one), Meeting::Together(other)) => {
                let id = one.id();
                let accords = tokio::join!(take(one), take(other));
                assert_eq!(accords, (Accord::Together(id), Accord::Together(id)));
                return alone;
            }
            (one, other) => {
                for meeting in [one, other] {
                    if let Meeting::Alone { why } = meeting {
                        alone.push(why);
                    }
                }
            }
        }
        assert!(began.elapsed() < LONG, "they do not meet: {alone:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn lead(listen: &str) -> (Groups, String, CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (leading, stop) = (groups("east-1"), CancellationToken::new());
    let serving = tokio::spawn(serve(listener, leading.clone(), stop.clone()));
    (leading, address, stop, serving)
}

#[tokio::test]
async fn members_of_two_replicators_meet_and_meet_again_when_the_leader_was_away() {
    let (leading, address, stop, serving) = lead("127.0.0.1:0").await;
    let endpoint = format!("http://{address}");
    let (mut first, mut second) = (
        sit(&leading, "a", &endpoint),
        sit(&groups("east-2"), "b", &endpoint),
    );
    together(&mut first, &mut second).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
    let alone = second.meet(Wants::Instant, Instant::now() + LONG).await;
    assert!(matches!(alone, Meeting::Alone { .. }), "{alone:?}");
    drop(first);
    let (leading, _, stop, serving) = lead(&address).await;
    let mut first = sit(&leading, "a", &endpoint);
    let alone = together(&mut first, &mut second).await;
    println!("meanwhile: {alone:?}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn members_follow_when_another_replicator_leads() {
    let (leading, address, stop, serving) = lead("127.0.0.1:0").await;
    // Both were told of one that is not there.
    let following = groups("east-2");
    let (mut first, mut second) = (
        sit(&leading, "a", "http://127.0.0.1:1"),
        sit(&following, "b", "http://127.0.0.1:1"),
    );
    let alone = second.meet(Wants::Instant, Instant::now() + LONG).await;
    assert!(matches!(alone, Meeting::Alone { .. }), "{alone:?}");
    let endpoint = format!("http://{address}");
    drop(sit(&following, "not-here", &endpoint));
    together(&mut first, &mut second).await;
    drop((first, second));
    stop.cancel();
    serving.await.unwrap().unwrap();
}

//! What a peer may say, and what becomes of one that says anything else.

use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{assignment::Membership, source::gathering::Wants};

const SOON: Duration = Duration::from_secs(1);

struct Peer {
    words: mpsc::Sender<Result<Said, String>>,
    answers: mpsc::Receiver<Numbered<FromLeader>>,
    hosted: JoinHandle<Ended>,
    number: u64,
}

impl Peer {
    fn of(tables: &Tables) -> Self {
        let (words, said) = mpsc::channel(8);
        let (answer, answers) = mpsc::channel(8);
        let tables = tables.clone();
        let hosted = tokio::spawn(async move {
            let own = Own {
                name: "east-1".to_owned(),
                site: "east".to_owned(),
            };
            host((&own, &tables), ReceiverStream::new(said), answer).await
        });
        Self {
            words,
            answers,
            hosted,
            number: 0,
        }
    }

    async fn say(&mut self, said: FromMember) {
        self.number += 1;
        let number = self.number;
        self.words.send(Ok(Numbered { number, said })).await.unwrap();
    }

    async fn hears(&mut self) -> FromLeader {
        let answer = self.answers.recv().await.unwrap();
        assert_eq!(answer.number, self.number);
        answer.said
    }
}

fn membership() -> Membership {
    Membership {
        group: "shop".to_owned(),
        members: vec!["a".to_owned(), "b".to_owned()],
        hold_limit: SOON,
        watchdog_monitor: None,
        leader: None,
    }
}

fn sit(site: &str, vm: &str) -> FromMember {
    FromMember::Sit(Sitting {
        site: site.to_owned(),
        replicator: "east-2".to_owned(),
        vm: vm.to_owned(),
        membership: membership(),
    })
}

/// One of here and one that is spoken for, in a round.
async fn in_a_round(tables: &Tables) -> (Chair, Participant, Peer, InstantId) {
    let chair = tables.sit(membership(), "a");
    let mut peer = Peer::of(tables);
    peer.say(sit("east", "b")).await;
    assert_eq!(peer.hears().await, FromLeader::Seated);
    let (wants, within) = (Wants::Instant, SOON);
    peer.say(FromMember::Come { wants, within }).await;
    let met = chair.meet(Wants::Nothing, Instant::now() + SOON).await;
    let Meeting::Together(participant) = met else {
        panic!("{met:?}");
    };
    let FromLeader::Together(id) = peer.hears().await else {
        panic!("it hears something else");
    };
    (chair, participant, peer, id)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_anything_out_of_turn_breaks_its_round_and_leaves() {
    let within = SOON;
    let wrong = |id: InstantId| {
        [
            // Twice would count for two.
            vec![FromMember::Prepared(id), FromMember::Prepared(id)],
            vec![FromMember::Standing { id, within }],
            vec![FromMember::Taken(id)],
            vec![FromMember::Prepared(InstantId(id.0 ^ 1))],
            vec![sit("east", "b")],
            vec![FromMember::Come {
                wants: Wants::Instant,
                within,
            }],
        ]
    };
    for which in 0..6 {
        let tables = Tables::default();
        let (_chair, participant, mut peer, id) = in_a_round(&tables).await;
        for word in wrong(id)[which].clone() {
            peer.say(word).await;
        }
        let ended = peer.hosted.await.unwrap();
        assert!(matches!(ended, Ended::OutOfTurn(_)), "{which}: {ended}");
        let why = participant.prepared().await.unwrap_err();
        assert!(why.contains("b went away"), "{which}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_with_one_that_is_spoken_for_goes_through_its_three_meetings() {
    let tables = Tables::default();
    let (chair, participant, mut peer, id) = in_a_round(&tables).await;
    peer.say(FromMember::Prepared(id)).await;
    let at = participant.prepared().await.unwrap();
    assert_eq!(peer.hears().await, FromLeader::Settled { at: Some(at) });
    let within = SOON;
    peer.say(FromMember::Standing { id, within }).await;
    participant.standing(Instant::now() + SOON).await.unwrap();
    assert_eq!(peer.hears().await, FromLeader::Settled { at: None });
    peer.say(FromMember::Taken(id)).await;
    assert_eq!(participant.taken(Ok(())).await, Accord::Together(id));
    assert_eq!(peer.hears().await, FromLeader::Settled { at: None });
    chair.sealed(GroupInstant { id, at });
    assert_eq!(chair.newest(), None);
    peer.say(FromMember::Sealed(id)).await;
    peer.number = 0;
    let newest = GroupInstant { id, at };
    assert_eq!(peer.hears().await, FromLeader::Newest(newest));
    assert_eq!(chair.newest(), Some(newest));
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_up_says_why_and_stays() {
    let tables = Tables::default();
    let (chair, participant, mut peer, id) = in_a_round(&tables).await;
    peer.say(FromMember::Prepared(id)).await;
    participant.prepared().await.unwrap();
    let why = "no watchdog".to_owned();
    peer.say(FromMember::GivenUp { id, why }).await;
    let told = participant.standing(Instant::now() + SOON).await.unwrap_err();
    assert_eq!(told, "b: no watchdog");
    drop(participant);
    assert!(matches!(peer.hears_late().await, FromLeader::Settled { .. }));
    let (wants, within) = (Wants::Nothing, SOON);
    peer.say(FromMember::Come { wants, within }).await;
    let met = chair.meet(Wants::Nothing, Instant::now() + SOON).await;
    assert!(matches!(met, Meeting::Idle), "{met:?}");
    assert_eq!(peer.hears().await, FromLeader::Idle);
}

impl Peer {
    /// What answers something that was said before the last.
    async fn hears_late(&mut self) -> FromLeader {
        let answer = self.answers.recv().await.unwrap();
        assert!(answer.number < self.number);
        answer.said
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_of_another_site_or_takes_anothers_seat_or_says_nothing_is_refused() {
    let tables = Tables::default();
    let mut stranger = Peer::of(&tables);
    stranger.say(sit("west", "b")).await;
    assert!(matches!(stranger.hosted.await.unwrap(), Ended::OtherSite { .. }));
    let chair = tables.sit(membership(), "a");
    let mut thief = Peer::of(&tables);
    thief.say(sit("east", "a")).await;
    assert!(matches!(thief.hosted.await.unwrap(), Ended::Refused(_)));
    let silent = Peer::of(&tables);
    assert_eq!(silent.hosted.await.unwrap(), Ended::Silent);
    // One that comes again before its lost stream was noticed takes its own place.
    let (mut lost, mut again) = (Peer::of(&tables), Peer::of(&tables));
    for peer in [&mut lost, &mut again] {
        peer.say(sit("east", "b")).await;
        assert_eq!(peer.hears().await, FromLeader::Seated);
    }
    drop(lost.words);
    assert_eq!(lost.hosted.await.unwrap(), Ended::Left);
    let (wants, within) = (Wants::Nothing, SOON);
    again.say(FromMember::Come { wants, within }).await;
    let met = chair.meet(Wants::Nothing, Instant::now() + SOON).await;
    assert!(matches!(met, Meeting::Idle), "{met:?}");
}

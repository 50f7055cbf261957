//! What a member makes of what it hears, word by word.

use std::{fmt, sync::Mutex};

use farshore_provider::Participant;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{assignment::Membership, source::gathering::dialling::Dialling};

const SECOND: Duration = Duration::from_secs(1);

/// The leader's end of a stream.
struct Leader {
    words: mpsc::Receiver<Numbered<FromMember>>,
    answers: mpsc::Sender<Result<Numbered<FromLeader>, String>>,
}

struct OneLine(Mutex<Option<Line>>);

impl fmt::Debug for OneLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("OneLine")
    }
}

impl Dial for OneLine {
    fn dial<'a>(&'a self, _endpoint: &'a str) -> Dialling<'a> {
        let line = self.0.lock().unwrap().take();
        Box::pin(std::future::ready(line.ok_or("there is but one".to_owned())))
    }
}

impl Leader {
    async fn heard(&mut self) -> Numbered<FromMember> {
        self.words.recv().await.unwrap()
    }

    async fn say(&self, number: u64, said: FromLeader) {
        self.answers.send(Ok(Numbered { number, said })).await.unwrap();
    }

    async fn answer_next(&mut self, said: FromLeader) -> FromMember {
        let heard = self.heard().await;
        self.say(heard.number, said).await;
        heard.said
    }

    /// Until the member takes part in a round of this number and has prepared.
    async fn round(&mut self, attendance: &Attendance, number: u64) -> Participant {
        let (met, _) = tokio::join!(
            attendance.meet(Wants::Instant, Instant::now() + SECOND),
            self.answer_next(FromLeader::Together(InstantId(number)))
        );
        let Meeting::Together(participant) = met else {
            panic!("{met:?}");
        };
        assert_eq!(participant.id(), InstantId(number));
        let settled = FromLeader::Settled {
            at: Some(WallTime::now()),
        };
        let (prepared, _) = tokio::join!(participant.prepared(), self.answer_next(settled));
        prepared.unwrap();
        participant
    }
}

async fn attending() -> (Attendance, Leader) {
    let (outgoing, words) = mpsc::channel(8);
    let (answers, incoming) = mpsc::channel(8);
    let line = Line {
        outgoing,
        incoming: Box::pin(ReceiverStream::new(incoming)),
    };
    let sitting = Sitting {
        site: "east".to_owned(),
        replicator: "east-2".to_owned(),
        vm: "b".to_owned(),
        membership: Membership {
            group: "shop".to_owned(),
            members: vec!["a".to_owned(), "b".to_owned()],
            hold_limit: SECOND,
            watchdog_monitor: None,
            leader: None,
        },
    };
    let leader = GroupLeader {
        replicator: "east-1".to_owned(),
        endpoint: "http://east-1".to_owned(),
    };
    let attendance = Attendance::begin(leader, Arc::new(OneLine(Mutex::new(Some(line)))), sitting);
    let mut leader = Leader { words, answers };
    let first = leader.answer_next(FromLeader::Seated).await;
    assert!(matches!(first, FromMember::Sit(_)));
    (attendance, leader)
}

const SETTLED: FromLeader = FromLeader::Settled { at: None };

#[tokio::test(start_paused = true)]
async fn that_all_stand_still_counts_only_for_the_standing_that_it_answers() {
    let (attendance, mut leader) = attending().await;
    let participant = leader.round(&attendance, 1).await;
    let (stood, asked) = tokio::join!(participant.standing(Instant::now() + SECOND), leader.heard());
    assert!(stood.is_err());
    assert!(matches!(leader.heard().await.said, FromMember::GivenUp { .. }));
    drop(participant);
    // It comes all the same, late, and once more while the guest stands still for the next instant.
    leader.say(asked.number, SETTLED).await;
    let participant = leader.round(&attendance, 2).await;
    let late_and_right = async {
        let heard = leader.heard().await;
        leader.say(asked.number, SETTLED).await;
        sleep(SECOND / 2).await;
        leader.say(heard.number, SETTLED).await;
    };
    let began = Instant::now();
    let (stood, ()) = tokio::join!(participant.standing(Instant::now() + SECOND), late_and_right);
    assert_eq!((stood, began.elapsed()), (Ok(()), SECOND / 2));
}

#[tokio::test(start_paused = true)]
async fn a_participant_that_goes_away_is_given_up_and_a_lost_stream_breaks_its_round() {
    let (attendance, mut leader) = attending().await;
    drop(leader.round(&attendance, 1).await);
    assert!(matches!(
        leader.heard().await.said,
        FromMember::GivenUp { id: InstantId(1), .. }
    ));
    let participant = leader.round(&attendance, 2).await;
    drop(leader);
    let stood = participant.standing(Instant::now() + SECOND).await;
    assert!(stood.unwrap_err().contains("lost"));
    let meeting = attendance.meet(Wants::Instant, Instant::now() + SECOND).await;
    let Meeting::Alone { why } = meeting else {
        panic!("{meeting:?}");
    };
    assert!(why.contains("east-1, which leads the group"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_any_more_leaves_so_that_nobody_waits_for_it() {
    let (attendance, mut leader) = attending().await;
    let meeting = attendance.meet(Wants::Instant, Instant::now() + SECOND).await;
    assert!(matches!(meeting, Meeting::Alone { .. }));
    assert!(matches!(leader.heard().await.said, FromMember::Come { .. }));
    assert!(leader.words.recv().await.is_none());
}

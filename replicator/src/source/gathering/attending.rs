//! At a replicator that does not lead: a member's way to where its group gathers, for as long as it sits.
//!
//! One task for each member keeps a stream, dials again after a pause when it is lost, and carries over it what the engine and its participant
//! say, one thing at a time. An answer counts only if it is the one to what was said last: one that comes late is to
//! nobody. Whoever stops waiting in the middle ends the stream, so that nobody waits for it there.

use std::{sync::Arc, time::Duration};

use farshore_blocks::clock::WallTime;
use farshore_provider::{InstantId, Word, participate};
use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    GroupInstant, Meeting, Wants,
    dialling::{Dial, Line},
    messages::{FromLeader, FromMember, Numbered, Sitting},
};
use crate::{assignment::GroupLeader, pauses::Pauses};

/// An engine says one thing after the other.
const REQUESTS: usize = 2;
/// How much later than the others' deadline one may hear what all do.
const WAY: Duration = Duration::from_secs(1);
/// How long the leader may take to take one in.
const SEATED_WITHIN: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Dropping it ends it: the member leaves.
#[derive(Debug)]
pub(super) struct Attendance {
    leader: GroupLeader,
    requests: mpsc::Sender<Request>,
    newest: watch::Receiver<Option<GroupInstant>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Request {
    Come {
        wants: Wants,
        deadline: Instant,
        answer: oneshot::Sender<Meeting>,
    },
    Sealed(InstantId),
}

/// Why there is no stream any more, or never was.
enum Lost {
    /// The engine does not sit any more.
    Left,
    Why(String),
}

struct Attendant {
    sitting: Sitting,
    requests: mpsc::Receiver<Request>,
    newest: watch::Sender<Option<GroupInstant>>,
}

/// A stream on which one sits.
struct Seated<'a> {
    attendant: &'a mut Attendant,
    line: Line,
    /// Of the message that was sent last.
    number: u64,
}

impl Attendance {
    /// Comes to where the group gathers, and comes again until it is dropped.
    pub(super) fn begin(leader: GroupLeader, dial: Arc<dyn Dial>, sitting: Sitting) -> Self {
        let (requests, received) = mpsc::channel(REQUESTS);
        let (newest, seen) = watch::channel(None);
        let attendant = Attendant {
            sitting,
            requests: received,
            newest,
        };
        let task = tokio::spawn(attendant.attend(leader.clone(), dial));
        Self {
            leader,
            requests,
            newest: seen,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(super) async fn meet(&self, wants: Wants, deadline: Instant) -> Meeting {
        let (answer, answered) = oneshot::channel();
        let request = Request::Come {
            wants,
            deadline,
            answer,
        };
        let latest = deadline + WAY;
        let lost = |what: &str| Meeting::Alone {
            why: format!(
                "the replicator {}, which leads the group, {what}",
                self.leader.replicator
            ),
        };
        match timeout_at(latest, self.requests.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return lost("is not reached"),
        }
        match timeout_at(latest, answered).await {
            Ok(Ok(meeting)) => meeting,
            Ok(Err(_)) => lost("was lost"),
            Err(_) => lost("did not answer in time"),
        }
    }

    pub(super) fn sealed(&self, instant: InstantId) {
        // It is only for show: nothing else comes of it if it does not get there.
        drop(self.requests.try_send(Request::Sealed(instant)));
    }

    pub(super) fn newest(&self) -> Option<GroupInstant> {
        *self.newest.borrow()
    }
}

impl Attendant {
    async fn attend(mut self, leader: GroupLeader, dial: Arc<dyn Dial>) {
        let mut pauses = Pauses::between(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let about = format!("the replicator {}, which leads the group,", leader.replicator);
            let meanwhile = format!("{about} is being dialled");
            let dialled = tokio::select! {
                dialled = dial.dial(&leader.endpoint) => dialled,
                () = self.refuse_all(&meanwhile) => return,
            };
            let lost = match dialled {
                Ok(line) => self.sit(line, &mut pauses).await,
                Err(why) => Lost::Why(why),
            };
            let Lost::Why(why) = lost else { return };
            tracing::info!(
                vm = self.sitting.vm,
                leader = leader.replicator,
                why,
                "not where the group gathers"
            );
            let meanwhile = format!("{about} is not reached: {why}");
            tokio::select! {
                () = sleep(pauses.next()) => {}
                () = self.refuse_all(&meanwhile) => return,
            }
        }
    }

    /// Until nobody asks any more.
    async fn refuse_all(&mut self, why: &str) {
        while let Some(request) = self.requests.recv().await {
            if let Request::Come { answer, .. } = request {
                let why = why.to_owned();
                drop(answer.send(Meeting::Alone { why }));
            }
        }
    }

    async fn sit(&mut self, line: Line, pauses: &mut Pauses) -> Lost {
        let sitting = self.sitting.clone();
        let mut seated = Seated {
            attendant: self,
            line,
            number: 0,
        };
        let taken_in = async {
            seated.say(FromMember::Sit(sitting)).await?;
            seated.answer().await
        };
        match timeout(SEATED_WITHIN, taken_in).await {
            Ok(Ok(FromLeader::Seated)) => pauses.start_over(),
            Ok(Ok(_)) => return strange(),
            Ok(Err(lost)) => return lost,
            Err(_) => return Lost::Why("it does not answer".to_owned()),
        }
        match seated.stay().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }
}

fn strange() -> Lost {
    Lost::Why("it answered something else".to_owned())
}

impl Seated<'_> {
    async fn stay(&mut self) -> Result<std::convert::Infallible, Lost> {
        loop {
            let request = tokio::select! {
                request = self.attendant.requests.recv() => request.ok_or(Lost::Left)?,
                // What it may answer by now is to nobody.
                message = hear(&mut self.line) => {
                    self.note(&message?);
                    continue;
                }
            };
            match request {
                Request::Sealed(id) => self.say(FromMember::Sealed(id)).await?,
                Request::Come {
                    wants,
                    deadline,
                    answer,
                } => self.come(wants, deadline, answer).await?,
            }
        }
    }

    async fn come(
        &mut self,
        wants: Wants,
        deadline: Instant,
        mut answer: oneshot::Sender<Meeting>,
    ) -> Result<(), Lost> {
        let within = deadline.saturating_duration_since(Instant::now());
        self.say(FromMember::Come { wants, within }).await?;
        let heard = tokio::select! {
            heard = self.answer() => heard?,
            () = answer.closed() => return Err(Lost::Why("it did not answer in time".to_owned())),
        };
        let meeting = match heard {
            FromLeader::Idle => Meeting::Idle,
            FromLeader::Alone { why } => Meeting::Alone { why },
            FromLeader::Together(id) => return self.round(id, answer).await,
            FromLeader::Seated
            | FromLeader::Settled { .. }
            | FromLeader::Broken { .. }
            | FromLeader::Newest(_) => return Err(strange()),
        };
        drop(answer.send(meeting));
        Ok(())
    }

    async fn round(&mut self, id: InstantId, answer: oneshot::Sender<Meeting>) -> Result<(), Lost> {
        let sitting = &self.attendant.sitting;
        // How long its guest may stand still is not for others to say.
        let (participant, mut words) = participate(id, &sitting.vm, sitting.membership.hold_limit);
        drop(answer.send(Meeting::Together(participant)));
        loop {
            let word = tokio::select! {
                word = words.recv() => word,
                message = hear(&mut self.line) => {
                    self.note(&message?);
                    continue;
                }
            };
            let course = match word {
                Some(Word::Prepared { settled }) => {
                    let said = FromMember::Prepared(id);
                    self.carry((id, said), &mut words, settled, |at| at).await?
                }
                Some(Word::Standing { within, settled }) => {
                    let said = FromMember::Standing { id, within };
                    self.carry((id, said), &mut words, settled, |_| Some(())).await?
                }
                Some(Word::Taken { settled }) => {
                    let said = FromMember::Taken(id);
                    self.carry((id, said), &mut words, settled, |_| Some(())).await?;
                    Course::Over
                }
                Some(Word::GivesUp { why }) => self.give_up(id, why).await?,
                None => self.give_up(id, "it went away".to_owned()).await?,
            };
            if course == Course::Over {
                return Ok(());
            }
        }
    }

    /// Carries one word there and what is heard of it back.
    async fn carry<T>(
        &mut self,
        (id, said): (InstantId, FromMember),
        words: &mut mpsc::Receiver<Word>,
        settled: oneshot::Sender<Result<T, String>>,
        of: impl FnOnce(Option<WallTime>) -> Option<T>,
    ) -> Result<Course, Lost> {
        self.say(said).await?;
        let heard = tokio::select! {
            heard = self.answer() => heard?,
            word = words.recv() => {
                let why = match word {
                    Some(Word::GivesUp { why }) => why,
                    Some(Word::Prepared { .. } | Word::Standing { .. } | Word::Taken { .. }) | None => "it went away".to_owned(),
                };
                return self.give_up(id, why).await;
            }
        };
        match heard {
            FromLeader::Settled { at } => {
                let value = of(at).ok_or_else(strange)?;
                drop(settled.send(Ok(value)));
                Ok(Course::On)
            }
            FromLeader::Broken { why } => {
                drop(settled.send(Err(why)));
                Ok(Course::Over)
            }
            FromLeader::Seated
            | FromLeader::Together(_)
            | FromLeader::Alone { .. }
            | FromLeader::Idle
            | FromLeader::Newest(_) => Err(strange()),
        }
    }

    async fn give_up(&mut self, id: InstantId, why: String) -> Result<Course, Lost> {
        self.say(FromMember::GivenUp { id, why }).await?;
        Ok(Course::Over)
    }

    async fn say(&mut self, said: FromMember) -> Result<(), Lost> {
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let sent = self.line.outgoing.send(Numbered { number, said }).await;
        sent.map_err(|_| Lost::Why("the stream ended".to_owned()))
    }

    /// The answer to what was said last.
    async fn answer(&mut self) -> Result<FromLeader, Lost> {
        loop {
            let message = hear(&mut self.line).await?;
            if message.number == self.number {
                return Ok(message.said);
            }
            self.note(&message);
        }
    }

    fn note(&self, message: &Numbered<FromLeader>) {
        if let FromLeader::Newest(newest) = message.said {
            self.attendant.newest.send_replace(Some(newest));
        }
    }
}

/// Whether a round goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    On,
    Over,
}

async fn hear(line: &mut Line) -> Result<Numbered<FromLeader>, Lost> {
    match line.incoming.next().await {
        Some(Ok(message)) => Ok(message),
        Some(Err(why)) => Err(Lost::Why(why)),
        None => Err(Lost::Why("the stream ended".to_owned())),
    }
}

#[cfg(test)]
mod tests;

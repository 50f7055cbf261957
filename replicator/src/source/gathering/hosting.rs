//! At the replicator that leads: speaks at the table for one member whose source is elsewhere, as its stream says.
//!
//! ```text
//! Sit ─▶ seated ──Come──▶ comes ──▶ (Alone | Idle) ─▶ seated
//!                           └─ Together ─Prepared▶ prepared ─Standing▶ standing ─Taken▶ taken ─▶ seated
//! ```
//!
//! A member says nothing while it waits to hear, but that it gives the round up. Whatever else it says out of turn ends the
//! stream, as does its end: the member leaves the table, and its round is broken.

use std::{future::Future, time::Duration};

use farshore_blocks::clock::WallTime;
use farshore_provider::{Accord, InstantId, Participant};
use futures_util::{Stream, StreamExt};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    GroupInstant, Meeting, Own,
    messages::{FromLeader, FromMember, Numbered, Sitting},
    table::{Chair, Tables},
};

/// How long a stream may take until it has said who it is.
const SIT_WITHIN: Duration = Duration::from_secs(10);
/// For how long one may wait for the others at most, whatever it says.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const PREPARED: &str = "prepared";
const STANDING: &str = "standing";
const TAKEN: &str = "taken";

/// Why a member does not sit here any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    #[error("the member left")]
    Left,
    #[error("the stream broke: {0}")]
    Broke(String),
    #[error("nothing said who comes")]
    Silent,
    #[error("{0} is said out of turn")]
    OutOfTurn(&'static str),
    #[error("the site {theirs} gathers elsewhere; this is {ours}")]
    OtherSite { theirs: String, ours: String },
    #[error("{0}")]
    Refused(String),
}

type Said = Numbered<FromMember>;

/// A member that is spoken for.
struct Guest<S> {
    chair: Chair,
    words: S,
    answers: mpsc::Sender<Numbered<FromLeader>>,
    /// The last instant that it took with the others.
    last: Option<GroupInstant>,
}

/// Why a round is over for a member, and not taken.
enum Over {
    Ended(Ended),
    GivenUp(String),
    /// As it was told.
    Broken,
}

impl From<Ended> for Over {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// Speaks for the member until its stream ends.
pub(super) async fn host<S>(
    (own, tables): (&Own, &Tables),
    mut words: S,
    answers: mpsc::Sender<Numbered<FromLeader>>,
) -> Ended
where
    S: Stream<Item = Result<Said, String>> + Unpin,
{
    let first = match timeout(SIT_WITHIN, next(&mut words)).await {
        Ok(Ok(first)) => first,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Silent,
    };
    let FromMember::Sit(sitting) = first.said else {
        return Ended::OutOfTurn(name_of(&first.said));
    };
    let chair = match seat(own, tables, sitting) {
        Ok(chair) => chair,
        Err(ended) => return ended,
    };
    let mut guest = Guest {
        chair,
        words,
        answers,
        last: None,
    };
    match guest.stay(first.number).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

fn seat(own: &Own, tables: &Tables, sitting: Sitting) -> Result<Chair, Ended> {
    if sitting.site != own.site {
        return Err(Ended::OtherSite {
            theirs: sitting.site,
            ours: own.site.clone(),
        });
    }
    let seated = tables.sit_for(&sitting.replicator, (sitting.membership, &sitting.vm));
    seated.map_err(Ended::Refused)
}

impl<S> Guest<S>
where
    S: Stream<Item = Result<Said, String>> + Unpin,
{
    async fn stay(&mut self, first: u64) -> Result<std::convert::Infallible, Ended> {
        self.answer(first, FromLeader::Seated).await?;
        let mut newest = self.chair.all_newest();
        newest.mark_changed();
        loop {
            let message = tokio::select! {
                message = next(&mut self.words) => message?,
                Ok(()) = newest.changed() => {
                    let newest = *newest.borrow_and_update();
                    if let Some(newest) = newest {
                        self.answer(0, FromLeader::Newest(newest)).await?;
                    }
                    continue;
                }
            };
            match message.said {
                FromMember::Come { wants, within } => {
                    let deadline = Instant::now() + within.min(LONGEST_WAIT);
                    let meeting = tokio::select! {
                        meeting = self.chair.meet(wants, deadline) => meeting,
                        message = next(&mut self.words) => return Err(out_of_turn(message)),
                    };
                    self.tell(message.number, meeting).await?;
                }
                FromMember::Sealed(id) => {
                    if let Some(instant) = self.last.take_if(|last| last.id == id) {
                        self.chair.sealed(instant);
                    }
                }
                // It did so before it heard that the round is over.
                FromMember::GivenUp { .. } => {}
                FromMember::Sit(_)
                | FromMember::Prepared(_)
                | FromMember::Standing { .. }
                | FromMember::Taken(_) => return Err(Ended::OutOfTurn(name_of(&message.said))),
            }
        }
    }

    async fn tell(&mut self, number: u64, meeting: Meeting) -> Result<(), Ended> {
        match meeting {
            Meeting::Idle => self.answer(number, FromLeader::Idle).await,
            Meeting::Alone { why } => self.answer(number, FromLeader::Alone { why }).await,
            Meeting::Together(participant) => {
                self.answer(number, FromLeader::Together(participant.id()))
                    .await?;
                self.round(participant).await
            }
        }
    }

    async fn round(&mut self, participant: Participant) -> Result<(), Ended> {
        match self.take_part(participant).await {
            Ok(instant) => self.last = Some(instant),
            Err(Over::Ended(ended)) => return Err(ended),
            Err(Over::Broken) => {}
            Err(Over::GivenUp(why)) => tracing::debug!(why, "a member elsewhere gave a round up"),
        }
        Ok(())
    }

    async fn take_part(&mut self, participant: Participant) -> Result<GroupInstant, Over> {
        let id = participant.id();
        let (number, at) = match self.until_taken(&participant).await {
            Err(Over::GivenUp(why)) => {
                participant.give_up(&why);
                return Err(Over::GivenUp(why));
            }
            reached => reached?,
        };
        let taken = async {
            match participant.taken(Ok(())).await {
                Accord::Together(_) => Ok(()),
                Accord::Alone { why } => Err(why),
            }
        };
        let taken = self.settle(taken).await?;
        self.hear(number, taken.map(|()| None)).await?;
        Ok(GroupInstant { id, at })
    }

    /// Until the member says that it took its instant; gives the number of that word, and the instant's time.
    async fn until_taken(&mut self, participant: &Participant) -> Result<(u64, WallTime), Over> {
        let id = participant.id();
        let (number, _) = self.word(id, PREPARED).await?;
        let prepared = self.settle(participant.prepared()).await?;
        let at = prepared.clone().ok();
        self.hear(number, prepared.map(Some)).await?;
        let (number, within) = self.word(id, STANDING).await?;
        let deadline = Instant::now() + within.min(participant.hold_limit());
        let standing = self.settle(participant.standing(deadline)).await?;
        self.hear(number, standing.map(|()| None)).await?;
        let (number, _) = self.word(id, TAKEN).await?;
        Ok((number, at.ok_or(Over::Broken)?))
    }

    /// The member's next word in its round, which must be `expected`, with its number and how long it waits.
    async fn word(&mut self, id: InstantId, expected: &'static str) -> Result<(u64, Duration), Over> {
        let message = next(&mut self.words).await?;
        let (of, within) = match &message.said {
            FromMember::GivenUp { id: of, why } if *of == id => return Err(Over::GivenUp(why.clone())),
            FromMember::Standing { id: of, within } => (*of, *within),
            FromMember::Prepared(of) | FromMember::Taken(of) => (*of, Duration::ZERO),
            FromMember::GivenUp { .. }
            | FromMember::Sit(_)
            | FromMember::Come { .. }
            | FromMember::Sealed(_) => return Err(out_of_turn(Ok(message)).into()),
        };
        if name_of(&message.said) != expected || of != id {
            return Err(out_of_turn(Ok(message)).into());
        }
        Ok((message.number, within))
    }

    /// Awaits a meeting's end; the member may only give up meanwhile.
    async fn settle<T>(&mut self, meeting: impl Future<Output = T>) -> Result<T, Over> {
        tokio::select! {
            settled = meeting => Ok(settled),
            message = next(&mut self.words) => Err(match message {
                Ok(Numbered { said: FromMember::GivenUp { why, .. }, .. }) => Over::GivenUp(why),
                other => out_of_turn(other).into(),
            }),
        }
    }

    /// Tells how a meeting ended.
    async fn hear(&mut self, number: u64, settled: Result<Option<WallTime>, String>) -> Result<(), Over> {
        match settled {
            Ok(at) => Ok(self.answer(number, FromLeader::Settled { at }).await?),
            Err(why) => {
                self.answer(number, FromLeader::Broken { why }).await?;
                Err(Over::Broken)
            }
        }
    }

    async fn answer(&self, number: u64, said: FromLeader) -> Result<(), Ended> {
        let sent = self.answers.send(Numbered { number, said }).await;
        sent.map_err(|_| Ended::Left)
    }
}

async fn next<S>(words: &mut S) -> Result<Said, Ended>
where
    S: Stream<Item = Result<Said, String>> + Unpin,
{
    match words.next().await {
        Some(Ok(said)) => Ok(said),
        Some(Err(why)) => Err(Ended::Broke(why)),
        None => Err(Ended::Left),
    }
}

fn out_of_turn(message: Result<Said, Ended>) -> Ended {
    match message {
        Ok(message) => Ended::OutOfTurn(name_of(&message.said)),
        Err(ended) => ended,
    }
}

fn name_of(said: &FromMember) -> &'static str {
    match said {
        FromMember::Sit(_) => "sit",
        FromMember::Come { .. } => "come",
        FromMember::Prepared(_) => PREPARED,
        FromMember::Standing { .. } => STANDING,
        FromMember::Taken(_) => TAKEN,
        FromMember::GivenUp { .. } => "given up",
        FromMember::Sealed(_) => "sealed",
    }
}

#[cfg(test)]
mod tests;

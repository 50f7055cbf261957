//! An instant that several sources take together.
//!
//! Each source has a [`Participant`] and meets the others three times:
//!
//! | stage | what each has done before it | what each does after it |
//! |---|---|---|
//! | prepared | all that can be done without holding its guest | stops its processors |
//! | standing | stopped its processors | takes its instant, lets its processors go on |
//! | taken | seen whether its guest stood still all the while | ships what it captured |
//!
//! So there is a moment at which all of them stand still, and what each captures is what it had at that moment. Whoever
//! fails, is late, or goes away, breaks the round: from the next meeting on everyone is alone, and takes an instant of its own.
//! A stage that all have reached is settled for good, so that all of them hear the same of it.
//!
//! Participants may be in other processes, and somebody speaks for each of them where the round is held. What is said of an instant
//! needs no clock: each member stood still from before it said so until after its own switch, and switched only
//! after it had heard that all stand. The moment at which that was settled lies between the two for every one of them, however long the
//! words were on their way. Only whoever does not hear the last word does not know that it was there, and counts as alone.

mod away;
mod here;

use std::{fmt, sync::Arc, time::Duration};

use farshore_blocks::clock::WallTime;
use tokio::time::Instant;

pub use away::{Settled, Word, participate};
pub use here::convene;

use away::Away;
use here::Round;

/// How long the others may take to prepare. No guest waits meanwhile.
const PREPARING: Duration = Duration::from_secs(10);
/// How long they may take from standing still to saying how it went: longer than any guest is held.
const TAKING: Duration = Duration::from_secs(15);

/// Which instant it is, among all that were taken together: random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstantId(pub u64);

impl fmt::Display for InstantId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// What became of an instant that several were to take together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accord {
    /// It is this one instant of them all.
    Together(InstantId),
    /// It is an instant of this VM alone.
    Alone {
        /// Why.
        why: String,
    },
}

/// One source's part of a round. Dropped before its end, it breaks the round.
#[derive(Debug)]
pub struct Participant {
    id: InstantId,
    name: String,
    hold_limit: Duration,
    place: Place,
}

/// Where its round is held.
#[derive(Debug)]
enum Place {
    Here(Arc<Round>),
    Away(Away),
}

impl Participant {
    /// Which instant it is.
    #[must_use]
    pub fn id(&self) -> InstantId {
        self.id
    }

    /// How long its guest may be stopped.
    #[must_use]
    pub fn hold_limit(&self) -> Duration {
        self.hold_limit
    }

    /// All is prepared that can be without holding the guest. Gives the time of the instant, which is before it and the same for all
    /// whose clocks agree.
    ///
    /// # Errors
    /// Why the round is broken.
    pub async fn prepared(&self) -> Result<WallTime, String> {
        match &self.place {
            Place::Here(round) => round.prepared().await,
            Place::Away(away) => away.prepared().await,
        }
    }

    /// The guest stands still, or stood still before. The others are waited for until `deadline`.
    ///
    /// # Errors
    /// Why the round is broken.
    pub async fn standing(&self, deadline: Instant) -> Result<(), String> {
        match &self.place {
            Place::Here(round) => round.standing(deadline).await,
            Place::Away(away) => away.standing(deadline).await,
        }
    }

    /// The instant was taken; `stood_still` says whether the guest did so from before [`Participant::standing`] until after
    /// the instant.
    pub async fn taken(self, stood_still: Result<(), String>) -> Accord {
        let settled = match (&self.place, stood_still) {
            (Place::Here(round), stood_still) => {
                if let Err(why) = stood_still {
                    round.break_up(format!("{}: {why}", self.name));
                }
                // All hear the first reason.
                round.taken().await
            }
            (Place::Away(away), Ok(())) => away.taken().await,
            (Place::Away(away), Err(why)) => {
                away.give_up(why.clone());
                Err(why)
            }
        };
        match settled {
            Ok(()) => Accord::Together(self.id),
            Err(why) => Accord::Alone { why },
        }
    }

    /// It cannot go on, and so nobody can together with it.
    pub fn give_up(self, why: &str) {
        match &self.place {
            Place::Here(round) => round.break_up(format!("{}: {why}", self.name)),
            Place::Away(away) => away.give_up(why.to_owned()),
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        match &self.place {
            Place::Here(round) => round.break_up(format!("{} went away", self.name)),
            // Seen elsewhere, as no more words come.
            Place::Away(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;

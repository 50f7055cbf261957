//! A participant of a round that is held elsewhere: what it says, and what it makes of what it hears.
//!
//! Nothing is taken for granted that was not heard in time. Whoever waits in vain gives the round up and is alone, so that
//! the worst that a word can do that comes late, or never, is that one of the round does not know that it was one of it.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{InstantId, PREPARING, Participant, Place, TAKING};

/// How much longer than those who hold the round one waits to hear how a meeting ended that no guest stands still for.
const WAY: Duration = Duration::from_secs(2);
/// By how much another's clock may be behind and still be taken for the group's.
const CLOCKS_APART: Duration = Duration::from_secs(1);
/// One that is being carried, one that follows, and one that gives up.
const WORDS: usize = 4;

/// Of a meeting: what all hear of it, or why the round is broken.
pub type Settled<T> = oneshot::Sender<Result<T, String>>;

/// What a participant says to those who hold its round. They see it go away when no more words come.
#[derive(Debug)]
pub enum Word {
    /// It has prepared all. It hears the time of the instant.
    Prepared {
        /// How it hears.
        settled: Settled<WallTime>,
    },
    /// Its guest stands still.
    Standing {
        /// For how long it waits for the others.
        within: Duration,
        /// How it hears.
        settled: Settled<()>,
    },
    /// It has taken its instant, and its guest stood still all the while.
    Taken {
        /// How it hears.
        settled: Settled<()>,
    },
    /// It cannot go on. It hears nothing.
    GivesUp {
        /// Why.
        why: String,
    },
}

/// The end at which words are said.
#[derive(Debug)]
pub(super) struct Away {
    words: mpsc::Sender<Word>,
}

/// One's part of a round that is held elsewhere, and the words that it says to those who hold it.
#[must_use]
pub fn participate(id: InstantId, name: &str, hold_limit: Duration) -> (Participant, mpsc::Receiver<Word>) {
    let (words, said) = mpsc::channel(WORDS);
    let participant = Participant {
        id,
        name: name.to_owned(),
        hold_limit,
        place: Place::Away(Away { words }),
    };
    (participant, said)
}

impl Away {
    pub(super) async fn prepared(&self) -> Result<WallTime, String> {
        let (settled, heard) = oneshot::channel();
        let asked_at = WallTime::now();
        let deadline = Instant::now() + PREPARING + WAY;
        let theirs = self.say(Word::Prepared { settled }, heard, deadline).await?;
        Ok(time_of_instant(theirs, asked_at, WallTime::now()))
    }

    pub(super) async fn standing(&self, deadline: Instant) -> Result<(), String> {
        let (settled, heard) = oneshot::channel();
        let within = deadline.saturating_duration_since(Instant::now());
        self.say(Word::Standing { within, settled }, heard, deadline)
            .await
    }

    pub(super) async fn taken(&self) -> Result<(), String> {
        let (settled, heard) = oneshot::channel();
        let deadline = Instant::now() + TAKING + WAY;
        self.say(Word::Taken { settled }, heard, deadline).await
    }

    pub(super) fn give_up(&self, why: String) {
        // Who does not hear this sees that no more words come.
        drop(self.words.try_send(Word::GivesUp { why }));
    }

    async fn say<T>(
        &self,
        word: Word,
        heard: oneshot::Receiver<Result<T, String>>,
        deadline: Instant,
    ) -> Result<T, String> {
        let lost = || Err("the replicator that leads the group was lost in the middle".to_owned());
        if self.words.try_send(word).is_err() {
            return lost();
        }
        match timeout_at(deadline, heard).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(_)) => lost(),
            Err(_) => {
                let why = "the replicator that leads the group did not answer in time";
                self.give_up(why.to_owned());
                Err(why.to_owned())
            }
        }
    }
}

/// What the instant's time is by this machine's clock: before the instant, which is after `heard_at`. It is the others' own
/// (`theirs`, settled after `asked_at`) unless the clocks are apart: a time that is too late would make a point look newer than it is.
fn time_of_instant(theirs: WallTime, asked_at: WallTime, heard_at: WallTime) -> WallTime {
    if theirs <= heard_at && asked_at.since(theirs) <= CLOCKS_APART {
        theirs
    } else {
        heard_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn anothers_time_is_taken_only_if_it_makes_no_point_look_newer_or_much_older() {
        let (asked, heard) = (WallTime(100 * SECOND), WallTime(101 * SECOND));
        let taken = |theirs: u64| time_of_instant(WallTime(theirs), asked, heard).0;
        for theirs in [99 * SECOND, 100 * SECOND, 100 * SECOND + 7, 101 * SECOND] {
            assert_eq!(taken(theirs), theirs);
        }
        for theirs in [0, 99 * SECOND - 1, 101 * SECOND + 1, 500 * SECOND] {
            assert_eq!(taken(theirs), heard.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_in_time_gives_up_and_is_alone() {
        let limit = Duration::from_secs(1);
        let (participant, mut said) = participate(InstantId(1), "a", limit);
        let began = Instant::now();
        let told = participant.standing(began + limit).await;
        assert!(told.unwrap_err().contains("did not answer in time"));
        assert_eq!(began.elapsed(), limit);
        assert!(matches!(said.recv().await, Some(Word::Standing { within, .. }) if within == limit));
        assert!(matches!(said.recv().await, Some(Word::GivesUp { .. })));
        drop(participant);
        assert!(said.recv().await.is_none());
    }
}

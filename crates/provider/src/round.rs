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

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use farshore_blocks::clock::WallTime;
use tokio::{sync::watch, time::timeout_at};

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

/// Where all meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prepared,
    Standing,
    Taken,
}

#[derive(Debug, Default)]
struct Meetings {
    prepared: usize,
    standing: usize,
    taken: usize,
    captured_at: Option<WallTime>,
    broken: Option<String>,
}

#[derive(Debug)]
struct Round {
    id: InstantId,
    size: usize,
    hold_limit: Duration,
    meetings: watch::Sender<Meetings>,
}

/// One source's part of a round. Dropped before its end, it breaks the round.
#[derive(Debug)]
pub struct Participant {
    round: Arc<Round>,
    name: String,
}

/// A round of these, in their order. `hold_limit` is how long a guest may be stopped for it.
#[must_use]
pub fn convene(id: InstantId, names: &[&str], hold_limit: Duration) -> Vec<Participant> {
    let round = Arc::new(Round {
        id,
        size: names.len(),
        hold_limit,
        meetings: watch::Sender::new(Meetings::default()),
    });
    names
        .iter()
        .map(|name| Participant {
            round: Arc::clone(&round),
            name: (*name).to_owned(),
        })
        .collect()
}

impl Meetings {
    fn count(&mut self, stage: Stage) -> &mut usize {
        match stage {
            Stage::Prepared => &mut self.prepared,
            Stage::Standing => &mut self.standing,
            Stage::Taken => &mut self.taken,
        }
    }

    fn reached(&self, stage: Stage) -> usize {
        match stage {
            Stage::Prepared => self.prepared,
            Stage::Standing => self.standing,
            Stage::Taken => self.taken,
        }
    }

    /// What all hear of this stage, once that is settled.
    fn verdict(&self, stage: Stage, size: usize) -> Option<Result<(), String>> {
        if self.reached(stage) == size {
            return Some(Ok(()));
        }
        self.broken.clone().map(Err)
    }

    /// Only the first reason counts. A round that was taken by all cannot be broken any more.
    fn break_up(&mut self, why: String, size: usize) {
        if self.taken < size && self.broken.is_none() {
            self.broken = Some(why);
        }
    }
}

impl Participant {
    /// Which instant it is.
    #[must_use]
    pub fn id(&self) -> InstantId {
        self.round.id
    }

    /// How long its guest may be stopped.
    #[must_use]
    pub fn hold_limit(&self) -> Duration {
        self.round.hold_limit
    }

    /// All is prepared that can be without holding the guest. Gives the time of the instant, which is before it and the same for all.
    ///
    /// # Errors
    /// Why the round is broken.
    pub async fn prepared(&self) -> Result<WallTime, String> {
        self.meet(Stage::Prepared, Instant::now() + PREPARING).await?;
        let captured_at = self.round.meetings.borrow().captured_at;
        Ok(captured_at.unwrap_or_else(WallTime::now))
    }

    /// The guest stands still, or stood still before. The others are waited for until `deadline`.
    ///
    /// # Errors
    /// Why the round is broken.
    pub async fn standing(&self, deadline: Instant) -> Result<(), String> {
        self.meet(Stage::Standing, deadline).await
    }

    /// The instant was taken; `stood_still` says whether the guest did so from before [`Participant::standing`] until after
    /// the instant.
    pub async fn taken(self, stood_still: Result<(), String>) -> Accord {
        if let Err(why) = stood_still {
            self.break_up(format!("{}: {why}", self.name));
        }
        match self.meet(Stage::Taken, Instant::now() + TAKING).await {
            Ok(()) => Accord::Together(self.round.id),
            Err(why) => Accord::Alone { why },
        }
    }

    /// It cannot go on, and so nobody can together with it.
    pub fn give_up(self, why: &str) {
        self.break_up(format!("{}: {why}", self.name));
    }

    fn break_up(&self, why: String) {
        let size = self.round.size;
        self.round
            .meetings
            .send_modify(|meetings| meetings.break_up(why, size));
    }

    async fn meet(&self, stage: Stage, deadline: Instant) -> Result<(), String> {
        let size = self.round.size;
        self.round.meetings.send_modify(|meetings| {
            if meetings.broken.is_none() {
                let count = meetings.count(stage);
                *count = count.saturating_add(1);
            }
            if meetings.reached(Stage::Prepared) == size && meetings.captured_at.is_none() {
                meetings.captured_at = Some(WallTime::now());
            }
        });
        let mut seen = self.round.meetings.subscribe();
        let settled = seen.wait_for(|meetings| meetings.verdict(stage, size).is_some());
        // Both outcomes are read from what is there now.
        let in_time = timeout_at(deadline.into(), settled).await.is_ok();
        if !in_time {
            let others = match stage {
                Stage::Prepared => "were not ready",
                Stage::Standing => "did not stand still",
                Stage::Taken => "did not say how it went",
            };
            self.round.meetings.send_modify(|meetings| {
                if meetings.verdict(stage, size).is_none() {
                    let missing = size.saturating_sub(meetings.reached(stage));
                    meetings.break_up(format!("{missing} of {size} VMs {others} in time"), size);
                }
            });
        }
        let verdict = self.round.meetings.borrow().verdict(stage, size);
        verdict.unwrap_or_else(|| Err("the round was not settled".to_owned()))
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.break_up(format!("{} went away", self.name));
    }
}

#[cfg(test)]
mod tests;

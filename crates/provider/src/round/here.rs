//! A round of participants that are all in this process, or that somebody here speaks for.

use std::{sync::Arc, time::Duration};

use farshore_blocks::clock::WallTime;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{InstantId, PREPARING, Participant, Place, TAKING};

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

/// What all participants share.
#[derive(Debug)]
pub(super) struct Round {
    size: usize,
    meetings: watch::Sender<Meetings>,
}

/// A round of these, in their order. `hold_limit` is how long a guest may be stopped for it.
#[must_use]
pub fn convene(id: InstantId, names: &[&str], hold_limit: Duration) -> Vec<Participant> {
    let round = Arc::new(Round {
        size: names.len(),
        meetings: watch::Sender::new(Meetings::default()),
    });
    names
        .iter()
        .map(|name| Participant {
            id,
            name: (*name).to_owned(),
            hold_limit,
            place: Place::Here(Arc::clone(&round)),
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

impl Round {
    pub(super) async fn prepared(&self) -> Result<WallTime, String> {
        self.meet(Stage::Prepared, Instant::now() + PREPARING).await?;
        let captured_at = self.meetings.borrow().captured_at;
        Ok(captured_at.unwrap_or_else(WallTime::now))
    }

    pub(super) async fn standing(&self, deadline: Instant) -> Result<(), String> {
        self.meet(Stage::Standing, deadline).await
    }

    pub(super) async fn taken(&self) -> Result<(), String> {
        self.meet(Stage::Taken, Instant::now() + TAKING).await
    }

    pub(super) fn break_up(&self, why: String) {
        self.meetings
            .send_modify(|meetings| meetings.break_up(why, self.size));
    }

    async fn meet(&self, stage: Stage, deadline: Instant) -> Result<(), String> {
        let size = self.size;
        self.meetings.send_modify(|meetings| {
            if meetings.broken.is_none() {
                let count = meetings.count(stage);
                *count = count.saturating_add(1);
            }
            if meetings.reached(Stage::Prepared) == size && meetings.captured_at.is_none() {
                meetings.captured_at = Some(WallTime::now());
            }
        });
        let mut seen = self.meetings.subscribe();
        let settled = seen.wait_for(|meetings| meetings.verdict(stage, size).is_some());
        // Both outcomes are read from what is there now.
        let in_time = timeout_at(deadline, settled).await.is_ok();
        if !in_time {
            let others = match stage {
                Stage::Prepared => "were not ready",
                Stage::Standing => "did not stand still",
                Stage::Taken => "did not say how it went",
            };
            self.meetings.send_modify(|meetings| {
                if meetings.verdict(stage, size).is_none() {
                    let missing = size.saturating_sub(meetings.reached(stage));
                    meetings.break_up(format!("{missing} of {size} VMs {others} in time"), size);
                }
            });
        }
        let verdict = self.meetings.borrow().verdict(stage, size);
        verdict.unwrap_or_else(|| Err("the round was not settled".to_owned()))
    }
}

//! Cycles of a member of a consistency group: it meets the others, and takes its instant with them where that can be.

use std::time::Duration;

use farshore_provider::{Accord, Capture, CaptureKind, Source};
use tokio::time::Instant;

use super::{Engine, SessionError};
use crate::source::{
    delivery::Lane,
    gathering::{GroupInstant, Meeting, Seat, Wants},
    link,
};

/// How long the others are waited for, at least and at most: an interval, or twice as long as the last cycle took, unless that is out of all
/// proportion.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl<S: Source> Engine<S> {
    /// What to do in this cycle; none if this engine was stopped meanwhile.
    pub(super) async fn meet(
        &self,
        lane: &mut Lane,
        seat: &mut Seat,
        wants: Wants,
    ) -> Result<Option<Meeting>, SessionError> {
        let last = self.state.borrow().last_cycle;
        // Who is busy for as long as we were comes in time: else two whose cycles are long would miss each other in turn.
        let busy = last.map_or(Duration::ZERO, |times| times.took.saturating_mul(2));
        let wait = self
            .assignment
            .interval
            .max(busy)
            .clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let met = tokio::select! {
            () = lane.stop.cancelled() => None,
            meeting = seat.meet(wants, Instant::now() + wait) => Some(meeting),
            body = lane.link.receive() => return Err(link::unexpected(&body?, "silence").into()),
        };
        self.show(|state| state.group.newest = seat.newest());
        Ok(met)
    }

    /// One cycle whose instant is that of the whole group, if all goes well.
    pub(super) async fn cycle_together(
        &mut self,
        lane: &mut Lane,
        kind: CaptureKind,
        (seat, meeting): (&Seat, farshore_provider::Participant),
    ) -> Result<(), SessionError> {
        let began = Instant::now();
        let next = self.newest().next();
        let capture = self.source.begin_together(kind, next, meeting).await?;
        let (accord, at, held) = (capture.accord(), capture.captured_at(), capture.held());
        self.show(|state| state.group.longest_hold = state.group.longest_hold.max(held));
        self.deliver(lane, capture, began).await?;
        match accord {
            Some(Accord::Together(id)) => {
                seat.sealed(GroupInstant { id, at });
                self.show(|state| {
                    state.group.missed.clear();
                    state.group.instants = state.group.instants.saturating_add(1);
                });
            }
            Some(Accord::Alone { why }) => self.missed_group(why),
            None => self.missed_group("its source knows of no group".to_owned()),
        }
        self.show(|state| state.group.newest = seat.newest());
        Ok(())
    }

    /// The newest point is one of this VM alone.
    pub(super) fn missed_group(&self, why: String) {
        tracing::info!(vm = self.vm(), why, "a point is not of an instant of the group");
        self.show(|state| state.group.missed = why);
    }
}

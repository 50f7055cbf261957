//! Where the sources of a consistency group gather for their instants.
//!
//! Each that replicates has a [`Seat`], and comes to every cycle. When all that are seated have come, or the first has waited
//! long enough, it is told to all who came what they do: one instant together, each its own, or nothing. Whoever is not seated is not
//! waited for: it syncs, its link is cut, or it is not enabled. It costs the others their common instant, not their points.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use farshore_blocks::clock::WallTime;
use farshore_provider::{InstantId, Participant, convene};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::delivery::random_number;
use crate::assignment::Membership;

/// How many instants are remembered that not all members have sealed yet: members follow each other closely.
const UNSEALED: usize = 16;

/// All groups that have sources here; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    tables: Arc<Mutex<BTreeMap<String, Table>>>,
}

/// Whether a member has something to capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Instant,
    Nothing,
}

/// What a member does now.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// It takes an instant together with the others.
    Together(Participant),
    /// What it would do without a group.
    Alone {
        /// Why.
        why: String,
    },
    /// All are here, and none has anything to capture.
    Idle,
}

/// Which group a source is a member of, and where that gathers.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    groups: Groups,
    membership: Membership,
    vm: String,
}

/// A member that replicates. Dropping it tells the others not to wait.
#[derive(Debug)]
pub(crate) struct Seat {
    place: Place,
}

/// An instant that several sources have, and what it is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupInstant {
    pub(crate) id: InstantId,
    pub(crate) at: WallTime,
}

#[derive(Debug, Default)]
struct Table {
    /// Who is seated; those who have come wait for an answer.
    seats: BTreeMap<String, Option<Arrival>>,
    /// How many of how many have sealed it.
    sealing: Vec<(GroupInstant, usize, usize)>,
    newest: Option<GroupInstant>,
}

#[derive(Debug)]
struct Arrival {
    wants: Wants,
    membership: Membership,
    answer: oneshot::Sender<Meeting>,
}

impl Groups {
    /// Where a source of this membership gathers with the others.
    pub(crate) fn place(&self, membership: &Membership, vm: &str) -> Place {
        Place {
            groups: self.clone(),
            membership: membership.clone(),
            vm: vm.to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// From now on the others wait for it.
    pub(crate) fn sit(&self) -> Seat {
        let mut tables = self.groups.lock();
        let table = tables.entry(self.membership.group.clone()).or_default();
        table.seats.insert(self.vm.clone(), None);
        Seat { place: self.clone() }
    }
}

impl Seat {
    /// Waits for the others until `deadline`, and learns what is to be done.
    pub(crate) async fn meet(&self, wants: Wants, deadline: Instant) -> Meeting {
        let (answer, mut answered) = oneshot::channel();
        self.with_table(|table| {
            let arrival = Arrival {
                wants,
                membership: self.place.membership.clone(),
                answer,
            };
            table.seats.insert(self.place.vm.clone(), Some(arrival));
            table.answer_if_complete();
        });
        let meeting = match timeout_at(deadline, &mut answered).await {
            Ok(meeting) => meeting.ok(),
            Err(_) => {
                self.with_table(Table::answer);
                answered.await.ok()
            }
        };
        meeting.unwrap_or_else(|| Meeting::Alone {
            why: "the group is being changed".to_owned(),
        })
    }

    /// Its point of this instant is sealed.
    pub(crate) fn sealed(&self, instant: GroupInstant) {
        let members = self.place.membership.members.len();
        self.with_table(|table| table.sealed(instant, members));
    }

    /// The newest instant that all members have sealed.
    pub(crate) fn newest(&self) -> Option<GroupInstant> {
        self.with_table(|table| table.newest)
    }

    fn with_table<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut tables = self.place.groups.lock();
        change(tables.entry(self.place.membership.group.clone()).or_default())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut tables = self.place.groups.lock();
        let group = &self.place.membership.group;
        if let Some(table) = tables.get_mut(group) {
            table.seats.remove(&self.place.vm);
            if table.seats.is_empty() {
                tables.remove(group);
            } else {
                table.answer_if_complete();
            }
        }
    }
}

impl Table {
    fn answer_if_complete(&mut self) {
        if self
            .seats
            .values()
            .all(|arrival| arrival.as_ref().is_some_and(Arrival::waits))
        {
            self.answer();
        }
    }

    /// Tells all who have come.
    fn answer(&mut self) {
        let seated: Vec<String> = self.seats.keys().cloned().collect();
        let mut arrivals = Vec::new();
        for (vm, arrival) in &mut self.seats {
            if let Some(arrival) = arrival.take().filter(Arrival::waits) {
                arrivals.push((vm.clone(), arrival));
            }
        }
        let decided = decide(&arrivals, &seated).and_then(|decided| match decided {
            Decided::Idle => Ok(None),
            Decided::Together => random_number()
                .map(|id| Some(InstantId(id)))
                .map_err(|error| format!("there is no randomness for an instant: {error}")),
        });
        let mut participants = match (&decided, arrivals.first()) {
            (Ok(Some(id)), Some((_, first))) => {
                let names: Vec<_> = arrivals.iter().map(|(vm, _)| vm.as_str()).collect();
                convene(*id, &names, first.membership.hold_limit)
            }
            _ => Vec::new(),
        }
        .into_iter();
        for (_, arrival) in arrivals {
            let meeting = match (&decided, participants.next()) {
                (Ok(_), Some(participant)) => Meeting::Together(participant),
                (Ok(_), None) => Meeting::Idle,
                (Err(why), _) => Meeting::Alone { why: why.clone() },
            };
            // Who does not wait any more breaks the round, as its participant is dropped.
            drop(arrival.answer.send(meeting));
        }
    }

    fn sealed(&mut self, instant: GroupInstant, members: usize) {
        let found = self
            .sealing
            .iter_mut()
            .find(|(sealing, _, _)| *sealing == instant);
        match found {
            Some((_, sealed, _)) => *sealed = sealed.saturating_add(1),
            None => self.sealing.push((instant, 1, members)),
        }
        if let Some(place) = self.sealing.iter().position(|(_, sealed, of)| sealed >= of) {
            let (newest, _, _) = self.sealing.remove(place);
            self.newest = Some(newest);
            self.sealing.retain(|(sealing, _, _)| sealing.at > newest.at);
        }
        if self.sealing.len() > UNSEALED {
            self.sealing.remove(0);
        }
    }
}

impl Arrival {
    fn waits(&self) -> bool {
        !self.answer.is_closed()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decided {
    Together,
    Idle,
}

/// What those who came do, or why each is alone.
fn decide(arrivals: &[(String, Arrival)], seated: &[String]) -> Result<Decided, String> {
    let Some((_, first)) = arrivals.first() else {
        return Ok(Decided::Idle);
    };
    let group = |membership: &Membership| (membership.members.clone(), membership.hold_limit);
    let agreed = group(&first.membership);
    if arrivals
        .iter()
        .any(|(_, arrival)| group(&arrival.membership) != agreed)
    {
        return Err("the group is being changed".to_owned());
    }
    let came = |member: &&String| arrivals.iter().any(|(vm, _)| vm == *member);
    let absent: Vec<_> = first
        .membership
        .members
        .iter()
        .filter(|member| !came(member))
        .collect();
    if let Some((one, others)) = absent.split_first() {
        let others = match others.len() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let what = if seated.contains(one) {
            "is still at its last cycle"
        } else {
            "does not replicate now, or not by the same replicator"
        };
        return Err(format!("{one}{others} {what}"));
    }
    if arrivals
        .iter()
        .any(|(_, arrival)| arrival.wants == Wants::Instant)
    {
        Ok(Decided::Together)
    } else {
        Ok(Decided::Idle)
    }
}

#[cfg(test)]
mod tests;

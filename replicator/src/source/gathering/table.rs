//! The tables at which groups gather: who is seated, who has come, and what they are told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use farshore_provider::{InstantId, convene};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{GroupInstant, Meeting, Wants};
use crate::{assignment::Membership, source::delivery::random_number};

/// How many instants are remembered that not all members have sealed yet: members follow each other closely.
const UNSEALED: usize = 16;

/// The tables of all groups that gather here, by their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    tables: BTreeMap<String, Table>,
    last_number: u64,
}

/// A member's chair at its group's table. Dropping it tells the others not to wait.
#[derive(Debug)]
pub(super) struct Chair {
    tables: Tables,
    membership: Membership,
    vm: String,
    /// Who sat there before, and does not know yet that somebody else does, changes nothing.
    number: u64,
}

/// Whose engine it is that sits there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Engine {
    Here,
    At(String),
}

#[derive(Debug, Default)]
struct Table {
    /// Who is seated; those who have come wait for an answer.
    seats: BTreeMap<String, Seated>,
    /// How many of how many have sealed it, in the order in which it was sealed first.
    sealing: Vec<(GroupInstant, usize, usize)>,
    newest: watch::Sender<Option<GroupInstant>>,
}

#[derive(Debug)]
struct Seated {
    number: u64,
    engine: Engine,
    arrival: Option<Arrival>,
}

#[derive(Debug)]
struct Arrival {
    wants: Wants,
    membership: Membership,
    answer: oneshot::Sender<Meeting>,
}

impl Tables {
    /// A chair for a source of this replicator; who else sat there has to leave.
    pub(super) fn sit(&self, membership: Membership, vm: &str) -> Chair {
        self.place_chair((membership, vm), Engine::Here)
    }

    /// A chair for a source of another replicator.
    pub(super) fn sit_for(
        &self,
        replicator: &str,
        (membership, vm): (Membership, &str),
    ) -> Result<Chair, String> {
        let engine = Engine::At(replicator.to_owned());
        if let Some(table) = self.lock().tables.get(&membership.group)
            && let Some(seated) = table.seats.get(vm)
            && seated.engine != engine
        {
            let whose = match &seated.engine {
                Engine::Here => "the replicator that leads",
                Engine::At(other) => other,
            };
            return Err(format!("the VM {vm} takes part already, by {whose}"));
        }
        Ok(self.place_chair((membership, vm), engine))
    }

    fn place_chair(&self, (membership, vm): (Membership, &str), engine: Engine) -> Chair {
        let mut shared = self.lock();
        shared.last_number = shared.last_number.saturating_add(1);
        let number = shared.last_number;
        let seated = Seated {
            number,
            engine,
            arrival: None,
        };
        let table = shared.tables.entry(membership.group.clone()).or_default();
        table.seats.insert(vm.to_owned(), seated);
        Chair {
            tables: self.clone(),
            membership,
            vm: vm.to_owned(),
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chair {
    /// Waits for the others until `deadline`, and learns what is to be done.
    pub(super) async fn meet(&self, wants: Wants, deadline: Instant) -> Meeting {
        let (answer, mut answered) = oneshot::channel();
        self.with_table(|table| {
            let seated = table.seats.get_mut(&self.vm);
            if let Some(seated) = seated.filter(|seated| seated.number == self.number) {
                seated.arrival = Some(Arrival {
                    wants,
                    membership: self.membership.clone(),
                    answer,
                });
                table.answer_if_complete();
            }
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
    pub(super) fn sealed(&self, instant: GroupInstant) {
        let members = self.membership.members.len();
        self.with_table(|table| table.sealed(instant, members));
    }

    /// The newest instant that all members have sealed.
    pub(super) fn newest(&self) -> Option<GroupInstant> {
        self.with_table(|table| *table.newest.borrow())
    }

    /// The same, and every later one.
    pub(super) fn all_newest(&self) -> watch::Receiver<Option<GroupInstant>> {
        self.with_table(|table| table.newest.subscribe())
    }

    fn with_table<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut shared = self.tables.lock();
        change(shared.tables.entry(self.membership.group.clone()).or_default())
    }
}

impl Drop for Chair {
    fn drop(&mut self) {
        let mut shared = self.tables.lock();
        let group = &self.membership.group;
        let Some(table) = shared.tables.get_mut(group) else {
            return;
        };
        if table
            .seats
            .get(&self.vm)
            .is_some_and(|seated| seated.number == self.number)
        {
            table.seats.remove(&self.vm);
        }
        if table.seats.is_empty() {
            shared.tables.remove(group);
        } else {
            table.answer_if_complete();
        }
    }
}

impl Table {
    fn answer_if_complete(&mut self) {
        let has_come = |seated: &Seated| seated.arrival.as_ref().is_some_and(Arrival::waits);
        if self.seats.values().all(has_come) {
            self.answer();
        }
    }

    /// Tells all who have come.
    fn answer(&mut self) {
        let seated: Vec<String> = self.seats.keys().cloned().collect();
        let mut arrivals = Vec::new();
        for (vm, seated) in &mut self.seats {
            if let Some(arrival) = seated.arrival.take().filter(Arrival::waits) {
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
            .find(|(sealing, _, _)| sealing.id == instant.id);
        match found {
            Some((_, sealed, _)) => *sealed = sealed.saturating_add(1),
            None => self.sealing.push((instant, 1, members)),
        }
        if let Some(place) = self.sealing.iter().position(|(_, sealed, of)| sealed >= of) {
            // Whoever sealed it has sealed, or will never seal, those before it.
            let newest = self.sealing.drain(..=place).next_back();
            self.newest.send_replace(newest.map(|(newest, _, _)| newest));
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
            "does not replicate now, or its replicator does not reach where the group gathers"
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

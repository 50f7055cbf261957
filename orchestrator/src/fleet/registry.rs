//! Who is attached, what is known of them, and which commands wait for a result. No waiting and no clock here.
//!
//! Invariants: at most one session of a name, and at most one of a site that has a vault; a session that was replaced changes nothing any more.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    addressee::Addressee,
    error::FleetError,
    malformed::Malformed,
    outcome::{Question, question_of},
    view::{FleetView, ReplicatorView},
};

/// How many replicators are known at most: peers that make up names must not fill the memory.
const MAX_KNOWN: usize = 1024;

/// How many replaced processes of one name are remembered, to notice when one comes back.
const REMEMBERED_INSTANCES: usize = 8;

/// A command's result as its waiter gets it.
pub(super) type Answer = Result<v1::command_result::Outcome, Malformed>;

/// The attached replicators, by name.
pub(super) type Sessions = Arc<BTreeMap<String, Session>>;

/// Tells two waiters of the same identifier apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// One attachment of a replicator.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) site: String,
    pub(super) can: Abilities,
    pub(super) outbound: mpsc::Sender<Result<v1::OrchestratorMessage, Status>>,
    pub(super) ended: CancellationToken,
}

/// What an attached replicator can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It has a vault.
    pub(super) keep: bool,
    /// It can be a source.
    pub(super) capture: bool,
}

/// How an attachment came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing of this name was attached.
    Fresh,
    /// It took the place of another stream of this name.
    Replaced,
    /// It took the place of the process that had taken its place before: two run under one name.
    Flapping,
}

/// Why a replicator may not attach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttachRefused {
    #[error("the site {site} has the replicator {holder} with a vault attached; a site has one vault")]
    VaultTaken { site: String, holder: String },
    #[error("the replicator {name} is attached at the site {site}; one name is one replicator")]
    NameElsewhere { name: String, site: String },
    #[error("{MAX_KNOWN} replicators are attached; no more are taken")]
    Full,
}

/// What became of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivery {
    Delivered,
    /// Nobody waits for it, or not from this site.
    Ignored,
    /// Its waiter was told that this is no answer.
    Refused(Malformed),
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    view: FleetView,
    sessions: BTreeMap<String, Session>,
    replaced: HashMap<String, VecDeque<String>>,
    waiters: HashMap<String, Waiter>,
    last_number: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    addressee: Addressee,
    question: Question,
    answer: oneshot::Sender<Answer>,
}

impl Registry {
    pub(super) fn view(&self) -> Arc<FleetView> {
        Arc::new(self.view.clone())
    }

    pub(super) fn sessions(&self) -> Sessions {
        Arc::new(self.sessions.clone())
    }

    /// Takes in a replicator. An earlier stream of its name is told to end.
    pub(super) fn attach(
        &mut self,
        register: v1::Register,
        outbound: mpsc::Sender<Result<v1::OrchestratorMessage, Status>>,
        ended: CancellationToken,
        now: WallTime,
    ) -> Result<(Session, Arrival), AttachRefused> {
        self.check_place(&register)?;
        let number = self.next_number();
        let session = Session {
            number,
            name: register.name.clone(),
            site: register.site.clone(),
            can: Abilities {
                keep: !register.vault_incarnation.is_empty(),
                capture: register.captures != Some(false),
            },
            outbound,
            ended,
        };
        let arrival = match self.sessions.insert(register.name.clone(), session.clone()) {
            Some(earlier) => {
                earlier.ended.cancel();
                self.arrival_of(&register)
            }
            None => Arrival::Fresh,
        };
        let earlier = self.view.replicators.remove(&register.name);
        let (report, reported_at) = earlier.map_or((None, None), |view| (view.report, view.reported_at));
        let view = ReplicatorView {
            register,
            up: true,
            last_seen: now,
            report,
            reported_at,
        };
        self.view.replicators.insert(session.name.clone(), view);
        Ok((session, arrival))
    }

    /// Takes in a report; one of a replaced session is ignored.
    pub(super) fn report(&mut self, session: &Session, report: v1::Report, now: WallTime) {
        if let Some(view) = self.current(session) {
            view.up = true;
            view.last_seen = now;
            view.report = Some(report);
            view.reported_at = Some(now);
        }
    }

    /// A replicator has not reported for too long.
    pub(super) fn silent(&mut self, session: &Session) {
        if let Some(view) = self.current(session) {
            view.up = false;
        }
    }

    /// A stream has ended.
    pub(super) fn detach(&mut self, session: &Session) {
        if let Some(view) = self.current(session) {
            view.up = false;
            self.sessions.remove(&session.name);
        }
    }

    /// Notes that someone waits for the result of a command.
    pub(super) fn expect(
        &mut self,
        addressee: Addressee,
        id: &str,
        body: &v1::command::Body,
    ) -> Result<(Ticket, oneshot::Receiver<Answer>), FleetError> {
        if self.waiters.contains_key(id) {
            return Err(FleetError::InFlight { id: id.to_owned() });
        }
        let ticket = Ticket(self.next_number());
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter {
            ticket,
            addressee,
            question: question_of(body),
            answer,
        };
        self.waiters.insert(id.to_owned(), waiter);
        Ok((ticket, answered))
    }

    /// Nobody waits any more; another waiter of the same identifier is left alone.
    pub(super) fn forget(&mut self, id: &str, ticket: Ticket) {
        if self.waiters.get(id).is_some_and(|waiter| waiter.ticket == ticket) {
            self.waiters.remove(id);
        }
    }

    /// Hands a result to whoever waits for it.
    pub(super) fn answer(&mut self, session: &Session, result: v1::CommandResult, now: WallTime) -> Delivery {
        if let Some(view) = self.current(session) {
            view.last_seen = now;
        }
        let is_awaited = |waiter: &Waiter| waiter.addressee.is(session);
        if !self.waiters.get(&result.id).is_some_and(is_awaited) {
            return Delivery::Ignored;
        }
        let Some(waiter) = self.waiters.remove(&result.id) else {
            return Delivery::Ignored;
        };
        let answer = waiter.question.check(result.outcome);
        let delivery = match &answer {
            Ok(_) => Delivery::Delivered,
            Err(malformed) => Delivery::Refused(malformed.clone()),
        };
        // If the waiter has just gone, the result is a late one.
        let _ = waiter.answer.send(answer);
        delivery
    }

    fn current(&mut self, session: &Session) -> Option<&mut ReplicatorView> {
        let current = self.sessions.get(&session.name)?;
        if current.number != session.number {
            return None;
        }
        self.view.replicators.get_mut(&session.name)
    }

    fn check_place(&mut self, register: &v1::Register) -> Result<(), AttachRefused> {
        let is_other_vault = |session: &&Session| {
            session.can.keep && session.site == register.site && session.name != register.name
        };
        let keeps = !register.vault_incarnation.is_empty();
        if let Some(holder) = self.sessions.values().find(is_other_vault).filter(|_| keeps) {
            return Err(AttachRefused::VaultTaken {
                site: register.site.clone(),
                holder: holder.name.clone(),
            });
        }
        let attached = self.sessions.get(&register.name);
        if let Some(elsewhere) = attached.filter(|session| session.site != register.site) {
            return Err(AttachRefused::NameElsewhere {
                name: register.name.clone(),
                site: elsewhere.site.clone(),
            });
        }
        let is_known = self.view.replicators.contains_key(&register.name);
        if !is_known && self.view.replicators.len() >= MAX_KNOWN {
            self.forget_longest_gone()?;
        }
        Ok(())
    }

    fn forget_longest_gone(&mut self) -> Result<(), AttachRefused> {
        let attached = |name: &String| self.sessions.contains_key(name);
        let gone = self.view.replicators.iter().filter(|(name, _)| !attached(name));
        let longest = gone.min_by_key(|(_, view)| view.last_seen);
        let name = longest.map(|(name, _)| name.clone()).ok_or(AttachRefused::Full)?;
        self.view.replicators.remove(&name);
        self.replaced.remove(&name);
        Ok(())
    }

    fn arrival_of(&mut self, register: &v1::Register) -> Arrival {
        let Some(earlier) = self.view.replicators.get(&register.name) else {
            return Arrival::Replaced;
        };
        if earlier.register.instance == register.instance {
            return Arrival::Replaced;
        }
        let replaced = self.replaced.entry(register.name.clone()).or_default();
        let came_back = replaced.contains(&register.instance);
        replaced.push_back(earlier.register.instance.clone());
        if replaced.len() > REMEMBERED_INSTANCES {
            replaced.pop_front();
        }
        if came_back {
            Arrival::Flapping
        } else {
            Arrival::Replaced
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }
}

#[cfg(test)]
mod tests;

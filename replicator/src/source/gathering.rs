//! Where the sources of a consistency group gather for their instants.
//!
//! Each that replicates has a [`Seat`], and comes to every cycle. When all that are seated have come, or the first has waited
//! long enough, it is told to all who came what they do: one instant together, each its own, or nothing. Whoever is not seated is not
//! waited for: it syncs, its link is cut, or it is not enabled. It costs the others their common instant, not their points.
//!
//! Where a group's sources are at several replicators of the site, all of them gather at one, which leads. The others attend
//! through a stream for each member, which speaks for it at the leader's table:
//!
//! ```text
//! engine ── Seat ── attending ──gRPC── hosting ── Chair ── Table ── Chair ── Seat ── engine
//!           at a replicator that does not lead    at the one that leads
//! ```
//!
//! A stream that ends is a member that leaves.

mod attending;
mod dialling;
mod hosting;
mod messages;
mod service;
mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use farshore_blocks::clock::WallTime;
use farshore_provider::{InstantId, Participant};
use tokio::time::Instant;

use crate::{
    assignment::{GroupLeader, Membership},
    configuration::Plaintext,
};

pub(crate) use service::serve;

use attending::Attendance;
use dialling::{Dial, GrpcDial};
use messages::Sitting;
use table::{Chair, Tables};

/// Which replicator of which site this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) site: String,
}

/// All groups that have sources here; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    own: Own,
    tables: Tables,
    leaders: Arc<Mutex<BTreeMap<String, GroupLeader>>>,
    dial: Arc<dyn Dial>,
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
    at: At,
}

#[derive(Debug)]
enum At {
    Here(Chair),
    Away(GroupLeader, Attendance),
}

/// An instant that several sources have, and what it is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupInstant {
    pub(crate) id: InstantId,
    pub(crate) at: WallTime,
}

impl Groups {
    /// Groups whose members of other replicators are met by gRPC.
    pub(crate) fn new(own: Own, plaintext: Plaintext) -> Self {
        Self::dialling_by(own, GrpcDial { plaintext })
    }

    fn dialling_by(own: Own, dial: impl Dial + 'static) -> Self {
        Self {
            own,
            tables: Tables::default(),
            leaders: Arc::default(),
            dial: Arc::new(dial),
        }
    }

    /// Where a source of this membership gathers with the others.
    pub(crate) fn place(&self, membership: &Membership, vm: &str) -> Place {
        self.led_as(membership);
        Place {
            groups: self.clone(),
            membership: membership.clone(),
            vm: vm.to_owned(),
        }
    }

    /// From their next cycles on the group's members here gather where this says.
    pub(crate) fn led_as(&self, membership: &Membership) {
        let mut leaders = self.leaders();
        match &membership.leader {
            Some(leader) => leaders.insert(membership.group.clone(), leader.clone()),
            None => leaders.remove(&membership.group),
        };
    }

    /// The replicator at which a group gathers, unless that is this one.
    fn leader_elsewhere(&self, group: &str) -> Option<GroupLeader> {
        let leader = self.leaders().get(group).cloned();
        leader.filter(|leader| leader.replicator != self.own.name)
    }

    fn leaders(&self) -> MutexGuard<'_, BTreeMap<String, GroupLeader>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// From now on the others wait for it.
    pub(crate) fn sit(&self) -> Seat {
        Seat {
            place: self.clone(),
            at: self.sit_at(self.groups.leader_elsewhere(&self.membership.group)),
        }
    }

    fn sit_at(&self, leader: Option<GroupLeader>) -> At {
        let Groups {
            own, tables, dial, ..
        } = &self.groups;
        match leader {
            None => At::Here(tables.sit(self.membership.clone(), &self.vm)),
            Some(leader) => {
                let sitting = Sitting {
                    site: own.site.clone(),
                    replicator: own.name.clone(),
                    vm: self.vm.clone(),
                    membership: self.membership.clone(),
                };
                let attendance = Attendance::begin(leader.clone(), Arc::clone(dial), sitting);
                At::Away(leader, attendance)
            }
        }
    }
}

impl Seat {
    /// Waits for the others until `deadline`, and learns what is to be done.
    pub(crate) async fn meet(&mut self, wants: Wants, deadline: Instant) -> Meeting {
        let leader = self.place.groups.leader_elsewhere(&self.place.membership.group);
        let sits_at = match &self.at {
            At::Here(_) => None,
            At::Away(leader, _) => Some(leader),
        };
        if sits_at != leader.as_ref() {
            self.at = self.place.sit_at(leader);
        }
        match &self.at {
            At::Here(chair) => chair.meet(wants, deadline).await,
            At::Away(_, attendance) => attendance.meet(wants, deadline).await,
        }
    }

    /// Its point of this instant is sealed.
    pub(crate) fn sealed(&self, instant: GroupInstant) {
        match &self.at {
            At::Here(chair) => chair.sealed(instant),
            At::Away(_, attendance) => attendance.sealed(instant.id),
        }
    }

    /// The newest instant that all members have sealed.
    pub(crate) fn newest(&self) -> Option<GroupInstant> {
        match &self.at {
            At::Here(chair) => chair.newest(),
            At::Away(_, attendance) => attendance.newest(),
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

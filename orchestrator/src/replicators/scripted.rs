//! Replicators for tests: one state for all sites, that carries commands out as real ones would, fails when the
//! script says so, and remembers what it was asked.

mod manifest;
mod world;

use std::sync::{Arc, Mutex, MutexGuard};

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{self, command::Body, command_result::Outcome};
use tokio::sync::watch;

pub(crate) use manifest::MANIFEST;
pub(crate) use world::{World, now};

use super::{Commanding, Duty, Order, Replicators};
use crate::fleet::{FleetError, FleetView, ReplicatorView};

/// The two sites of all tests.
pub(crate) const SITES: [&str; 2] = ["east", "west"];
/// Where the west can be dialled, and where the east.
const VAULT: &str = "http://10.0.0.2:7201";
const SOURCE: &str = "http://10.0.0.1:7201";

/// What the script may do to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not carried out and fails.
    Fails { retryable: bool },
    /// It is carried out, and the answer is lost.
    AnswerLost,
}

#[derive(Clone)]
pub(crate) struct Scripted {
    world: Arc<Mutex<World>>,
    views: Arc<watch::Sender<Arc<FleetView>>>,
}

pub(crate) fn part_of(body: &Body) -> &'static str {
    match body {
        Body::CheckSource(_) => "check-source",
        Body::CheckTarget(_) => "check-target",
        Body::PrepareTarget(_) => "prepare-target",
        Body::InstallSource(_) => "install-source",
        Body::EnableSource(_) => "enable-source",
        Body::RemoveSource(_) => "remove-source",
        Body::Fence(_) => "fence",
        Body::ListPoints(_) => "list-points",
        Body::StartRecovery(_) => "start-recovery",
        Body::DiscardRecovery(_) => "discard-recovery",
        Body::SetReplication(_) => "set-replication",
        Body::SetDisks(_) => "set-disks",
        Body::SetRetention(_) => "set-retention",
        Body::SetPin(_) => "set-pin",
        Body::ForgetSeeds(_) => "forget-seeds",
    }
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self::over(World::default())
    }

    pub(crate) fn over(world: World) -> Self {
        let scripted = Self {
            world: Arc::new(Mutex::new(world)),
            views: Arc::new(watch::Sender::new(Arc::default())),
        };
        scripted.publish();
        scripted
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changes the world and has the replicators report it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world());
        self.publish();
    }

    /// What the replicator of this site reports now.
    pub(crate) fn report(&self, site: &str) -> v1::Report {
        self.world().report(site)
    }

    pub(crate) fn register(site: &str) -> v1::Register {
        let has_vault = site == "west";
        v1::Register {
            name: format!("{site}-1"),
            site: site.to_owned(),
            software_version: "0.1.0".to_owned(),
            instance: "test".to_owned(),
            replication_endpoint: if has_vault { VAULT } else { SOURCE }.to_owned(),
            vault_incarnation: if has_vault {
                vec![9; 16].into()
            } else {
                Vec::new().into()
            },
            sent_at: Some(now()),
            captures: Some(!has_vault),
            site_endpoint: String::new(),
        }
    }

    fn publish(&self) {
        let replicators = SITES.into_iter().map(|site| {
            let world = self.world();
            let view = ReplicatorView {
                register: Self::register(site),
                up: !world.away.contains(site),
                last_seen: WallTime::now(),
                report: Some(world.report(site)),
                reported_at: Some(WallTime::now()),
            };
            (format!("{site}-1"), view)
        });
        let view = FleetView {
            replicators: replicators.collect(),
        };
        self.views.send_replace(Arc::new(view));
    }

    /// Carries a command out as the script says; `None` is an answer that never comes.
    pub(crate) fn carry_out(&self, id: &str, body: &Body) -> Option<Outcome> {
        let part = part_of(body);
        let answer = {
            let mut world = self.world();
            world.asked.push((id.to_owned(), part));
            let fault = world.faults.get_mut(part).and_then(Vec::pop);
            match fault {
                Some(Fault::Fails { retryable }) => Some(Outcome::Failure(v1::Failure {
                    reason: "scripted".to_owned(),
                    message: format!("{part} fails"),
                    retryable,
                })),
                Some(Fault::AnswerLost) => {
                    world.carry_out(body);
                    None
                }
                None => Some(world.carry_out(body)),
            }
        };
        self.publish();
        answer
    }
}

impl Replicators for Scripted {
    fn command(&self, order: Order) -> Commanding<'_> {
        Box::pin(async move {
            let is_stuck = self.world().stuck.contains(part_of(&order.body));
            if is_stuck {
                self.world().asked.push((order.id.clone(), part_of(&order.body)));
                std::future::pending::<()>().await;
            }
            if self.world().away.contains(order.site.as_str()) {
                return Err(FleetError::Unreachable {
                    site: order.site,
                    waited: order.deadline,
                });
            }
            // Whoever asks the wrong site, or another of its replicators, gets no answer.
            assert_eq!(order.site, site_of(&order.body), "{:?}", order.body);
            assert!(is_meant(&order.duty, site_of(&order.body)), "{order:?}");
            let answer = self.carry_out(&order.id, &order.body);
            answer.ok_or(FleetError::NoAnswer {
                site: order.site,
                id: order.id,
                waited: order.deadline,
            })
        })
    }

    fn reports(&self) -> watch::Receiver<Arc<FleetView>> {
        self.views.subscribe()
    }
}

fn is_meant(duty: &Duty, site: &str) -> bool {
    match duty {
        Duty::Vault => site == "west",
        Duty::Source(name) => site == "east" && name.as_ref().is_none_or(|name| name == "east-1"),
    }
}

fn site_of(body: &Body) -> &'static str {
    match body {
        Body::CheckSource(_)
        | Body::InstallSource(_)
        | Body::EnableSource(_)
        | Body::RemoveSource(_)
        | Body::SetReplication(_)
        | Body::SetDisks(_) => "east",
        Body::CheckTarget(_)
        | Body::PrepareTarget(_)
        | Body::Fence(_)
        | Body::ListPoints(_)
        | Body::StartRecovery(_)
        | Body::DiscardRecovery(_)
        | Body::SetRetention(_)
        | Body::SetPin(_)
        | Body::ForgetSeeds(_) => "west",
    }
}

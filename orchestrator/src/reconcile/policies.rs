//! Has replicators go by the policies, and sources by the disks, as they are declared now: what they report is compared with what is declared, and
//! whoever goes by something else is told. Nothing is recorded; what is told twice changes nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use farshore_domain::declaration::{ProtectedVm, ReplicationPolicy};
use farshore_proto::v1::{self, command::Body, command_result::Outcome};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::disks;
use crate::{
    clock::Clock,
    fleet::FleetView,
    groups, machine,
    records::{self, VmRecord},
    replicators::{self, Duty, Order, Replicators},
    store::{Store, StoreError},
};

/// How long one replicator may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long nothing is said to it again: its next report shows by then what it goes by.
const AFTER_AN_ANSWER: Duration = Duration::from_secs(1);
const AFTER_A_FAILURE: Duration = Duration::from_secs(5);
/// To look whether it can have other disks, a source interrupts its replication.
const AFTER_REFUSED_DISKS: Duration = Duration::from_secs(60);
/// How many are told at once, so that a policy of many VMs does not hold up the rest of the fleet's work.
const AT_ONCE: usize = 32;

/// Who is told, by the VM's name: one word at a time to each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listener {
    Source(String),
    /// The same, of its disks: while these are refused, it still hears of everything else.
    SourceDisks(String),
    Target(String),
}

/// What one replicator is to be told of one VM.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owed {
    pub(super) listener: Listener,
    pub(super) site: String,
    pub(super) duty: Duty,
    pub(super) body: Body,
}

/// Everything that replicators which are there are yet to be told.
pub(super) fn owed(store: &dyn Store, view: &FleetView) -> Result<Vec<Owed>, StoreError> {
    let mut owed = Vec::new();
    let mut memberships = groups::memberships(store, view)?;
    for vm in records::list::<VmRecord>(store)? {
        let Some(declared) = records::declared_vm(store, &vm.name)? else {
            continue;
        };
        owed.extend(disks::to_source(view, &vm, &declared));
        if let Some(policy) = records::declared_policy(store, declared.policy())? {
            owed.extend(to_target(view, &vm, &declared, &policy));
            let site = records::declared_site(store, &declared.source().site)?;
            let link = site.as_ref().and_then(|site| site.link(&declared.target().site));
            let membership = memberships.remove(declared.name());
            let wanted = (machine::policy_to_wire(&policy, link), membership);
            owed.extend(to_source(view, &vm, &declared, wanted));
        }
    }
    Ok(owed)
}

fn to_target(
    view: &FleetView,
    vm: &VmRecord,
    declared: &ProtectedVm,
    policy: &ReplicationPolicy,
) -> Option<Owed> {
    let site = declared.target().site.as_str();
    let (replicator, status) = replicators::target_status(view, site, vm.chain)?;
    let retention = Some(machine::retention_to_wire(policy.retention()));
    (replicator.up && status.retention != retention).then(|| Owed {
        listener: Listener::Target(vm.name.clone()),
        site: site.to_owned(),
        duty: Duty::Vault,
        body: Body::SetRetention(v1::SetRetention {
            chain: vm.chain.as_bytes().to_vec().into(),
            retention,
        }),
    })
}

fn to_source(
    view: &FleetView,
    vm: &VmRecord,
    declared: &ProtectedVm,
    (policy, membership): (v1::Replicate, Option<v1::Membership>),
) -> Option<Owed> {
    let site = declared.source().site.as_str();
    let (replicator, status) = replicators::source_status(view, site, vm.chain)?;
    let policy = Some(policy);
    (replicator.up && (status.policy != policy || status.membership != membership)).then(|| Owed {
        listener: Listener::Source(vm.name.clone()),
        site: site.to_owned(),
        duty: Duty::Source(Some(replicator.register.name.clone())),
        body: Body::SetReplication(v1::SetReplication {
            chain: vm.chain.as_bytes().to_vec().into(),
            policy,
            membership,
        }),
    })
}

/// Who tells one of them, and notes what comes of it.
#[derive(Clone)]
pub(super) struct Teller {
    pub(super) store: Arc<dyn Store>,
    pub(super) replicators: Arc<dyn Replicators>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Tells replicators, several at once, and none of them twice at once.
pub(super) struct PolicyTeller {
    teller: Teller,
    under_way: BTreeSet<Listener>,
    tasks: JoinSet<Listener>,
}

impl PolicyTeller {
    pub(super) fn new(teller: Teller) -> Self {
        Self {
            teller,
            under_way: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Begins to tell what is owed, but for those who are being told something.
    pub(super) fn tell(&mut self, owed: Vec<Owed>) {
        for owed in owed {
            if self.under_way.len() >= AT_ONCE {
                return;
            }
            let listener = owed.listener.clone();
            if self.under_way.insert(listener.clone()) {
                let teller = self.teller.clone();
                self.tasks.spawn(async move {
                    tokio::time::sleep(teller.tell(owed).await).await;
                    listener
                });
            }
        }
    }

    /// Waits until somebody was told; for ever if nobody is being told anything.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(listener)) => {
                self.under_way.remove(&listener);
            }
            // A task that panicked does not say for whom it was: nobody stays shut out for it.
            Some(Err(_)) => self.under_way.clear(),
            None => std::future::pending().await,
        }
    }
}

impl Teller {
    /// Gives how long nothing is to be said again.
    async fn tell(&self, owed: Owed) -> Duration {
        let order = Order {
            site: owed.site.clone(),
            duty: owed.duty,
            id: format!("declared-{}", Uuid::now_v7()),
            body: owed.body,
            deadline: DEADLINE,
        };
        match self.replicators.command(order).await {
            Ok(Outcome::Failure(failure)) => {
                tracing::warn!(
                    listener = ?owed.listener,
                    owed.site,
                    failure.reason,
                    failure.message,
                    "what is declared now was refused"
                );
                match owed.listener {
                    Listener::SourceDisks(vm) => {
                        self.note_refused_disks(&vm, &failure.message).await;
                        AFTER_REFUSED_DISKS
                    }
                    Listener::Source(_) | Listener::Target(_) => AFTER_A_FAILURE,
                }
            }
            Ok(_) => AFTER_AN_ANSWER,
            Err(error) => {
                tracing::info!(listener = ?owed.listener, owed.site, %error, "what is declared now could not be told");
                AFTER_A_FAILURE
            }
        }
    }

    async fn note_refused_disks(&self, vm: &str, why: &str) {
        let noted = disks::note_refused(&*self.store, (vm, why), self.clock.now()).await;
        if let Err(error) = noted {
            // It is refused again in a minute.
            tracing::warn!(vm, %error, "that disks were refused is not written down");
        }
    }
}

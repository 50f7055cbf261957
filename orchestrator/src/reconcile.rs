//! Compares what was declared and recorded with what is observed, and writes down or plans what follows.

mod audit;
mod damage;
mod disks;
mod interruptions;
mod policies;
mod retention;
mod tracking;
mod volumes;

use std::{sync::Arc, time::Duration};

use farshore_domain::{
    job::{Job, JobId, JobKind},
    protection::{self, Protection},
};
use policies::{PolicyTeller, Teller};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::Clock,
    control::Control,
    fleet::FleetView,
    jobs::sight,
    records::{self, EventRecord, VmRecord, transact},
    replicators::Replicators,
    store::{Store, StoreError},
};

/// How often old records are forgotten.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3600);

/// Whether what was observed last could be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noting {
    Written,
    NoRoom,
}

/// Follows reports and declarations.
pub struct Reconciler {
    store: Arc<dyn Store>,
    replicators: Arc<dyn Replicators>,
    clock: Arc<dyn Clock>,
}

impl Reconciler {
    /// One over these parts; nothing runs yet.
    #[must_use]
    pub fn new(control: &Control) -> Self {
        Self {
            store: control.store.clone(),
            replicators: control.replicators.clone(),
            clock: control.clock.clone(),
        }
    }

    /// Reconciles after every change until it is stopped.
    ///
    /// # Errors
    /// When the store cannot be used any more.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut revisions = self.store.revisions();
        let mut views = self.replicators.reports();
        let mut retention = tokio::time::interval(RETENTION_INTERVAL);
        let mut teller = PolicyTeller::new(Teller {
            store: self.store.clone(),
            replicators: self.replicators.clone(),
            clock: self.clock.clone(),
        });
        let mut noting = Noting::Written;
        loop {
            revisions.borrow_and_update();
            let view = views.borrow_and_update().clone();
            match self.reconcile(&view).await {
                Ok(()) => noting = Noting::Written,
                Err(error @ StoreError::NoRoom { .. }) => {
                    if noting == Noting::Written {
                        tracing::error!(%error, "what is observed is not written down");
                    }
                    // The next report tells it again.
                    noting = Noting::NoRoom;
                }
                Err(error) => return Err(error),
            }
            teller.tell(policies::owed(&*self.store, &view)?);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = retention.tick() => match retention::forget_old(&*self.store).await {
                    Ok(()) | Err(StoreError::NoRoom { .. }) => {}
                    Err(error) => return Err(error),
                },
                () = teller.ended() => {}
                changed = revisions.changed() => changed.map_err(|_| StoreError::Closed)?,
                changed = views.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
        }
    }

    /// One pass over all VMs. VMs for which nothing follows cost no write.
    pub(crate) async fn reconcile(&self, view: &FleetView) -> Result<(), StoreError> {
        for vm in records::list::<VmRecord>(&*self.store)? {
            if self.follows(view, &vm)? {
                self.follow(view, &vm.name).await?;
            }
        }
        Ok(())
    }

    /// Whether anything follows for this VM: a cheap look before a decision.
    fn follows(&self, view: &FleetView, vm: &VmRecord) -> Result<bool, StoreError> {
        if vm.protection == Protection::Pending {
            return Ok(!self.has_job(vm)?);
        }
        let Some(declared) = records::declared_vm(&*self.store, &vm.name)? else {
            return Ok(false);
        };
        if damage::news(view, &declared, vm).is_some()
            || audit::news(view, &declared, vm).is_some()
            || volumes::news(view, &declared, vm).is_some()
            || tracking::news(view, &declared, vm).is_some()
            || disks::are_settled(view, &declared, vm)
            || interruptions::news(view, (&declared, vm), self.clock.now()).is_some()
        {
            return Ok(true);
        }
        let Some(sight) = sight(view, &declared, vm) else {
            return Ok(false);
        };
        let seen = protection::step(&vm.protection, protection::Event::See(sight));
        // How much is left of a comparison changes with every report, and is shown from the report.
        Ok(seen.is_ok_and(|(next, _)| next.name() != vm.protection.name()))
    }

    fn has_job(&self, vm: &VmRecord) -> Result<bool, StoreError> {
        let job = records::read::<Job>(&*self.store, &vm.latest_job.0)?;
        Ok(job.is_some_and(|job| !job.state.has_ended()))
    }

    async fn follow(&self, view: &FleetView, name: &str) -> Result<(), StoreError> {
        let now = self.clock.now();
        let id = JobId(Uuid::now_v7().to_string());
        transact(&*self.store, |work| {
            let Some(mut vm) = work.get::<VmRecord>(name)? else {
                return Ok(());
            };
            let Some(declared) = work.declared_vm(name)? else {
                return Ok(());
            };
            if vm.protection == Protection::Pending {
                let latest = work.get::<Job>(&vm.latest_job.0)?;
                if latest.is_none_or(|job| job.state.has_ended()) {
                    vm.latest_job = id.clone();
                    work.put(&Job::plan(id.clone(), JobKind::EnableProtection, name, None, now))?;
                    work.put(&vm)?;
                }
                return Ok(());
            }
            if let Some(news) = damage::news(view, &declared, &vm) {
                vm.vault = news.told;
                work.tell(&news.event(&vm.subject(), now))?;
                work.put(&vm)?;
            }
            if let Some(news) = audit::news(view, &declared, &vm) {
                vm.audit_told = Some(news.found_at);
                work.tell(&news.event(&vm.subject(), now))?;
                work.put(&vm)?;
            }
            if let Some(news) = volumes::news(view, &declared, &vm) {
                work.tell(&news.event(&vm.subject(), now))?;
                vm.volumes = news.volumes;
                work.put(&vm)?;
            }
            if let Some(news) = tracking::news(view, &declared, &vm) {
                vm.tracking_lost_told = Some(news.at);
                work.tell(&news.event(&vm.subject(), now))?;
                work.put(&vm)?;
            }
            if disks::are_settled(view, &declared, &vm) {
                vm.disks_refused.clear();
                work.put(&vm)?;
            }
            if let Some(news) = interruptions::news(view, (&declared, &vm), now) {
                work.tell(&news.event(&vm.subject(), now))?;
                vm.interruption = news.told;
                work.put(&vm)?;
            }
            let Some(sight) = sight(view, &declared, &vm) else {
                return Ok(());
            };
            let Ok(effects) = vm.protect(protection::Event::See(sight)) else {
                return Ok(());
            };
            for effect in &effects {
                work.tell(&EventRecord::of_protection(effect, &vm.subject(), now))?;
            }
            work.put(&vm)
        })
        .await
    }
}

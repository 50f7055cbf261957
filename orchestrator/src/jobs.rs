//! Runs jobs: finds those that may run, and drives each from record to record until it has ended.
//!
//! There is one path for a first run, a retry and a restart: read the job, ask it what is next, do that, write
//! down what came of it. Nothing about a job is known here that is not in its record, except that this
//! process drives it.
//!
//! Crash story: a step is written as begun before it runs and with its outcome afterwards. A kill in between
//! leaves it begun, so it is run again, with the same command identifiers.

mod bookkeeping;
mod driver;
mod steps;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use farshore_domain::job::{Job, JobId, runnable};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use steps::{choose, list_points, sight};

use crate::{
    clock::Clock,
    control::Control,
    metrics::Metrics,
    records,
    replicators::Replicators,
    store::{Store, StoreError},
};

#[cfg(test)]
mod tests;

/// How long a job waits whose steps could not be written down.
const WITHOUT_ROOM: Duration = Duration::from_secs(2);

/// What jobs work with.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
    replicators: Arc<dyn Replicators>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Engine {
    /// An engine over these parts; nothing runs yet.
    #[must_use]
    pub fn new(control: &Control, metrics: Metrics) -> Self {
        Self {
            store: control.store.clone(),
            replicators: control.replicators.clone(),
            clock: control.clock.clone(),
            metrics,
        }
    }

    /// Drives all jobs until it is stopped. Steps that run then are left as a kill would leave them.
    ///
    /// # Errors
    /// When the store cannot be used any more.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut revisions = self.store.revisions();
        let mut drivers: JoinSet<(JobId, Result<(), StoreError>)> = JoinSet::new();
        let mut driven = BTreeSet::new();
        let ended = loop {
            revisions.borrow_and_update();
            let jobs = match self.jobs_under_way() {
                Ok(jobs) => jobs,
                Err(error) => break Err(error),
            };
            for id in runnable(&jobs) {
                if driven.insert(id.clone()) {
                    let (engine, stop) = (self.clone(), stop.clone());
                    drivers.spawn(async move { (id.clone(), engine.drive(&id, &stop).await) });
                }
            }
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                changed = revisions.changed() => if changed.is_err() {
                    break Err(StoreError::Closed);
                },
                Some(ended) = drivers.join_next() => match ended {
                    Ok((id, Ok(()))) => { driven.remove(&id); }
                    Ok((id, Err(error @ StoreError::NoRoom { .. }))) => {
                        tracing::error!(job = %id, %error, "a job waits for room");
                        drivers.spawn(async move {
                            tokio::time::sleep(WITHOUT_ROOM).await;
                            (id, Ok(()))
                        });
                    }
                    Ok((_, Err(error))) => break Err(error),
                    Err(panicked) => {
                        tracing::error!(%panicked, "the driver of a job panicked");
                        break Err(StoreError::Closed);
                    }
                },
            }
        };
        stop.cancel();
        while drivers.join_next().await.is_some() {}
        ended
    }

    fn jobs_under_way(&self) -> Result<Vec<Job>, StoreError> {
        let mut jobs = records::list::<Job>(&*self.store)?;
        jobs.retain(|job| !job.state.has_ended());
        Ok(jobs)
    }
}

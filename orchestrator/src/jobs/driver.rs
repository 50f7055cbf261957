//! Drives one job: what its record says is next is done, and what came of it is written down.

use farshore_domain::job::{Job, JobId, JobKind, JobState, Next, StepKind, StepOutcome, UndoOutcome};
use tokio_util::sync::CancellationToken;

use super::{
    Engine,
    bookkeeping::{self, Unfit},
    steps::{Achieved, Trouble},
};
use crate::{
    metrics::{FailoverKind, FailoverResult},
    records::{self, Work, transact},
    store::StoreError,
};

/// Why the work on a job was interrupted.
enum Interrupted {
    /// This process stops.
    Stopping,
    /// The job's record asks for its end.
    Cancelled,
    /// The store cannot be used any more.
    Store(StoreError),
}

impl Engine {
    /// Drives the job until it has ended or this process stops.
    pub(super) async fn drive(&self, id: &JobId, stop: &CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            let Some(job) = records::read::<Job>(&*self.store, &id.0)? else {
                return Ok(());
            };
            match job.next(self.clock.now()) {
                Next::Nothing => return Ok(()),
                Next::Run(index) => self.run_step(&job, index, stop).await?,
                Next::Undo(index) => self.undo_step(&job, index, stop).await?,
                Next::Wait(until) => {
                    let waited = self
                        .unless_interrupted(&job, stop, self.clock.sleep_until(until))
                        .await;
                    if let Err(Interrupted::Store(error)) = waited {
                        return Err(error);
                    }
                }
                Next::Cancel => {
                    self.change_if(&job, Next::Cancel, |_, job, now| {
                        job.begin_cancellation(now);
                        Ok(())
                    })
                    .await?;
                }
                Next::Finish => {
                    self.change_if(&job, Next::Finish, |_, job, now| {
                        job.finish(now);
                        Ok(())
                    })
                    .await?;
                }
            }
        }
        Ok(())
    }

    async fn run_step(&self, job: &Job, index: usize, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(kind) = job.steps.get(index).map(|step| step.kind) else {
            return Ok(());
        };
        let begun = self
            .change_if(job, Next::Run(index), |work, job, now| {
                job.begin_step(index, now);
                match bookkeeping::at_begin(work, job, kind, now) {
                    Ok(()) => Ok(Begun::Yes),
                    Err(Unfit::Store(error)) => Err(error),
                    Err(Unfit::State(reason)) => {
                        job.record_step(index, StepOutcome::GiveUp { reason }, now);
                        Ok(Begun::No)
                    }
                }
            })
            .await?;
        let Some((job, Begun::Yes)) = begun else {
            return Ok(());
        };
        let acted = match self
            .unless_interrupted(&job, stop, self.act(&job, index, kind))
            .await
        {
            Ok(acted) => acted,
            Err(Interrupted::Stopping | Interrupted::Cancelled) => return Ok(()),
            Err(Interrupted::Store(error)) => return Err(error),
        };
        self.record(&job, index, kind, acted).await
    }

    async fn record(
        &self,
        job: &Job,
        index: usize,
        kind: StepKind,
        acted: Result<Achieved, Trouble>,
    ) -> Result<(), StoreError> {
        let (facts, outcome) = match acted {
            Ok(Achieved { facts, detail }) => (Some(facts), StepOutcome::Done { detail }),
            Err(Trouble::TryAgain { reason, answered }) => {
                tracing::warn!(job = %job.id, step = kind.title(), %reason, "a step failed and is tried again");
                (None, StepOutcome::TryAgain { reason, answered })
            }
            Err(Trouble::GiveUp { reason, facts }) => (facts, StepOutcome::GiveUp { reason }),
            Err(Trouble::Store(error)) => return Err(error),
        };
        self.change_if(job, Next::Run(index), |work, job, now| {
            let mut outcome = outcome.clone();
            if let Some(facts) = &facts {
                match bookkeeping::take_in(work, job, facts, now) {
                    Ok(()) => {}
                    Err(Unfit::Store(error)) => return Err(error),
                    Err(Unfit::State(reason)) => outcome = StepOutcome::GiveUp { reason },
                }
            }
            job.record_step(index, outcome, now);
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn undo_step(&self, job: &Job, index: usize, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(kind) = job.steps.get(index).map(|step| step.kind) else {
            return Ok(());
        };
        let undone = tokio::select! {
            undone = self.undo(job, index, kind) => undone,
            () = stop.cancelled() => return Ok(()),
        };
        let outcome = match undone {
            Ok(()) => UndoOutcome::Undone,
            Err(Trouble::TryAgain { reason, .. } | Trouble::GiveUp { reason, .. }) => {
                tracing::warn!(job = %job.id, step = kind.title(), %reason, "a step could not be undone");
                UndoOutcome::Failed { reason }
            }
            Err(Trouble::Store(error)) => return Err(error),
        };
        self.change_if(job, Next::Undo(index), |_, job, now| {
            job.record_undo(index, outcome.clone(), now);
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Changes the job's record, and what else its end changes, if the record still has the same thing next.
    async fn change_if<T>(
        &self,
        job: &Job,
        expected: Next,
        mut change: impl FnMut(&mut Work<'_>, &mut Job, farshore_blocks::clock::WallTime) -> Result<T, StoreError>,
    ) -> Result<Option<(Job, T)>, StoreError> {
        let now = self.clock.now();
        let changed = transact(&*self.store, |work| {
            let Some(mut job) = work.get::<Job>(&job.id.0)? else {
                return Ok(None);
            };
            if job.next(now) != expected {
                return Ok(None);
            }
            let answer = change(work, &mut job, now)?;
            if job.state.has_ended() {
                bookkeeping::at_end(work, &job, now)?;
            }
            work.put(&job)?;
            Ok::<_, StoreError>(Some((job, answer)))
        })
        .await?;
        if let Some((job, _)) = &changed {
            self.count(job);
        }
        Ok(changed)
    }

    /// Counts a failover that has just ended.
    fn count(&self, job: &Job) {
        let kind = match job.kind {
            JobKind::TestFailover => FailoverKind::Test,
            JobKind::UnplannedFailover => FailoverKind::Unplanned,
            JobKind::EnableProtection | JobKind::DisableProtection | JobKind::TestFailoverCleanup => return,
        };
        let result = match &job.state {
            JobState::Succeeded => FailoverResult::Succeeded,
            JobState::Failed { .. } => FailoverResult::Failed,
            JobState::Cancelled { .. } => FailoverResult::Cancelled,
            JobState::Queued | JobState::Running | JobState::Unwinding { .. } => return,
        };
        let ended_at = job.ended_at.unwrap_or_default();
        self.metrics
            .failover_ended(kind, result, ended_at.since(job.created_at));
    }

    async fn unless_interrupted<T>(
        &self,
        job: &Job,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        tokio::select! {
            done = work => Ok(done),
            () = stop.cancelled() => Err(Interrupted::Stopping),
            interrupted = self.cancelled(&job.id) => Err(interrupted),
        }
    }

    /// Returns when the job's record asks for its end and that is still possible.
    async fn cancelled(&self, id: &JobId) -> Interrupted {
        let mut revisions = self.store.revisions();
        loop {
            revisions.borrow_and_update();
            match records::read::<Job>(&*self.store, &id.0) {
                Ok(Some(job)) if job.next(self.clock.now()) == Next::Cancel => return Interrupted::Cancelled,
                Ok(_) => {}
                Err(error) => return Interrupted::Store(error),
            }
            if revisions.changed().await.is_err() {
                return Interrupted::Store(StoreError::Closed);
            }
        }
    }
}

/// Whether a step may run after its begin was written.
enum Begun {
    Yes,
    No,
}

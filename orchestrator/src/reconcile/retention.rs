//! Decides what the control plane may forget: answers to old idempotency keys and old jobs that ended well.
//! What failed is kept until a person has retried it or its VM is gone.

use farshore_domain::job::{Job, JobState};

use crate::{
    records::{self, AnswerRecord, Record, transact},
    store::{Store, StoreError},
};

/// How many idempotency keys are remembered: days of a busy script.
const ANSWERS: usize = 10_000;
/// How many jobs that ended are remembered.
const ENDED_JOBS: usize = 2_000;
/// How many records one transaction forgets, so that others need not wait long.
const AT_ONCE: usize = 200;

/// Forgets what is too old.
///
/// # Errors
/// When the store cannot be used any more.
pub(super) async fn forget_old(store: &dyn Store) -> Result<(), StoreError> {
    let answers = records::list::<AnswerRecord>(store)?;
    let ages = answers
        .iter()
        .map(|answer| (answer.at.0, answer.name()))
        .collect();
    forget::<AnswerRecord>(store, surplus(ages, ANSWERS)).await?;
    let jobs = records::list::<Job>(store)?;
    let ages = jobs.iter().filter(|job| may_be_forgotten(job));
    let ages = ages
        .map(|job| (job.ended_at.unwrap_or_default().0, job.name()))
        .collect();
    forget::<Job>(store, surplus(ages, ENDED_JOBS)).await
}

fn may_be_forgotten(job: &Job) -> bool {
    match job.state {
        JobState::Succeeded | JobState::Cancelled { .. } => true,
        JobState::Queued | JobState::Running | JobState::Unwinding { .. } | JobState::Failed { .. } => false,
    }
}

/// The names of the oldest, as far as there are more than are kept.
fn surplus(mut ages: Vec<(u64, String)>, kept: usize) -> Vec<String> {
    ages.sort();
    let count = ages.len().saturating_sub(kept);
    ages.into_iter().take(count).map(|(_, name)| name).collect()
}

async fn forget<R: Record>(store: &dyn Store, names: Vec<String>) -> Result<(), StoreError> {
    for names in names.chunks(AT_ONCE) {
        transact(store, |work| {
            for name in names {
                work.remove::<R>(name);
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use farshore_blocks::clock::WallTime;
    use farshore_domain::job::{JobId, JobKind};

    use super::*;
    use crate::store::{Content, memory::MemoryStore};

    #[tokio::test]
    async fn the_oldest_jobs_that_ended_well_are_forgotten_and_failed_ones_kept() {
        let store = MemoryStore::over(Content::default());
        for number in 0..ENDED_JOBS + 3 {
            let mut job = Job::plan(
                JobId(format!("{number:05}")),
                JobKind::EnableProtection,
                "db",
                None,
                WallTime(0),
            );
            job.ended_at = Some(WallTime(u64::try_from(number).unwrap()));
            job.state = match number {
                0 => JobState::Failed { reason: "why".into() },
                _ => JobState::Succeeded,
            };
            transact(&store, |work| work.put(&job)).await.unwrap();
        }
        forget_old(&store).await.unwrap();
        let names: Vec<_> = records::list::<Job>(&store)
            .unwrap()
            .iter()
            .map(Record::name)
            .collect();
        assert_eq!(names.len(), ENDED_JOBS + 1);
        assert_eq!(names[..2], ["00000", "00003"]);
    }
}

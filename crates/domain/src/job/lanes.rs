//! Decides which jobs may run side by side, and which must make way.
//!
//! Per VM there is one exclusive lane, first in first out, and a shared lane whose jobs run side by side.
//! A job that is only being undone no longer holds the exclusive lane against an unplanned failover: the
//! fence makes whatever the undoing may miss at the source harmless, and a disaster does not wait for a
//! source that may never answer.

use super::{Job, JobId, JobKind, JobState};

/// How a job gets along with others of the same VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// One after the other.
    Exclusive,
    /// Side by side.
    Shared,
}

impl JobKind {
    /// The lane that such jobs run in.
    #[must_use]
    pub fn lane(self) -> Lane {
        match self {
            Self::EnableProtection | Self::DisableProtection | Self::UnplannedFailover => Lane::Exclusive,
            Self::TestFailover | Self::TestFailoverCleanup => Lane::Shared,
        }
    }
}

/// The jobs that may be worked on now, of all that have not ended. Order of planning is order of identifiers.
#[must_use]
pub fn runnable(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter()
        .filter(|job| !job.state.has_ended())
        .filter(|job| !jobs.iter().any(|other| must_wait_for(job, other)))
        .map(|job| job.id.clone())
        .collect()
}

/// The jobs of its VM that an unplanned failover stops: all that are before their own point of no return.
#[must_use]
pub fn preempted_by(vm: &str, jobs: &[Job]) -> Vec<JobId> {
    jobs.iter()
        .filter(|job| job.vm == vm && job.check_cancellable().is_ok())
        .map(|job| job.id.clone())
        .collect()
}

fn must_wait_for(job: &Job, other: &Job) -> bool {
    let same_lane = other.vm == job.vm
        && other.id < job.id
        && job.kind.lane() == Lane::Exclusive
        && other.kind.lane() == Lane::Exclusive;
    same_lane && !other.state.has_ended() && !makes_way(other, job)
}

fn makes_way(other: &Job, job: &Job) -> bool {
    let is_ending = match other.state {
        JobState::Unwinding { .. } => true,
        JobState::Queued | JobState::Running => {
            other.cancellation.is_some() && other.check_cancellable().is_ok()
        }
        JobState::Succeeded | JobState::Failed { .. } | JobState::Cancelled { .. } => true,
    };
    job.kind == JobKind::UnplannedFailover && is_ending
}

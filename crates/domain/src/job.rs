//! A job: a durable, resumable list of steps, planned and written down before its first step runs.
//!
//! [`Job::next`] says what is to be done, the shell does it and hands the outcome to [`Job::record_step`] or
//! [`Job::record_undo`]; what those return is written before anything else happens. So the present step of a job can
//! always be read from its record, and a restart is nothing but `next` again.
//!
//! ```text
//! Queued ──> Running ──> Succeeded
//!   │           │ ├────> Failed (what was done stays, for a retry; or is undone first: Unwinding)
//!   │           │ └────> Unwinding ──> Failed | Cancelled
//!   └───────────┴──────> Unwinding (cancelled before the point of no return)
//! Failed ──> Queued (retried)
//! ```

mod backoff;
mod lanes;
mod plan;
mod progress;

use std::fmt;

use farshore_blocks::clock::WallTime;
use serde::{Deserialize, Serialize};

pub use backoff::{MAX_STEP_FAILURES, MAX_UNDO_FAILURES, delay_after};
pub use lanes::{Lane, preempted_by, runnable};
pub use plan::{AfterFailure, Return, StepKind, Undo};
pub use progress::{Next, NotCancellable, NotRetryable, StepOutcome, UndoOutcome};

#[cfg(test)]
mod tests;

/// Names a job; later ones sort after earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JobKind {
    /// Puts a declared VM under protection.
    EnableProtection,
    /// Takes protection away; the chain stays in its vault.
    DisableProtection,
    /// Starts a clone of a recovery point in an isolated network.
    TestFailover,
    /// Removes such a clone.
    TestFailoverCleanup,
    /// Fences the source and starts the VM at the target site.
    UnplannedFailover,
}

impl JobKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::EnableProtection,
        Self::DisableProtection,
        Self::TestFailover,
        Self::TestFailoverCleanup,
        Self::UnplannedFailover,
    ];

    /// Its name for scripts, in kebab case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EnableProtection => "enable-protection",
            Self::DisableProtection => "disable-protection",
            Self::TestFailover => "test-failover",
            Self::TestFailoverCleanup => "test-failover-cleanup",
            Self::UnplannedFailover => "unplanned-failover",
        }
    }
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What it is for.
    pub kind: JobKind,
    /// The protected VM in whose lanes it runs.
    pub vm: String,
    /// The test failover that it works on, where it is one of those.
    pub test: Option<String>,
    /// Where it is.
    pub state: JobState,
    /// Its steps, in order; never empty, never changed in number.
    pub steps: Vec<Step>,
    /// Somebody wants it stopped, and why.
    pub cancellation: Option<String>,
    /// How often it was retried by a user: a retry asks everything anew.
    pub round: u32,
    /// When it was planned.
    pub created_at: WallTime,
    /// When it ended.
    pub ended_at: Option<WallTime>,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// It waits for its lane.
    Queued,
    /// Its steps run.
    Running,
    /// What was done is being undone, last first.
    Unwinding {
        /// How it will end.
        end: UnwoundTo,
        /// Why.
        reason: String,
    },
    /// All steps are done.
    Succeeded,
    /// It stopped, and why. It can be retried.
    Failed {
        /// Why.
        reason: String,
    },
    /// It was stopped before its point of no return and undone.
    Cancelled {
        /// Why, and what could not be undone.
        reason: String,
    },
}

/// How a job ends that is being undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnwoundTo {
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    /// Whether nothing happens in it any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Unwinding { .. } => false,
            Self::Succeeded | Self::Failed { .. } | Self::Cancelled { .. } => true,
        }
    }
}

/// A part of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Where it is.
    pub state: StepState,
    /// How often it was begun.
    pub attempts: u32,
    /// How often it was begun and then failed, since the last retry by a user.
    pub failures: u32,
    /// How often its undoing failed.
    pub undo_failures: u32,
    /// How many of its commands were answered with a failure: the next one is a new command, with a new identifier.
    pub refusals: u32,
    /// Why it waits, or what last failed, or what it found.
    pub detail: String,
    /// It is not begun again before.
    pub not_before: WallTime,
    /// When it was first begun.
    pub started_at: Option<WallTime>,
    /// When it was done, undone or given up.
    pub ended_at: Option<WallTime>,
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// Not begun, or to be begun again.
    Waiting,
    /// Begun; its outcome is not known yet.
    Running,
    /// Done.
    Done,
    /// Given up.
    Failed,
    /// Its effect was taken back.
    Undone,
}

impl Job {
    /// A new job with the steps of its kind.
    #[must_use]
    pub fn plan(id: JobId, kind: JobKind, vm: &str, test: Option<&str>, now: WallTime) -> Self {
        Self {
            id,
            kind,
            vm: vm.to_owned(),
            test: test.map(str::to_owned),
            state: JobState::Queued,
            steps: StepKind::of(kind).iter().map(|kind| Step::new(*kind)).collect(),
            cancellation: None,
            round: 0,
            created_at: now,
            ended_at: None,
        }
    }

    /// What it works on, like `vm/shop-db` or `test/shop-db-t1`.
    #[must_use]
    pub fn subject(&self) -> String {
        match &self.test {
            Some(test) => format!("test/{test}"),
            None => format!("vm/{}", self.vm),
        }
    }

    /// Why it failed or was cancelled.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match &self.state {
            JobState::Failed { reason }
            | JobState::Cancelled { reason }
            | JobState::Unwinding { reason, .. } => Some(reason),
            JobState::Queued | JobState::Running | JobState::Succeeded => None,
        }
    }
}

impl Step {
    fn new(kind: StepKind) -> Self {
        Self {
            kind,
            state: StepState::Waiting,
            attempts: 0,
            failures: 0,
            undo_failures: 0,
            refusals: 0,
            detail: String::new(),
            not_before: WallTime::default(),
            started_at: None,
            ended_at: None,
        }
    }
}

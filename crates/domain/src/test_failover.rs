//! Decides how a test failover goes from one state to the next.
//!
//! | state | start | started | fail | clean-up | cleaned |
//! |---|---|---|---|---|---|
//! | Starting | = | Running | Failed | - | - |
//! | Running | - | = | - | CleaningUp | - |
//! | CleaningUp | - | - | Failed | = | Cleaned |
//! | Cleaned | - | - | - | - | = |
//! | Failed | Starting | - | = | CleaningUp | - |
//!
//! `start` is also the retry of one that failed; `clean-up` is allowed after every failure, because a
//! recovered VM may have been left behind.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Where a test failover is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TestFailover {
    /// A job starts the VM in its bubble.
    Starting,
    /// The VM runs in its bubble, which was found isolated.
    Running,
    /// A job removes it.
    CleaningUp,
    /// Nothing is left, or what is left was recorded with a forced cleanup.
    Cleaned,
    /// Its job failed or was cancelled.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What is ordered or has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The job that starts it is planned or retried.
    Start,
    /// The VM runs and its bubble was found isolated.
    Started,
    /// The job that works on it failed or was cancelled.
    Fail {
        /// Why.
        reason: String,
    },
    /// A user orders the cleanup, or its retry.
    CleanUp,
    /// The cleanup's job is done.
    Cleaned,
}

/// What is to be told once the new state is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The VM runs in its bubble.
    AnnounceRunning,
    /// It was cleaned up.
    AnnounceCleaned,
    /// A job failed.
    AnnounceFailed {
        /// Why.
        reason: String,
    },
}

/// The event does not fit the state; nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a test failover that is {state} does not take `{event:?}`")]
pub struct Refused {
    state: &'static str,
    event: Event,
}

impl TestFailover {
    /// The state's name, as users know it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::CleaningUp => "CleaningUp",
            Self::Cleaned => "Cleaned",
            Self::Failed { .. } => "Failed",
        }
    }
}

/// The next state, and what to tell once it is durable.
///
/// # Errors
/// When the event does not fit the state.
pub fn step(state: &TestFailover, event: Event) -> Result<(TestFailover, Vec<Effect>), Refused> {
    match (state, &event) {
        (TestFailover::Failed { .. }, Event::Start) => Ok((TestFailover::Starting, Vec::new())),
        (TestFailover::Starting, Event::Started) => {
            Ok((TestFailover::Running, vec![Effect::AnnounceRunning]))
        }
        (TestFailover::Starting | TestFailover::CleaningUp, Event::Fail { reason }) => {
            let reason = reason.clone();
            let told = Effect::AnnounceFailed {
                reason: reason.clone(),
            };
            Ok((TestFailover::Failed { reason }, vec![told]))
        }
        (TestFailover::Running | TestFailover::Failed { .. }, Event::CleanUp) => {
            Ok((TestFailover::CleaningUp, Vec::new()))
        }
        (TestFailover::CleaningUp, Event::Cleaned) => {
            Ok((TestFailover::Cleaned, vec![Effect::AnnounceCleaned]))
        }
        (TestFailover::Starting, Event::Start)
        | (TestFailover::Running, Event::Started)
        | (TestFailover::CleaningUp, Event::CleanUp)
        | (TestFailover::Cleaned, Event::Cleaned)
        | (TestFailover::Failed { .. }, Event::Fail { .. }) => Ok((state.clone(), Vec::new())),
        (TestFailover::Starting, Event::CleanUp | Event::Cleaned)
        | (TestFailover::Running, Event::Start | Event::Fail { .. } | Event::Cleaned)
        | (TestFailover::CleaningUp, Event::Start | Event::Started)
        | (TestFailover::Cleaned, Event::Start | Event::Started | Event::Fail { .. } | Event::CleanUp)
        | (TestFailover::Failed { .. }, Event::Started | Event::Cleaned) => Err(Refused {
            state: state.name(),
            event,
        }),
    }
}

//! Decides how a VM's failover goes from one state to the next.
//!
//! | state | order | fail | cancel | recovered |
//! |---|---|---|---|---|
//! | None | FailingOver | - | - | - |
//! | FailingOver | - | Failed | None | FailedOver |
//! | FailedOver | - | - | - | = |
//! | Failed | FailingOver | = | - | - |
//!
//! `FailedOver` is the state in which the commit is pending. A cancelled failover is one that had not fenced
//! the source yet: past the fence there is no way back to `None`.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Whether, and how far, a VM was failed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failover {
    /// It runs where it always did.
    #[default]
    None,
    /// A job fails it over.
    FailingOver,
    /// It runs at the target site; the failover is not committed yet.
    FailedOver,
    /// The job failed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What is ordered or has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A user orders a failover, or a retry of a failed one.
    Order,
    /// The job failed.
    Fail {
        /// Why.
        reason: String,
    },
    /// The job was cancelled before its point of no return.
    Cancel,
    /// The VM runs at the target site.
    Recovered,
}

/// What is to be told once the new state is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The failover began.
    AnnounceFailingOver,
    /// The VM runs at the target site.
    AnnounceFailedOver,
    /// The failover failed.
    AnnounceFailed {
        /// Why.
        reason: String,
    },
}

/// The event does not fit the state; nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a VM whose failover is {state} does not take `{event:?}`")]
pub struct Refused {
    state: &'static str,
    event: Event,
}

impl Failover {
    /// The state's name, as users know it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::FailingOver => "FailingOver",
            Self::FailedOver => "FailedOver",
            Self::Failed { .. } => "Failed",
        }
    }
}

/// The next state, and what to tell once it is durable.
///
/// # Errors
/// When the event does not fit the state.
pub fn step(state: &Failover, event: Event) -> Result<(Failover, Vec<Effect>), Refused> {
    match (state, &event) {
        (Failover::None | Failover::Failed { .. }, Event::Order) => {
            Ok((Failover::FailingOver, vec![Effect::AnnounceFailingOver]))
        }
        (Failover::FailingOver, Event::Fail { reason }) => {
            let reason = reason.clone();
            let told = Effect::AnnounceFailed {
                reason: reason.clone(),
            };
            Ok((Failover::Failed { reason }, vec![told]))
        }
        (Failover::FailingOver, Event::Cancel) => Ok((Failover::None, Vec::new())),
        (Failover::FailingOver, Event::Recovered) => {
            Ok((Failover::FailedOver, vec![Effect::AnnounceFailedOver]))
        }
        (Failover::FailedOver, Event::Recovered) | (Failover::Failed { .. }, Event::Fail { .. }) => {
            Ok((state.clone(), Vec::new()))
        }
        (Failover::None, Event::Fail { .. } | Event::Cancel | Event::Recovered)
        | (Failover::FailingOver, Event::Order)
        | (Failover::FailedOver, Event::Order | Event::Fail { .. } | Event::Cancel)
        | (Failover::Failed { .. }, Event::Cancel | Event::Recovered) => Err(Refused {
            state: state.name(),
            event,
        }),
    }
}

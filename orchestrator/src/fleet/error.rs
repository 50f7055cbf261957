//! Why a command has no result.

use std::time::Duration;

use super::malformed::Malformed;

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No replicator of the site was attached when the time was over.
    #[error("no replicator of the site {site} is attached; waited {waited:?}")]
    Unreachable {
        /// The site.
        site: String,
        /// How long.
        waited: Duration,
    },
    /// The replicator that is meant was not attached when the time was over.
    #[error("the replicator {replicator} of the site {site} is not attached; waited {waited:?}")]
    NamedUnreachable {
        /// The site.
        site: String,
        /// Its name.
        replicator: String,
        /// How long.
        waited: Duration,
    },
    /// Several replicators of the site could be meant.
    #[error(
        "several replicators of the site {site} capture VMs ({}): say in `source.replicator` which one reaches this VM",
        names.join(", ")
    )]
    Ambiguous {
        /// The site.
        site: String,
        /// Theirs.
        names: Vec<String>,
    },
    /// A replicator is attached, and did not answer in time. The command may have been carried out.
    #[error("the replicator of the site {site} did not answer the command {id} within {waited:?}")]
    NoAnswer {
        /// The site.
        site: String,
        /// The command.
        id: String,
        /// How long.
        waited: Duration,
    },
    /// Someone else waits for the result of this very command.
    #[error("the command {id} is in flight already")]
    InFlight {
        /// The command.
        id: String,
    },
    /// The answer is not one to this command, or not a possible one at all.
    #[error("the replicator of the site {site} answered the command {id} with what is no answer to it")]
    WrongAnswer {
        /// The site.
        site: String,
        /// The command.
        id: String,
        /// What is wrong with it.
        #[source]
        malformed: Malformed,
    },
    /// The orchestrator is shutting down.
    #[error("the orchestrator is shutting down")]
    Closing,
}

impl FleetError {
    /// A stable code that scripts may rely on.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::NamedUnreachable { .. } => "replicator-unreachable",
            Self::Ambiguous { .. } => "replicator-ambiguous",
            Self::NoAnswer { .. } => "replicator-no-answer",
            Self::InFlight { .. } => "command-in-flight",
            Self::WrongAnswer { .. } => "replicator-malformed",
            Self::Closing => "shutting-down",
        }
    }
}

//! Why an order is refused. Nothing has changed then.

use farshore_domain::{
    allowed_operations::Operation,
    declaration::{self, DeclarationKey, ManifestErrors, TextRefused},
    failover,
    job::{NotCancellable, NotRetryable},
    protection, test_failover,
};

use crate::{fleet::FleetError, store::StoreError};

/// Why an order is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The documents cannot be read.
    #[error("{0}")]
    InvalidManifest(ManifestErrors),
    /// There is no document at all.
    #[error("the manifest declares nothing")]
    EmptyManifest,
    /// The documents do not fit what is declared.
    #[error("{}", listed(.0))]
    Declarations(Vec<(DeclarationKey, declaration::Refusal)>),
    /// A kind that does not exist.
    #[error("{0}")]
    UnknownKind(TextRefused),
    /// A field of the request that makes no sense.
    #[error("{field}: {message}")]
    InvalidField {
        /// Which.
        field: &'static str,
        /// What is wrong, and what would be accepted.
        message: String,
    },
    /// Something that does not exist.
    #[error("there is no {what} {name}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The VM is not in a state for it.
    #[error("{} is refused for {vm}: protection is {protection}, failover is {failover}; {}", operation.name(), allowed_now(allowed))]
    NotAllowed {
        /// Which VM.
        vm: String,
        /// What was ordered.
        operation: Operation,
        /// Its state.
        protection: &'static str,
        /// Its other state.
        failover: &'static str,
        /// What would be accepted.
        allowed: Vec<Operation>,
    },
    /// Something else is not in a state for it.
    #[error("the {what} is {state}: {accepted}")]
    InvalidState {
        /// What.
        what: String,
        /// Its state.
        state: &'static str,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// A recovery is ordered of what has no point.
    #[error("{vm} has no recovery point yet")]
    NoPoint {
        /// Which VM.
        vm: String,
    },
    /// There is no such point.
    #[error("{vm}: {message}")]
    NoSuchPoint {
        /// Which VM.
        vm: String,
        /// What there is.
        message: String,
    },
    /// A declaration cannot be changed while it is in use.
    #[error("{key} cannot be changed now: {message}")]
    InUse {
        /// Which.
        key: DeclarationKey,
        /// Why, and what would be accepted.
        message: String,
    },
    /// A later order took the place of this job.
    #[error("the job {job} cannot be retried: a later order took its place")]
    Superseded {
        /// Which.
        job: String,
    },
    /// The job cannot be cancelled.
    #[error("the job {job} cannot be cancelled: {reason}")]
    NotCancellable {
        /// Which.
        job: String,
        /// Why.
        #[source]
        reason: NotCancellable,
    },
    /// The job cannot be retried.
    #[error("the job {job} cannot be retried: {reason}")]
    NotRetryable {
        /// Which.
        job: String,
        /// Why.
        #[source]
        reason: NotRetryable,
    },
    /// The protection does not take the order.
    #[error(transparent)]
    Protection(#[from] protection::Refused),
    /// The failover does not take the order.
    #[error(transparent)]
    Failover(#[from] failover::Refused),
    /// The test failover does not take the order.
    #[error(transparent)]
    Test(#[from] test_failover::Refused),
    /// The key was used for another request.
    #[error("the idempotency key `{key}` was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// A replicator did not answer.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A replicator answered with a failure.
    #[error("the replicator refused: {message} ({reason})")]
    Replicator {
        /// Its code.
        reason: String,
        /// Its words.
        message: String,
    },
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    NoRandomness {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(refusals: &[(DeclarationKey, declaration::Refusal)]) -> String {
    let lines: Vec<String> = refusals
        .iter()
        .map(|(key, refusal)| format!("{key}: {refusal}"))
        .collect();
    lines.join("\n")
}

fn allowed_now(allowed: &[Operation]) -> String {
    let names: Vec<&str> = allowed.iter().map(|operation| operation.name()).collect();
    match names.is_empty() {
        true => "nothing can be ordered until its job has ended".to_owned(),
        false => format!("allowed now: {}", names.join(", ")),
    }
}

//! Maps every refusal to a gRPC status with a stable reason code in the metadata key `farshore-reason`.
//!
//! | code | when | exit status of the CLI |
//! |---|---|---|
//! | InvalidArgument | the request can never be right | 2 |
//! | NotFound | there is no such thing | 1 |
//! | FailedPrecondition | it is refused in this state | 3 |
//! | Unavailable | a replicator cannot be reached, or this process stops | 4 |
//! | DeadlineExceeded | a replicator did not answer in time | 5 |
//! | Internal, Aborted | the control plane has a problem of its own | 1 |

use farshore_domain::declaration;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{fleet::FleetError, orders::Refusal, store::StoreError};

/// Where the reason code is.
pub(crate) const REASON_KEY: &str = "farshore-reason";

/// The status of a refusal.
pub(super) fn status(refusal: Refusal) -> Status {
    let (code, reason) = code_and_reason(&refusal);
    if code == Code::Internal {
        tracing::error!(error = %refusal, "a request failed");
    }
    with_reason(code, &reason, refusal.to_string())
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status(refusal)
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        status(Refusal::Store(error))
    }
}

/// A status with a reason code.
pub(super) fn with_reason(code: Code, reason: &str, message: String) -> Status {
    let mut metadata = MetadataMap::new();
    if let Ok(value) = MetadataValue::try_from(reason) {
        metadata.insert(REASON_KEY, value);
    }
    Status::with_metadata(code, message, metadata)
}

fn code_and_reason(refusal: &Refusal) -> (Code, String) {
    let (code, reason) = match refusal {
        Refusal::InvalidManifest(_) | Refusal::EmptyManifest => (Code::InvalidArgument, "invalid-manifest"),
        Refusal::Declarations(refusals) => of_declarations(refusals),
        Refusal::UnknownKind(_) => (Code::InvalidArgument, "unknown-kind"),
        Refusal::InvalidField { .. } => (Code::InvalidArgument, "invalid-field"),
        Refusal::NotFound { .. } => (Code::NotFound, "not-found"),
        Refusal::NotAllowed { .. }
        | Refusal::InvalidState { .. }
        | Refusal::Protection(_)
        | Refusal::Failover(_)
        | Refusal::Test(_) => (Code::FailedPrecondition, "wrong-state"),
        Refusal::NoPoint { .. } => (Code::FailedPrecondition, "no-recovery-point"),
        Refusal::NoSuchPoint { .. } => (Code::FailedPrecondition, "no-such-point"),
        Refusal::InUse { .. } => (Code::FailedPrecondition, "in-use"),
        Refusal::Superseded { .. } => (Code::FailedPrecondition, "superseded"),
        Refusal::NotCancellable { .. } => (Code::FailedPrecondition, "not-cancellable"),
        Refusal::NotRetryable { .. } => (Code::FailedPrecondition, "not-retryable"),
        Refusal::KeyReused { .. } => (Code::InvalidArgument, "idempotency-key-reused"),
        Refusal::Fleet(error) => of_fleet(error),
        Refusal::Replicator { reason, .. } => return (Code::FailedPrecondition, reason.clone()),
        Refusal::NoRandomness { .. } => (Code::Internal, "no-randomness"),
        Refusal::Store(error) => of_store(error),
    };
    (code, reason.to_owned())
}

fn of_declarations(refusals: &[(declaration::DeclarationKey, declaration::Refusal)]) -> (Code, &'static str) {
    let Some((_, first)) = refusals.first() else {
        return (Code::InvalidArgument, "invalid-manifest");
    };
    let code = match first {
        declaration::Refusal::DeclaredTwice { .. }
        | declaration::Refusal::MissingPolicy { .. }
        | declaration::Refusal::MissingSite { .. }
        | declaration::Refusal::MissingNetwork { .. }
        | declaration::Refusal::MissingLinkEnd { .. }
        | declaration::Refusal::MissingMember { .. } => Code::InvalidArgument,
        declaration::Refusal::MonitorClaimed { .. }
        | declaration::Refusal::DiskClaimed { .. }
        | declaration::Refusal::NobodyDials { .. }
        | declaration::Refusal::MemberClaimed { .. }
        | declaration::Refusal::MemberUnfit { .. }
        | declaration::Refusal::NetworkInUse { .. }
        | declaration::Refusal::InUse { .. }
        | declaration::Refusal::Linked { .. } => Code::FailedPrecondition,
        declaration::Refusal::NotFound { .. } => Code::NotFound,
    };
    (code, first.reason())
}

fn of_fleet(error: &FleetError) -> (Code, &'static str) {
    let code = match error {
        FleetError::Unreachable { .. } | FleetError::NamedUnreachable { .. } | FleetError::Closing => {
            Code::Unavailable
        }
        FleetError::Ambiguous { .. } => Code::FailedPrecondition,
        FleetError::NoAnswer { .. } => Code::DeadlineExceeded,
        FleetError::InFlight { .. } => Code::Aborted,
        FleetError::WrongAnswer { .. } => Code::Internal,
    };
    (code, error.reason())
}

fn of_store(error: &StoreError) -> (Code, &'static str) {
    match error {
        StoreError::Open { .. } | StoreError::Write { .. } | StoreError::Record { .. } => {
            (Code::Internal, "state-store")
        }
        StoreError::NoRoom { .. } => (Code::ResourceExhausted, "no-room"),
        StoreError::Contended => (Code::Aborted, "contended"),
        StoreError::Closed => (Code::Unavailable, "shutting-down"),
    }
}

#[cfg(test)]
mod tests {
    /// Every text in quotes that has the shape of a code: kebab case with at least one hyphen.
    fn codes(source: &str) -> Vec<&str> {
        let shaped = |text: &&str| {
            text.contains('-')
                && text
                    .chars()
                    .all(|character| character.is_ascii_lowercase() || character == '-')
        };
        source.split('"').filter(shaped).collect()
    }

    #[test]
    fn every_reason_code_is_documented() {
        let document = include_str!("../../../docs/reason-codes.md");
        let sources = [include_str!("status.rs"), include_str!("../fleet/error.rs")];
        let here: Vec<_> = sources
            .into_iter()
            .flat_map(codes)
            .filter(|code| *code != "farshore-reason")
            .collect();
        assert!(here.len() > 15, "{here:?}");
        for code in here {
            assert!(
                document.contains(&format!("| `{code}` |")),
                "`{code}` is not documented"
            );
        }
    }
}

//! Label values of the wire's enumerations: `PROTECTION_STATE_INITIAL_SYNC` is `initial_sync`.

use farshore_proto::v1;

/// Every state with its label, without the unspecified one.
pub(super) fn protection_states() -> impl Iterator<Item = (v1::ProtectionState, String)> {
    all(|number| v1::ProtectionState::try_from(number).ok())
        .map(|state| (state, label(state.as_str_name(), "PROTECTION_STATE_")))
}

/// Every health with its label, without the unspecified one.
pub(super) fn healths() -> impl Iterator<Item = (v1::ReplicationHealth, String)> {
    all(|number| v1::ReplicationHealth::try_from(number).ok())
        .map(|health| (health, label(health.as_str_name(), "REPLICATION_HEALTH_")))
}

/// Every state of jobs with its label, without the unspecified one.
pub(super) fn job_states() -> impl Iterator<Item = (v1::JobState, String)> {
    all(|number| v1::JobState::try_from(number).ok())
        .map(|state| (state, label(state.as_str_name(), "JOB_STATE_")))
}

/// A kind of recovery point.
pub(super) fn point_kind(kind: v1::PointKind) -> String {
    label(kind.as_str_name(), "POINT_KIND_")
}

fn all<Value>(of_number: impl Fn(i32) -> Option<Value>) -> impl Iterator<Item = Value> {
    (1..).map_while(of_number)
}

fn label(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

//! Whether the source replicates the disks that are declared.

use super::{Health, Observation, Reason};

pub(super) fn of_disks(seen: &Observation<'_>) -> Option<Reason> {
    let refused = seen.disks_refused;
    (!refused.is_empty() && seen.protection.follows_reports()).then(|| Reason {
        health: Health::Warning,
        code: "disks-refused",
        what: format!(
            "the source goes on with the disks that it had, not with those that are declared: {refused}"
        ),
        possible_cause: "a disk is declared that the VM does not have, or that cannot be tracked",
        what_to_do: "give the VM the disk, or declare the disks that it has; it is tried again every minute",
    })
}

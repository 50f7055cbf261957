//! Whether points are of one instant with those of the consistency group.

use super::{Health, Observation, Reason};

pub(super) fn of_group(seen: &Observation<'_>) -> Option<Reason> {
    let missed = seen.group_instant_missed;
    (!missed.is_empty() && seen.protection.follows_reports()).then(|| Reason {
        health: Health::Warning,
        code: "group-instant-missed",
        what: format!("the newest point is not of one instant with those of its consistency group: {missed}"),
        possible_cause: "a member is not replicating, is behind, or could not be stopped within the group's hold limit",
        what_to_do: "look at `farshore describe group`; every cycle tries again, and each VM's own points go on meanwhile",
    })
}

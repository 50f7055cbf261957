//! Decides what is said of an audit that found source and replica to differ.

use super::{Health, Observation, Reason};

/// What an audit found that no clean pass has followed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditFinding {
    /// How many blocks differed.
    pub blocks: u64,
    /// The newest point that was found to differ.
    pub point: farshore_blocks::Sequence,
}

/// Tracking of changes missed something.
pub(super) fn of_audit(seen: &Observation<'_>) -> Option<Reason> {
    let finding = seen.audit?;
    Some(Reason {
        health: Health::Critical,
        code: "audit-mismatch",
        what: format!(
            "{} blocks of the disks were not what the recovery points say, at last in point {}; they were sent again",
            finding.blocks, finding.point
        ),
        possible_cause: "somebody wrote to a disk behind the hypervisor's back, or change tracking or a disk is faulty",
        what_to_do: "find out who wrote; points up to the one named may lack these writes, later points have them; \
                     this is said until all of the disks were compared again without a difference",
    })
}

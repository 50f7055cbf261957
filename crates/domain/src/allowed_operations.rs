//! Decides what a user may order now, from the states alone.

use crate::{failover::Failover, protection::Protection};

/// Something that a user can order for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Enable protection, or try it again.
    Enable,
    /// Take protection away.
    Disable,
    /// Start a test failover.
    TestFailover,
    /// Fail over with what the vault has.
    UnplannedFailover,
}

/// Whether the vault is known to hold a point of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// It does.
    Some,
    /// It does not, or nothing is known of it.
    NoneKnown,
}

impl Operation {
    /// Its name for scripts, in kebab case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enable => "enable-protection",
            Self::Disable => "disable-protection",
            Self::TestFailover => "test-failover",
            Self::UnplannedFailover => "unplanned-failover",
        }
    }
}

/// What may be ordered now, in a fixed order.
#[must_use]
pub fn allowed_operations(protection: &Protection, failover: &Failover, points: Points) -> Vec<Operation> {
    [
        Operation::Enable,
        Operation::Disable,
        Operation::TestFailover,
        Operation::UnplannedFailover,
    ]
    .into_iter()
    .filter(|operation| is_allowed(*operation, protection, failover, points))
    .collect()
}

/// Whether this may be ordered now.
#[must_use]
pub fn is_allowed(
    operation: Operation,
    protection: &Protection,
    failover: &Failover,
    points: Points,
) -> bool {
    match operation {
        Operation::Enable => enable(protection, failover),
        Operation::Disable => disable(protection, failover),
        Operation::TestFailover => points == Points::Some && !is_disabling(protection) && test(failover),
        Operation::UnplannedFailover => points == Points::Some && fail_over(failover),
    }
}

fn enable(protection: &Protection, failover: &Failover) -> bool {
    let can = match protection {
        Protection::Pending | Protection::Failed { .. } => true,
        Protection::CheckingPrerequisites
        | Protection::InstallingMobility
        | Protection::PreparingTarget
        | Protection::EnablingReplication
        | Protection::InitialSync
        | Protection::AwaitingRecoveryPoint
        | Protection::Protected
        | Protection::Resynchronizing { .. }
        | Protection::Paused
        | Protection::Disabling => false,
    };
    can && *failover == Failover::None
}

fn disable(protection: &Protection, failover: &Failover) -> bool {
    let is_settled = match failover {
        Failover::None | Failover::Failed { .. } => true,
        // The recovered VM lives on the chain: forgetting it would lose sight of the only running copy.
        Failover::FailingOver | Failover::FailedOver => false,
    };
    !is_disabling(protection) && is_settled
}

fn is_disabling(protection: &Protection) -> bool {
    *protection == Protection::Disabling
}

fn test(failover: &Failover) -> bool {
    match failover {
        Failover::None | Failover::FailedOver | Failover::Failed { .. } => true,
        Failover::FailingOver => false,
    }
}

fn fail_over(failover: &Failover) -> bool {
    match failover {
        Failover::None | Failover::Failed { .. } => true,
        Failover::FailingOver | Failover::FailedOver => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protection::Stage;

    #[test]
    fn a_protected_vm_can_be_rehearsed_failed_over_and_disabled() {
        let names: Vec<_> = allowed_operations(&Protection::Protected, &Failover::None, Points::Some)
            .into_iter()
            .map(Operation::name)
            .collect();
        assert_eq!(
            names,
            ["disable-protection", "test-failover", "unplanned-failover"]
        );
    }

    #[test]
    fn nothing_is_recovered_from_a_vault_without_points() {
        for operation in [Operation::TestFailover, Operation::UnplannedFailover] {
            assert!(!is_allowed(
                operation,
                &Protection::InitialSync,
                &Failover::None,
                Points::NoneKnown
            ));
        }
    }

    #[test]
    fn a_failed_protection_can_be_enabled_again() {
        let failed = Protection::Failed {
            at: Stage::CheckingPrerequisites,
            reason: "why".into(),
        };
        assert!(is_allowed(
            Operation::Enable,
            &failed,
            &Failover::None,
            Points::NoneKnown
        ));
    }

    #[test]
    fn a_disaster_is_handled_whatever_the_protection_is_doing() {
        for protection in [
            Protection::Resynchronizing { why: "lost".into() },
            Protection::Disabling,
            Protection::Paused,
        ] {
            assert!(is_allowed(
                Operation::UnplannedFailover,
                &protection,
                &Failover::None,
                Points::Some
            ));
        }
    }
}

//! Decides which steps a job has, and what is known of each step before it runs.

use serde::{Deserialize, Serialize};

use super::JobKind;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StepKind {
    /// Source and target check whether the VM can be protected.
    CheckPrerequisites,
    /// The target grants an epoch; the source persists its assignment.
    InstallAndPrepare,
    /// The source begins to replicate.
    EnableReplication,
    /// Waits until the source is seen to synchronize.
    StartInitialReplication,
    /// The records follow what was done.
    UpdateProviderStates,
    /// A recovery point is chosen.
    ChoosePoint,
    /// A clone is started in a bubble.
    StartTestVm,
    /// The bubble must have no way out.
    CheckIsolation,
    /// The clone and all that belongs to it are removed.
    RemoveTestVm,
    /// Nothing may be left behind.
    CheckLeaks,
    /// A new epoch is granted in the vault: from here on the source is refused.
    FenceSource,
    /// The VM is started at the target site.
    StartRecoveredVm,
    /// The source forgets its assignment.
    RemoveMobility,
}

/// Whether a cancelled job may be stopped once the step was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// It may.
    Possible,
    /// It may not: this is the point of no return.
    Impossible,
}

/// How the effect of a step is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// It leaves nothing that the undoing of an earlier step would not remove.
    Nothing,
    /// The source forgets its assignment. The chain and its epoch stay in the vault, where they hurt nobody.
    RemoveSource,
    /// The recovered VM and its bubble are removed.
    DiscardRecovery,
}

/// What becomes of the steps that were done when a later one is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// They stay, so that a retry goes on where the job stopped.
    Keep,
    /// They are undone; a retry begins at the first step.
    Undo,
}

impl StepKind {
    /// The steps of a kind of job, in order.
    #[must_use]
    pub fn of(kind: JobKind) -> &'static [Self] {
        match kind {
            JobKind::EnableProtection => &[
                Self::CheckPrerequisites,
                Self::InstallAndPrepare,
                Self::EnableReplication,
                Self::StartInitialReplication,
                Self::UpdateProviderStates,
            ],
            JobKind::DisableProtection => &[Self::RemoveMobility, Self::UpdateProviderStates],
            JobKind::TestFailover => &[Self::ChoosePoint, Self::StartTestVm, Self::CheckIsolation],
            JobKind::TestFailoverCleanup => &[Self::RemoveTestVm, Self::CheckLeaks],
            JobKind::UnplannedFailover => &[
                Self::FenceSource,
                Self::ChoosePoint,
                Self::StartRecoveredVm,
                Self::UpdateProviderStates,
            ],
        }
    }

    /// As people know it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::CheckPrerequisites => "Prerequisites check",
            Self::InstallAndPrepare => "Installing Mobility Service and preparing target",
            Self::EnableReplication => "Enable replication",
            Self::StartInitialReplication => "Starting initial replication",
            Self::UpdateProviderStates => "Updating provider states",
            Self::ChoosePoint => "Choosing the recovery point",
            Self::StartTestVm => "Starting the test VM in an isolated network",
            Self::CheckIsolation => "Checking isolation",
            Self::RemoveTestVm => "Removing the test VM",
            Self::CheckLeaks => "Checking for leaks",
            Self::FenceSource => "Fencing the source",
            Self::StartRecoveredVm => "Starting the VM at the target site",
            Self::RemoveMobility => "Removing the mobility service",
        }
    }

    /// How its effect is taken back.
    #[must_use]
    pub fn undo(self) -> Undo {
        match self {
            Self::InstallAndPrepare => Undo::RemoveSource,
            Self::StartTestVm => Undo::DiscardRecovery,
            Self::CheckPrerequisites
            | Self::EnableReplication
            | Self::StartInitialReplication
            | Self::UpdateProviderStates
            | Self::ChoosePoint
            | Self::CheckIsolation
            | Self::RemoveTestVm
            | Self::CheckLeaks
            | Self::FenceSource
            | Self::StartRecoveredVm
            | Self::RemoveMobility => Undo::Nothing,
        }
    }

    /// Whether its job can still be cancelled once it was begun.
    #[must_use]
    pub fn way_back(self) -> Return {
        match self {
            Self::FenceSource => Return::Impossible,
            Self::CheckPrerequisites
            | Self::InstallAndPrepare
            | Self::EnableReplication
            | Self::StartInitialReplication
            | Self::UpdateProviderStates
            | Self::ChoosePoint
            | Self::StartTestVm
            | Self::CheckIsolation
            | Self::RemoveTestVm
            | Self::CheckLeaks
            | Self::StartRecoveredVm
            | Self::RemoveMobility => Return::Possible,
        }
    }
}

impl JobKind {
    /// What becomes of the done steps when a later one is given up.
    #[must_use]
    pub fn after_failure(self) -> AfterFailure {
        match self {
            Self::TestFailover => AfterFailure::Undo,
            Self::EnableProtection
            | Self::DisableProtection
            | Self::TestFailoverCleanup
            | Self::UnplannedFailover => AfterFailure::Keep,
        }
    }
}

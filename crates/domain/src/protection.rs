//! Decides how the protection of a VM goes from one state to the next.
//!
//! Jobs announce the stages that they begin; afterwards the state follows what the replicators report. A
//! report never moves a VM that a job is still preparing, that failed or that is being disabled: those wait
//! for an order.
//!
//! | state | begin-checking | begin-installing | begin-preparing | begin-enabling | fail | disable | see-nothing | see-sync | see-no-point | see-point | see-resync | see-paused |
//! |---|---|---|---|---|---|---|---|---|---|---|---|---|
//! | Pending | CheckingPrerequisites | - | - | - | Failed | Disabling | = | = | = | = | = | = |
//! | CheckingPrerequisites | = | InstallingMobility | - | - | Failed | Disabling | = | = | = | = | = | = |
//! | InstallingMobility | CheckingPrerequisites | = | PreparingTarget | - | Failed | Disabling | = | = | = | = | = | = |
//! | PreparingTarget | CheckingPrerequisites | InstallingMobility | = | EnablingReplication | Failed | Disabling | = | = | = | = | = | = |
//! | EnablingReplication | CheckingPrerequisites | - | - | = | Failed | Disabling | = | InitialSync | AwaitingRecoveryPoint | Protected | Resynchronizing | Paused |
//! | InitialSync | - | - | - | = | Failed | Disabling | = | = | AwaitingRecoveryPoint | Protected | Resynchronizing | Paused |
//! | AwaitingRecoveryPoint | - | - | - | = | Failed | Disabling | = | InitialSync | = | Protected | Resynchronizing | Paused |
//! | Protected | - | - | - | = | Failed | Disabling | = | InitialSync | AwaitingRecoveryPoint | = | Resynchronizing | Paused |
//! | Resynchronizing | - | - | - | = | Failed | Disabling | = | InitialSync | AwaitingRecoveryPoint | Protected | = | Paused |
//! | Paused | - | - | - | = | Failed | Disabling | = | InitialSync | AwaitingRecoveryPoint | Protected | Resynchronizing | = |
//! | Disabling | - | - | - | - | Failed | = | = | = | = | = | = | = |
//! | Failed | CheckingPrerequisites | InstallingMobility | PreparingTarget | EnablingReplication | = | Disabling | = | = | = | = | = | = |
//!
//! `begin-enabling` leaves a VM alone that already replicates, because a step may be repeated after its
//! effect was seen.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Where a VM is on its way to being protected, or from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// Declared; nothing was done yet.
    Pending,
    /// A job runs the prerequisites check.
    CheckingPrerequisites,
    /// The source is given its mobility service; the target is asked for the epoch that it carries.
    InstallingMobility,
    /// The target has granted the epoch and is being connected with the source.
    PreparingTarget,
    /// The source is told to replicate.
    EnablingReplication,
    /// The disks travel for the first time.
    InitialSync,
    /// The first recovery point is being sealed.
    AwaitingRecoveryPoint,
    /// There is a recovery point and newer ones follow.
    Protected,
    /// Tracking was lost; source and replica are compared.
    Resynchronizing {
        /// Why and how much, as the source told.
        why: String,
    },
    /// Somebody paused replication.
    Paused,
    /// A job takes the protection away.
    Disabling,
    /// A stage failed for good, or was cancelled; an order is needed.
    Failed {
        /// Which stage.
        at: Stage,
        /// Why, in words for people.
        reason: String,
    },
}

/// A stage at which protection can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before the first step.
    Pending,
    /// The prerequisites check.
    CheckingPrerequisites,
    /// Installing the mobility service.
    InstallingMobility,
    /// Preparing the target.
    PreparingTarget,
    /// Enabling replication.
    EnablingReplication,
    /// The initial synchronization.
    InitialSync,
    /// Sealing the first point.
    AwaitingRecoveryPoint,
    /// Taking protection away.
    Disabling,
}

/// What a job or a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job begins, or repeats, the prerequisites check.
    BeginChecking,
    /// A job begins to install the mobility service.
    BeginInstalling,
    /// A job begins to prepare the target.
    BeginPreparing,
    /// A job tells the source to replicate.
    BeginEnabling,
    /// The job that works on this VM failed or was cancelled.
    Fail {
        /// Why.
        reason: String,
    },
    /// A job begins to take protection away.
    Disable,
    /// The source's replicator reported.
    See(Sight),
}

/// What the source's replicator reports, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing that moves a state: not connected yet, or fenced.
    Nothing,
    /// The initial sync runs.
    InitialSync,
    /// It replicates, or seals, while there is no recovery point yet.
    NoPointYet,
    /// It replicates and there is a recovery point.
    Replicating,
    /// It compares source and replica.
    Resynchronizing {
        /// Why and how much.
        why: String,
    },
    /// It is paused.
    Paused,
}

/// What is to be told to whoever watches, once the new state is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The first or a later way into `Protected`.
    AnnounceProtected,
    /// The disks began to travel.
    AnnounceInitialSync,
    /// Tracking was lost.
    AnnounceResynchronizing {
        /// Why and how much.
        why: String,
    },
    /// A stage failed.
    AnnounceFailed {
        /// Which.
        at: Stage,
        /// Why.
        reason: String,
    },
}

/// The event does not fit the state; nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a VM that is {state} does not take `{event:?}`")]
pub struct Refused {
    state: &'static str,
    event: Event,
}

impl Protection {
    /// The state's name, as users know it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::CheckingPrerequisites => "CheckingPrerequisites",
            Self::InstallingMobility => "InstallingMobility",
            Self::PreparingTarget => "PreparingTarget",
            Self::EnablingReplication => "EnablingReplication",
            Self::InitialSync => "InitialSync",
            Self::AwaitingRecoveryPoint => "AwaitingRecoveryPoint",
            Self::Protected => "Protected",
            Self::Resynchronizing { .. } => "Resynchronizing",
            Self::Paused => "Paused",
            Self::Disabling => "Disabling",
            Self::Failed { .. } => "Failed",
        }
    }

    /// Whether the source is to replicate in this state, so that reports move it.
    #[must_use]
    pub fn follows_reports(&self) -> bool {
        match self {
            Self::EnablingReplication
            | Self::InitialSync
            | Self::AwaitingRecoveryPoint
            | Self::Protected
            | Self::Resynchronizing { .. }
            | Self::Paused => true,
            Self::Pending
            | Self::CheckingPrerequisites
            | Self::InstallingMobility
            | Self::PreparingTarget
            | Self::Disabling
            | Self::Failed { .. } => false,
        }
    }

    /// The stage at which a failure happens now. A job that is cancelled when the VM already replicates
    /// takes back what enabled it.
    fn stage(&self) -> Stage {
        match self {
            Self::Pending => Stage::Pending,
            Self::CheckingPrerequisites => Stage::CheckingPrerequisites,
            Self::InstallingMobility => Stage::InstallingMobility,
            Self::PreparingTarget => Stage::PreparingTarget,
            Self::InitialSync => Stage::InitialSync,
            Self::AwaitingRecoveryPoint => Stage::AwaitingRecoveryPoint,
            Self::Disabling => Stage::Disabling,
            Self::Failed { at, .. } => *at,
            Self::EnablingReplication | Self::Protected | Self::Resynchronizing { .. } | Self::Paused => {
                Stage::EnablingReplication
            }
        }
    }
}

/// The next state, and what to tell once it is durable.
///
/// # Errors
/// When the event does not fit the state.
pub fn step(state: &Protection, event: Event) -> Result<(Protection, Vec<Effect>), Refused> {
    let next = match &event {
        Event::BeginChecking => begin_checking(state),
        Event::BeginInstalling => begin_installing(state),
        Event::BeginPreparing => begin_preparing(state),
        Event::BeginEnabling => begin_enabling(state),
        Event::Fail { reason } => Some(fail(state, reason)),
        Event::Disable => Some(Protection::Disabling),
        Event::See(sight) => Some(see(state, sight)),
    };
    let next = next.ok_or(Refused {
        state: state.name(),
        event,
    })?;
    let effects = effects(state, &next);
    Ok((next, effects))
}

fn begin_checking(state: &Protection) -> Option<Protection> {
    match state {
        Protection::Pending
        | Protection::CheckingPrerequisites
        | Protection::InstallingMobility
        | Protection::PreparingTarget
        | Protection::EnablingReplication
        | Protection::Failed { .. } => Some(Protection::CheckingPrerequisites),
        Protection::InitialSync
        | Protection::AwaitingRecoveryPoint
        | Protection::Protected
        | Protection::Resynchronizing { .. }
        | Protection::Paused
        | Protection::Disabling => None,
    }
}

fn begin_installing(state: &Protection) -> Option<Protection> {
    match state {
        Protection::CheckingPrerequisites
        | Protection::InstallingMobility
        | Protection::PreparingTarget
        | Protection::Failed { .. } => Some(Protection::InstallingMobility),
        Protection::Pending
        | Protection::EnablingReplication
        | Protection::InitialSync
        | Protection::AwaitingRecoveryPoint
        | Protection::Protected
        | Protection::Resynchronizing { .. }
        | Protection::Paused
        | Protection::Disabling => None,
    }
}

fn begin_preparing(state: &Protection) -> Option<Protection> {
    match state {
        Protection::InstallingMobility | Protection::PreparingTarget | Protection::Failed { .. } => {
            Some(Protection::PreparingTarget)
        }
        Protection::Pending
        | Protection::CheckingPrerequisites
        | Protection::EnablingReplication
        | Protection::InitialSync
        | Protection::AwaitingRecoveryPoint
        | Protection::Protected
        | Protection::Resynchronizing { .. }
        | Protection::Paused
        | Protection::Disabling => None,
    }
}

fn begin_enabling(state: &Protection) -> Option<Protection> {
    match state {
        Protection::PreparingTarget | Protection::Failed { .. } => Some(Protection::EnablingReplication),
        Protection::EnablingReplication
        | Protection::InitialSync
        | Protection::AwaitingRecoveryPoint
        | Protection::Protected
        | Protection::Resynchronizing { .. }
        | Protection::Paused => Some(state.clone()),
        Protection::Pending
        | Protection::CheckingPrerequisites
        | Protection::InstallingMobility
        | Protection::Disabling => None,
    }
}

fn fail(state: &Protection, reason: &str) -> Protection {
    if let Protection::Failed { .. } = state {
        return state.clone();
    }
    Protection::Failed {
        at: state.stage(),
        reason: reason.to_owned(),
    }
}

fn see(state: &Protection, sight: &Sight) -> Protection {
    if !state.follows_reports() {
        return state.clone();
    }
    match sight {
        Sight::Nothing => state.clone(),
        Sight::InitialSync => Protection::InitialSync,
        Sight::NoPointYet => Protection::AwaitingRecoveryPoint,
        Sight::Replicating => Protection::Protected,
        Sight::Resynchronizing { why } => Protection::Resynchronizing { why: why.clone() },
        Sight::Paused => Protection::Paused,
    }
}

fn effects(before: &Protection, after: &Protection) -> Vec<Effect> {
    if before.name() == after.name() {
        return Vec::new();
    }
    match after {
        Protection::Protected => vec![Effect::AnnounceProtected],
        Protection::InitialSync => vec![Effect::AnnounceInitialSync],
        Protection::Resynchronizing { why } => vec![Effect::AnnounceResynchronizing { why: why.clone() }],
        Protection::Failed { at, reason } => vec![Effect::AnnounceFailed {
            at: *at,
            reason: reason.clone(),
        }],
        Protection::Pending
        | Protection::CheckingPrerequisites
        | Protection::InstallingMobility
        | Protection::PreparingTarget
        | Protection::EnablingReplication
        | Protection::AwaitingRecoveryPoint
        | Protection::Paused
        | Protection::Disabling => Vec::new(),
    }
}

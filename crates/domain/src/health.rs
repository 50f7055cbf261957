//! Decides how well a VM is protected now: its RPO, its replication health, and why.
//!
//! The RPO shown is never better than the truth: it is the age of the last instant that the vault is known to
//! hold, in the orchestrator's clock, plus everything that the clocks may be wrong by; while nothing is heard
//! it grows.

use std::time::Duration;

use farshore_blocks::{Sequence, clock::WallTime};

use crate::{failover::Failover, protection::Protection};

pub use audit::AuditFinding;
pub use cycles::CycleTimes;

mod audit;
mod cycles;
mod damage;
mod disks;
mod groups;

#[cfg(test)]
mod tests;

/// The last instant of a VM that its vault holds, as the target's replicator last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownInstant {
    /// In the clock of the target's replicator.
    pub valid_through: WallTime,
    /// The clock of the target's replicator minus the orchestrator's, in nanoseconds.
    pub clock_offset_nanoseconds: i64,
    /// By how much all that may be wrong: source against target, and target against orchestrator.
    pub uncertainty: Duration,
}

/// The data that would be lost now, in seconds of writes.
#[must_use]
pub fn recovery_point_age(now: WallTime, known: KnownInstant) -> Duration {
    let in_our_clock = i128::from(known.valid_through.0) - i128::from(known.clock_offset_nanoseconds);
    let age = i128::from(now.0) - in_our_clock;
    let age = Duration::from_nanos(u64::try_from(age.max(0)).unwrap_or(u64::MAX));
    age.saturating_add(known.uncertainty)
}

/// How well replication does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As declared.
    Normal,
    /// Something needs attention soon.
    Warning,
    /// Data is at risk now.
    Critical,
}

/// One reason for a health that is not normal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// How bad it is.
    pub health: Health,
    /// A stable code in kebab case.
    pub code: &'static str,
    /// What is the case.
    pub what: String,
    /// What may have caused it.
    pub possible_cause: &'static str,
    /// What to do.
    pub what_to_do: &'static str,
}

/// Whether a replicator is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// It is, and reports.
    Attached,
    /// It is not.
    Lost,
}

/// Whether the target refuses the source's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// The source may write.
    NotFenced,
    /// It is refused for good.
    Fenced,
}

/// What the vault cannot give back as it was written, as its scrub last found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaultDamage {
    /// In how many places.
    pub places: u64,
    /// The oldest point that needs one of them.
    pub first: Sequence,
    /// The newest point that needs one of them.
    pub last: Sequence,
    /// Whether a failover to the newest point would meet them.
    pub newest: NewestPoint,
}

/// Whether the newest point is hit by damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewestPoint {
    /// As far as was looked, it is not.
    Sound,
    /// It is.
    Hit,
}

/// All that health is derived from.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The state of protection.
    pub protection: &'a Protection,
    /// The state of the failover.
    pub failover: &'a Failover,
    /// The source's replicator.
    pub source: Attachment,
    /// The target's replicator.
    pub target: Attachment,
    /// What the source says that it waits for; empty when all is well.
    pub source_detail: &'a str,
    /// Whether the source reported that it is refused.
    pub fencing: Fencing,
    /// Absent while there is no point.
    pub rpo: Option<Duration>,
    /// What was declared.
    pub rpo_target: Duration,
    /// Absent while the vault is sound.
    pub damage: Option<VaultDamage>,
    /// Absent while the audit is content.
    pub audit: Option<AuditFinding>,
    /// Absent while no cycle has ended.
    pub last_cycle: Option<CycleTimes>,
    /// Why the last point that should have been application-consistent is not; empty where all is well.
    pub app_consistency_missed: &'a str,
    /// Why the newest point is not of an instant of its group; empty where it is, or there is no group.
    pub group_instant_missed: &'a str,
    /// Why the source does not go on with the disks that are declared; empty where it does.
    pub disks_refused: &'a str,
}

/// The health and every reason for it, worst first. After a failover nothing replicates, and only the vault is
/// judged: the recovered VM reads from it.
#[must_use]
pub fn health(seen: &Observation<'_>) -> (Health, Vec<Reason>) {
    if *seen.failover != Failover::None {
        return judged(damage::of_vault(seen).into_iter().collect());
    }
    let reasons = [
        of_protection(seen.protection),
        of_rpo(seen),
        of_fencing(seen),
        of_source(seen),
        of_target(seen),
        of_source_detail(seen),
        damage::of_newest_point(seen),
        damage::of_vault(seen),
        audit::of_audit(seen),
        cycles::of_cycles(seen),
        of_application(seen),
        groups::of_group(seen),
        disks::of_disks(seen),
    ];
    judged(reasons.into_iter().flatten().collect())
}

fn judged(mut reasons: Vec<Reason>) -> (Health, Vec<Reason>) {
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.health));
    let worst = reasons.first().map_or(Health::Normal, |reason| reason.health);
    (worst, reasons)
}

fn of_protection(protection: &Protection) -> Option<Reason> {
    match protection {
        Protection::Failed { at, reason } => Some(Reason {
            health: Health::Critical,
            code: "protection-failed",
            what: format!("protection failed at {at:?}: {reason}"),
            possible_cause: "a check or a step of the job that works on this VM failed",
            what_to_do: "look at the job, remove its cause, and retry the job",
        }),
        Protection::Resynchronizing { why } => Some(Reason {
            health: Health::Warning,
            code: "resynchronizing",
            what: format!("tracking of changes was lost, source and replica are compared: {why}"),
            possible_cause: "the VM was restarted, or its change tracking was removed",
            what_to_do: "wait for the comparison to end; existing recovery points stay usable",
        }),
        Protection::Paused => Some(Reason {
            health: Health::Warning,
            code: "paused",
            what: "replication is paused".to_owned(),
            possible_cause: "an operator paused it",
            what_to_do: "resume replication",
        }),
        Protection::Pending
        | Protection::CheckingPrerequisites
        | Protection::InstallingMobility
        | Protection::PreparingTarget
        | Protection::EnablingReplication
        | Protection::InitialSync
        | Protection::AwaitingRecoveryPoint
        | Protection::Protected
        | Protection::Disabling => None,
    }
}

fn of_rpo(seen: &Observation<'_>) -> Option<Reason> {
    let rpo = seen.rpo.filter(|rpo| *rpo > seen.rpo_target)?;
    let health = if rpo > seen.rpo_target.saturating_mul(2) {
        Health::Critical
    } else {
        Health::Warning
    };
    Some(Reason {
        health,
        code: "rpo-exceeded",
        what: format!(
            "the newest recovery point is {} s old, the target is {} s",
            rpo.as_secs(),
            seen.rpo_target.as_secs()
        ),
        possible_cause: "the link is slower than the VM writes, or source and target cannot reach each other",
        what_to_do: "look at the backlog, the bandwidth limit and the link between the sites",
    })
}

fn of_fencing(seen: &Observation<'_>) -> Option<Reason> {
    (seen.fencing == Fencing::Fenced).then(|| Reason {
        health: Health::Critical,
        code: "source-fenced",
        what: "the target refuses this source for good".to_owned(),
        possible_cause: "another holder was granted the chain's epoch",
        what_to_do: "find out who writes this chain; protect the VM anew if it is this source",
    })
}

fn of_source(seen: &Observation<'_>) -> Option<Reason> {
    (seen.source == Attachment::Lost && seen.protection.follows_reports()).then(|| Reason {
        health: Health::Warning,
        code: "source-replicator-lost",
        what: "the source's replicator is not attached".to_owned(),
        possible_cause: "it stopped, or its site cannot reach the orchestrator; it may be replicating still",
        what_to_do: "look at the replicator and the link; if the site is gone, fail over",
    })
}

fn of_target(seen: &Observation<'_>) -> Option<Reason> {
    (seen.target == Attachment::Lost && seen.protection.follows_reports()).then(|| Reason {
        health: Health::Critical,
        code: "target-replicator-lost",
        what: "the target's replicator is not attached; nothing is known of its recovery points".to_owned(),
        possible_cause: "it stopped, or its site cannot reach the orchestrator",
        what_to_do: "look at the replicator at the target site",
    })
}

fn of_application(seen: &Observation<'_>) -> Option<Reason> {
    let missed = seen.app_consistency_missed;
    (!missed.is_empty() && seen.protection.follows_reports()).then(|| Reason {
        health: Health::Warning,
        code: "app-consistency-missed",
        what: format!("the last point that was due to be application-consistent is crash-consistent: {missed}"),
        possible_cause: "the guest has no agent that runs, its channel is not declared, or it could not freeze in time",
        what_to_do: "see that the guest runs qemu-guest-agent and that `source.guestAgent` names its channel; it is tried \
                     again within a minute",
    })
}

fn of_source_detail(seen: &Observation<'_>) -> Option<Reason> {
    let is_worth_telling = !seen.source_detail.is_empty()
        && seen.fencing == Fencing::NotFenced
        && seen.protection.follows_reports();
    is_worth_telling.then(|| Reason {
        health: Health::Warning,
        code: "source-waits",
        what: seen.source_detail.to_owned(),
        possible_cause: "the source's replicator told so",
        what_to_do: "remove what it waits for; it goes on by itself",
    })
}

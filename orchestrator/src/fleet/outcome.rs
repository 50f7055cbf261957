//! Whether a result is an answer to the command that it names, and a possible one.

use farshore_proto::v1::{self, command::Body, command_result::Outcome};

use super::{malformed::Malformed, wire};

/// Which command is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    CheckSource,
    CheckTarget,
    PrepareTarget,
    InstallSource,
    EnableSource,
    RemoveSource,
    Fence,
    ListPoints,
    StartRecovery,
    DiscardRecovery,
    SetReplication,
    SetRetention,
    SetPin,
    SetDisks,
    ForgetSeeds,
}

pub(super) fn question_of(body: &Body) -> Question {
    match body {
        Body::CheckSource(_) => Question::CheckSource,
        Body::CheckTarget(_) => Question::CheckTarget,
        Body::PrepareTarget(_) => Question::PrepareTarget,
        Body::InstallSource(_) => Question::InstallSource,
        Body::EnableSource(_) => Question::EnableSource,
        Body::RemoveSource(_) => Question::RemoveSource,
        Body::Fence(_) => Question::Fence,
        Body::ListPoints(_) => Question::ListPoints,
        Body::StartRecovery(_) => Question::StartRecovery,
        Body::DiscardRecovery(_) => Question::DiscardRecovery,
        Body::SetReplication(_) => Question::SetReplication,
        Body::SetRetention(_) => Question::SetRetention,
        Body::SetPin(_) => Question::SetPin,
        Body::SetDisks(_) => Question::SetDisks,
        Body::ForgetSeeds(_) => Question::ForgetSeeds,
    }
}

impl Question {
    /// The outcome, if it answers this question; a failure answers every question.
    pub(super) fn check(self, outcome: Option<Outcome>) -> Result<Outcome, Malformed> {
        let outcome = outcome.ok_or(Malformed::NoOutcome)?;
        let answered = match &outcome {
            Outcome::Failure(failure) => {
                check_failure(failure)?;
                None
            }
            Outcome::SourceChecked(checked) => {
                wire::check_checks(&checked.checks)?;
                wire::check_volumes(&checked.volumes)?;
                Some(Self::CheckSource)
            }
            Outcome::TargetChecked(checked) => {
                wire::check_checks(&checked.checks)?;
                Some(Self::CheckTarget)
            }
            Outcome::TargetPrepared(prepared) => {
                wire::identity("target_prepared.vault_incarnation", &prepared.vault_incarnation)?;
                wire::check_epoch("target_prepared.epoch", prepared.epoch.as_ref())?;
                Some(Self::PrepareTarget)
            }
            Outcome::SourceInstalled(_) => Some(Self::InstallSource),
            Outcome::SourceEnabled(_) => Some(Self::EnableSource),
            Outcome::SourceRemoved(_) => Some(Self::RemoveSource),
            Outcome::FenceRaised(raised) => {
                wire::check_epoch("fence_raised.epoch", raised.epoch.as_ref())?;
                Some(Self::Fence)
            }
            Outcome::PointsListed(listed) => {
                check_points(&listed.points)?;
                Some(Self::ListPoints)
            }
            Outcome::RecoveryStarted(started) => {
                check_started(started)?;
                Some(Self::StartRecovery)
            }
            Outcome::RecoveryDiscarded(discarded) => {
                check_leaks(&discarded.leaks)?;
                Some(Self::DiscardRecovery)
            }
            Outcome::ReplicationSet(_) => Some(Self::SetReplication),
            Outcome::RetentionSet(_) => Some(Self::SetRetention),
            Outcome::PinSet(_) => Some(Self::SetPin),
            Outcome::DisksSet(_) => Some(Self::SetDisks),
            Outcome::SeedsForgotten(_) => Some(Self::ForgetSeeds),
        };
        match answered {
            Some(answered) if answered != self => Err(Malformed::OtherAnswer),
            Some(_) | None => Ok(outcome),
        }
    }
}

fn check_failure(failure: &v1::Failure) -> Result<(), Malformed> {
    if failure.reason.is_empty() {
        return Err(Malformed::Missing {
            field: "failure.reason",
        });
    }
    wire::check_text("failure.reason", &failure.reason)?;
    wire::check_text("failure.message", &failure.message)
}

/// Newest first, each of its own sequence.
fn check_points(points: &[v1::RecoveryPoint]) -> Result<(), Malformed> {
    wire::check_count("points_listed.points", points.len())?;
    for point in points {
        wire::check_point(point)?;
    }
    let falls = |pair: &[v1::RecoveryPoint]| match pair {
        [newer, older] => newer.sequence > older.sequence,
        _ => true,
    };
    if points.windows(2).all(falls) {
        Ok(())
    } else {
        Err(Malformed::OutOfRange {
            field: "points_listed.points",
        })
    }
}

fn check_started(started: &v1::RecoveryStarted) -> Result<(), Malformed> {
    wire::check_text("recovery_started.monitor", &started.monitor)?;
    wire::check_text("recovery_started.namespace", &started.namespace)?;
    wire::check_count("recovery_started.ways_out", started.ways_out.len())?;
    for way in &started.ways_out {
        wire::check_text("recovery_started.ways_out", way)?;
    }
    wire::check_duration(
        "recovery_started.order_to_running",
        started.order_to_running.as_ref(),
    )
}

fn check_leaks(leaks: &[v1::Leak]) -> Result<(), Malformed> {
    wire::check_count("recovery_discarded.leaks", leaks.len())?;
    leaks.iter().try_for_each(|leak| {
        wire::check_text("recovery_discarded.leaks.kind", &leak.kind)?;
        wire::check_text("recovery_discarded.leaks.name", &leak.name)
    })
}

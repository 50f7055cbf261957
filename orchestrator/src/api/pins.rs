//! Pinning and unpinning of recovery points: the target's vault is told, and then the log.

use std::time::Duration;

use farshore_blocks::{Sequence, clock::WallTime};
use farshore_proto::v1::{self, command, command_result::Outcome};
use jiff::Timestamp;
use uuid::Uuid;

use super::failovers::{parse_choice, points_of};
use crate::{
    control::Control,
    fleet::timestamp,
    jobs::choose,
    orders::{Idempotency, Refusal, answered, once},
    records::{self, Answer, EventRecord, Severity, VmRecord},
    replicators::{Duty, Order},
};

/// How long a user waits for a vault.
const PINNED_WITHIN: Duration = Duration::from_secs(10);

/// What is to become of which point.
pub(super) struct Pinning {
    pub(super) vm: String,
    /// As the user named it.
    pub(super) point: String,
    /// Absent: unpinned.
    pub(super) pin: Option<v1::PointPin>,
}

/// Pins or unpins a point, and gives it as it is then. A request that was answered before changes nothing again.
pub(super) async fn set_pin(
    control: &Control,
    idempotency: &Idempotency,
    pinning: &Pinning,
) -> Result<v1::RecoveryPoint, Refusal> {
    let store = &*control.store;
    let before = answered(store, idempotency)?;
    let sequence = match before {
        Some(Answer::Point(sequence)) => sequence,
        Some(Answer::Applied(_) | Answer::Deleted(_) | Answer::Test(_) | Answer::Job(_)) | None => {
            let sequence = tell_vault(control, pinning).await?;
            let now = control.clock.now();
            once(store, idempotency, now, |work| {
                work.tell(&event(pinning, sequence, now))?;
                Ok(Answer::Point(sequence))
            })
            .await?;
            sequence
        }
    };
    let points = points_of(control, &pinning.vm).await?;
    let found = points.into_iter().find(|point| point.sequence == sequence.0);
    found.ok_or_else(|| Refusal::NoSuchPoint {
        vm: pinning.vm.clone(),
        message: format!("point {sequence} is there no more"),
    })
}

async fn tell_vault(control: &Control, pinning: &Pinning) -> Result<Sequence, Refusal> {
    let points = points_of(control, &pinning.vm).await?;
    let sequence =
        choose(parse_choice(&pinning.point)?, &points).map_err(|message| Refusal::NoSuchPoint {
            vm: pinning.vm.clone(),
            message,
        })?;
    let not_found = || Refusal::NotFound {
        what: "protected VM",
        name: pinning.vm.clone(),
    };
    let record = records::read::<VmRecord>(&*control.store, &pinning.vm)?.ok_or_else(not_found)?;
    let declared = records::declared_vm(&*control.store, &pinning.vm)?.ok_or_else(not_found)?;
    let order = Order {
        site: declared.target().site.to_string(),
        duty: Duty::Vault,
        id: format!("pin/{}", Uuid::now_v7()),
        body: command::Body::SetPin(v1::SetPin {
            chain: record.chain.as_bytes().to_vec().into(),
            sequence: sequence.0,
            pin: pinning.pin,
        }),
        deadline: PINNED_WITHIN,
    };
    let outcome = control.replicators.command(order).await?;
    if let Outcome::PinSet(_) = outcome {
        return Ok(sequence);
    }
    if let Outcome::Failure(failure) = outcome {
        return Err(Refusal::Replicator {
            reason: failure.reason,
            message: failure.message,
        });
    }
    Err(Refusal::Replicator {
        reason: "replicator-malformed".to_owned(),
        message: format!("the target's replicator answered something else: {outcome:?}"),
    })
}

/// The pin that a user asks for: with a time, a lock until then.
pub(super) fn pin_until(until: &str, now: WallTime) -> Result<v1::PointPin, Refusal> {
    if until.is_empty() {
        return Ok(v1::PointPin { locked_until: None });
    }
    let time = until.parse::<Timestamp>().ok();
    let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    let end = nanoseconds.map(WallTime).filter(|end| *end > now);
    let end = end.ok_or_else(|| Refusal::InvalidField {
        field: "until",
        message: format!("`{until}` is refused: a time to come, like 2126-11-23T22:00:00Z, is accepted"),
    })?;
    Ok(v1::PointPin {
        locked_until: Some(timestamp(end)),
    })
}

fn event(pinning: &Pinning, sequence: Sequence, now: WallTime) -> EventRecord {
    let locked_until = pinning.pin.and_then(|pin| pin.locked_until);
    let (code, message) = match (
        pinning.pin,
        locked_until.as_ref().and_then(crate::fleet::wall_time),
    ) {
        (None, _) => (
            "point-unpinned",
            format!("point {sequence} goes when retention says so"),
        ),
        (Some(_), None) => (
            "point-pinned",
            format!("point {sequence} stays until it is unpinned"),
        ),
        (Some(_), Some(end)) => (
            "point-locked",
            format!("point {sequence} is locked until {}", end.to_rfc3339()),
        ),
    };
    let subject = format!("vm/{}", pinning.vm);
    EventRecord::new(Severity::Information, code, message, &subject, now)
}

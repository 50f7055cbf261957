//! The edge: what a replicator may send, and why a message is refused. Nothing behind it checks again.
//!
//! Messages are kept as they came, since they are passed on as they came; what is checked here is that every
//! identity, digest, time and number in them can be converted.

use std::{collections::HashSet, time::Duration};

use farshore_blocks::{ChainId, Digest, clock::WallTime};
use farshore_domain::declaration::Name;
use farshore_proto::v1::{self, replicator_message::Body};
use prost_types::Timestamp;
use tonic::codegen::http::Uri;

use super::malformed::Malformed;

/// How many entries one list may have.
const MAX_ENTRIES: usize = 100_000;

/// How long one text may be; what a failed program said is among them.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// A timestamp of the wire as wall time; `None` if it is before 1970, or no time at all.
#[must_use]
pub fn wall_time(timestamp: &Timestamp) -> Option<WallTime> {
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanoseconds = u64::try_from(timestamp.nanos)
        .ok()
        .filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    let whole = seconds.checked_mul(1_000_000_000)?;
    whole.checked_add(nanoseconds).map(WallTime)
}

/// Wall time as a timestamp of the wire.
#[must_use]
pub fn timestamp(time: WallTime) -> Timestamp {
    const NANOSECONDS: u64 = 1_000_000_000;
    Timestamp {
        seconds: i64::try_from(time.0 / NANOSECONDS).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % NANOSECONDS).unwrap_or(0),
    }
}

/// A duration of the wire; `None` if it is negative, or no duration at all.
#[must_use]
pub fn duration(duration: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanoseconds = u32::try_from(duration.nanos)
        .ok()
        .filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    Some(Duration::new(seconds, nanoseconds))
}

pub(super) fn registration(first: Option<v1::ReplicatorMessage>) -> Result<v1::Register, Malformed> {
    let Some(Body::Register(register)) = first.and_then(|message| message.body) else {
        return Err(Malformed::NotRegistered);
    };
    check_name("register.name", &register.name)?;
    check_name("register.site", &register.site)?;
    if register.instance.is_empty() {
        return Err(Malformed::Missing {
            field: "register.instance",
        });
    }
    check_text("register.instance", &register.instance)?;
    check_text("register.software_version", &register.software_version)?;
    check_time("register.sent_at", register.sent_at.as_ref())?;
    check_vault(&register)?;
    if !register.site_endpoint.is_empty() {
        check_endpoint("register.site_endpoint", &register.site_endpoint)?;
    }
    Ok(register)
}

/// A replicator may have a vault, and may be dialled, or not.
fn check_vault(register: &v1::Register) -> Result<(), Malformed> {
    if !register.vault_incarnation.is_empty() {
        identity("register.vault_incarnation", &register.vault_incarnation)?;
    }
    if register.replication_endpoint.is_empty() {
        return Ok(());
    }
    check_endpoint("register.replication_endpoint", &register.replication_endpoint)
}

fn check_endpoint(field: &'static str, endpoint: &str) -> Result<(), Malformed> {
    check_text(field, endpoint)?;
    let endpoint: Result<Uri, _> = endpoint.parse();
    let is_dialable = endpoint.is_ok_and(|endpoint| {
        matches!(endpoint.scheme_str(), Some("http" | "https")) && endpoint.host().is_some()
    });
    if is_dialable {
        Ok(())
    } else {
        Err(Malformed::OutOfRange { field })
    }
}

pub(super) fn check_report(report: &v1::Report) -> Result<(), Malformed> {
    check_time("report.at", report.at.as_ref())?;
    check_time("report.asked_at", report.asked_at.as_ref())?;
    check_count("report.sources", report.sources.len())?;
    report.sources.iter().try_for_each(check_source)?;
    check_distinct(
        "report.sources",
        report.sources.iter().map(|source| &source.chain),
    )?;
    check_count("report.targets", report.targets.len())?;
    report.targets.iter().try_for_each(check_target)?;
    check_distinct(
        "report.targets",
        report.targets.iter().map(|target| &target.chain),
    )?;
    check_count("report.recovered", report.recovered.len())?;
    report.recovered.iter().try_for_each(check_recovered)?;
    check_distinct(
        "report.recovered",
        report.recovered.iter().map(|vm| &vm.recovery_id),
    )
}

fn check_source(source: &v1::SourceStatus) -> Result<(), Malformed> {
    check_label("report.sources.vm", &source.vm)?;
    identity("report.sources.chain", &source.chain)?;
    known(
        "report.sources.phase",
        source.phase != 0 && v1::SourcePhase::try_from(source.phase).is_ok(),
    )?;
    check_text("report.sources.detail", &source.detail)?;
    let rate = source.sync_bytes_per_second;
    known(
        "report.sources.sync_bytes_per_second",
        rate.is_finite() && rate >= 0.0,
    )?;
    check_duration("report.sources.last_cycle", source.last_cycle.as_ref())?;
    check_duration("report.sources.last_hold", source.last_hold.as_ref())?;
    check_text(
        "report.sources.app_consistency_missed",
        &source.app_consistency_missed,
    )?;
    check_group(source)?;
    check_times(source.last_cycle_times.as_ref())?;
    check_audit(source.audit.as_ref())?;
    check_volumes(&source.volumes)?;
    check_count("report.sources.disks", source.disks.len())?;
    for disk in &source.disks {
        check_name("report.sources.disks.name", &disk.name)?;
        check_text("report.sources.disks.device", &disk.device)?;
        check_text("report.sources.disks.bus", &disk.bus)?;
    }
    check_count("report.sources.disk_paths", source.disk_paths.len())?;
    source
        .disk_paths
        .iter()
        .try_for_each(|path| check_text("report.sources.disk_paths", path))?;
    let interval = source.policy.as_ref().and_then(|policy| policy.interval.as_ref());
    check_duration("report.sources.policy.interval", interval)?;
    source
        .newest
        .as_ref()
        .map_or(Ok(()), |newest| digest("report.sources.newest", &newest.digest))
}

fn check_group(source: &v1::SourceStatus) -> Result<(), Malformed> {
    if let Some(membership) = &source.membership {
        check_label("report.sources.membership.group", &membership.group)?;
        check_count("report.sources.membership.members", membership.members.len())?;
        for member in &membership.members {
            check_label("report.sources.membership.members", member)?;
        }
        check_duration(
            "report.sources.membership.hold_limit",
            membership.hold_limit.as_ref(),
        )?;
        check_text(
            "report.sources.membership.watchdog_monitor",
            &membership.watchdog_monitor,
        )?;
        if let Some(leader) = &membership.leader {
            check_text("report.sources.membership.leader", &leader.replicator)?;
            check_text("report.sources.membership.leader", &leader.endpoint)?;
        }
    }
    let Some(group) = &source.group else { return Ok(()) };
    check_time("report.sources.group.instant_at", group.instant_at.as_ref())?;
    check_text("report.sources.group.missed", &group.missed)?;
    check_duration("report.sources.group.longest_hold", group.longest_hold.as_ref())
}

fn check_times(times: Option<&v1::CycleTimes>) -> Result<(), Malformed> {
    let phases = times.map(|times| [&times.begin, &times.read, &times.send, &times.seal]);
    phases
        .into_iter()
        .flatten()
        .try_for_each(|phase| check_duration("report.sources.last_cycle_times", phase.as_ref()))
}

fn check_audit(audit: Option<&v1::AuditStatus>) -> Result<(), Malformed> {
    let Some(audit) = audit else { return Ok(()) };
    check_time("report.sources.audit.last_pass_at", audit.last_pass_at.as_ref())?;
    let Some(mismatch) = &audit.last_mismatch else {
        return Ok(());
    };
    check_text("report.sources.audit.last_mismatch.volume", &mismatch.volume)?;
    check_time("report.sources.audit.last_mismatch.at", mismatch.at.as_ref())?;
    known(
        "report.sources.audit.last_mismatch.at",
        mismatch.at.is_some() && audit.mismatches > 0,
    )
}

/// A chain whose first epoch is not granted yet has none.
fn check_target(target: &v1::TargetStatus) -> Result<(), Malformed> {
    check_label("report.targets.vm", &target.vm)?;
    identity("report.targets.chain", &target.chain)?;
    if target.epoch.is_some() {
        check_epoch("report.targets.epoch", target.epoch.as_ref())?;
    }
    target.newest.as_ref().map_or(Ok(()), check_point)?;
    check_damage(target)?;
    let retention = target.retention.as_ref();
    let keep_all = retention.and_then(|retention| retention.keep_all.as_ref());
    check_duration("report.targets.retention.keep_all", keep_all)?;
    check_time("report.targets.valid_through", target.valid_through.as_ref())?;
    check_duration(
        "report.targets.clock_uncertainty",
        target.clock_uncertainty.as_ref(),
    )
}

/// Of much damage only a part is listed, but of none nothing and of some something.
fn check_damage(target: &v1::TargetStatus) -> Result<(), Malformed> {
    check_count("report.targets.damage", target.damage.len())?;
    let listed = u64::try_from(target.damage.len()).unwrap_or(u64::MAX);
    known(
        "report.targets.damaged_places",
        target.damaged_places >= listed && (listed == 0) == (target.damaged_places == 0),
    )?;
    target.damage.iter().try_for_each(|damage| {
        check_text("report.targets.damage.volume", &damage.volume)?;
        check_text("report.targets.damage.file", &damage.file)?;
        check_text("report.targets.damage.what", &damage.what)?;
        known(
            "report.targets.damage.first_point",
            (1..=damage.last_point).contains(&damage.first_point),
        )
    })
}

/// A recovered VM of which only the identifier is left has no condition.
fn check_recovered(recovered: &v1::RecoveredVmStatus) -> Result<(), Malformed> {
    check_label("report.recovered.recovery_id", &recovered.recovery_id)?;
    known(
        "report.recovered.condition",
        v1::RecoveredVmCondition::try_from(recovered.condition).is_ok(),
    )
}

/// A sealed point has a sequence from 1, a digest and both its times.
pub(super) fn check_point(point: &v1::RecoveryPoint) -> Result<(), Malformed> {
    known("point.sequence", point.sequence > 0)?;
    digest("point.digest", &point.digest)?;
    for (field, time) in [
        ("point.captured_at", &point.captured_at),
        ("point.sealed_at", &point.sealed_at),
    ] {
        if time.is_none() {
            return Err(Malformed::Missing { field });
        }
        check_time(field, time.as_ref())?;
    }
    let locked_until = point.pin.as_ref().and_then(|pin| pin.locked_until.as_ref());
    check_time("point.pin.locked_until", locked_until)?;
    known(
        "point.kind",
        point.kind != 0 && v1::PointKind::try_from(point.kind).is_ok(),
    )
}

pub(super) fn check_epoch(field: &'static str, epoch: Option<&v1::Epoch>) -> Result<(), Malformed> {
    let epoch = epoch.ok_or(Malformed::Missing { field })?;
    identity(field, &epoch.holder)
}

pub(super) fn check_checks(checks: &[v1::Check]) -> Result<(), Malformed> {
    check_count("checks", checks.len())?;
    checks.iter().try_for_each(|check| {
        check_name("checks.code", &check.code)?;
        known(
            "checks.outcome",
            check.outcome != 0 && v1::CheckOutcome::try_from(check.outcome).is_ok(),
        )?;
        check_text("checks.found", &check.found)?;
        check_text("checks.remedy", &check.remedy)
    })
}

pub(super) fn check_volumes(volumes: &[v1::Volume]) -> Result<(), Malformed> {
    check_count("volumes", volumes.len())?;
    volumes
        .iter()
        .try_for_each(|volume| check_name("volumes.name", &volume.name))?;
    check_distinct("volumes", volumes.iter().map(|volume| &volume.name))
}

/// Vault incarnations, chains and holders are all of one length.
pub(super) fn identity(field: &'static str, bytes: &[u8]) -> Result<(), Malformed> {
    ChainId::try_from(bytes)
        .map(|_| ())
        .map_err(|_| Malformed::WrongLength {
            field,
            found: bytes.len(),
            expected: 16,
        })
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<(), Malformed> {
    Digest::try_from(bytes)
        .map(|_| ())
        .map_err(|_| Malformed::WrongLength {
            field,
            found: bytes.len(),
            expected: 32,
        })
}

fn check_name(field: &'static str, text: &str) -> Result<(), Malformed> {
    text.parse::<Name>()
        .map(|_| ())
        .map_err(|refused| Malformed::BadName {
            field,
            refused: Box::new(refused),
        })
}

/// A name that is only compared with others: what a vault found on its disk must not lock its replicator out.
fn check_label(field: &'static str, text: &str) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed::Missing { field });
    }
    check_text(field, text)
}

pub(super) fn check_text(field: &'static str, text: &str) -> Result<(), Malformed> {
    at_most(field, text.len(), MAX_TEXT_BYTES)
}

pub(super) fn check_count(field: &'static str, found: usize) -> Result<(), Malformed> {
    at_most(field, found, MAX_ENTRIES)
}

pub(super) fn check_duration(
    field: &'static str,
    value: Option<&prost_types::Duration>,
) -> Result<(), Malformed> {
    known(field, value.is_none_or(|value| duration(value).is_some()))
}

fn check_time(field: &'static str, value: Option<&Timestamp>) -> Result<(), Malformed> {
    known(field, value.is_none_or(|value| wall_time(value).is_some()))
}

fn check_distinct<Entry: std::hash::Hash + Eq>(
    field: &'static str,
    entries: impl Iterator<Item = Entry>,
) -> Result<(), Malformed> {
    let mut seen = HashSet::new();
    for entry in entries {
        if !seen.insert(entry) {
            return Err(Malformed::Repeated { field });
        }
    }
    Ok(())
}

fn known(field: &'static str, is_known: bool) -> Result<(), Malformed> {
    if is_known {
        Ok(())
    } else {
        Err(Malformed::OutOfRange { field })
    }
}

fn at_most(field: &'static str, found: usize, most: usize) -> Result<(), Malformed> {
    if found <= most {
        Ok(())
    } else {
        Err(Malformed::TooLong { field, found, most })
    }
}

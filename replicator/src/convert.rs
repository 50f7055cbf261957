//! The strict edge between the wire and our own words: what came is checked here, once.

use std::{path::PathBuf, time::Duration};

use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Encoding, Epoch, Frame, FrameError, HolderNonce,
    Incarnation, Sequence, VolumeIndex, clock::WallTime,
};
use farshore_proto::v1;
use farshore_provider::{
    Check, CheckOutcome, DiskBus, DiskSpecification, Firmware, MachineSpecification, NicSpecification,
};
use farshore_transfer::{Change, PointHead, Watermark};
use farshore_vault::{Pin, RetentionPolicy};

use crate::{
    assignment::{AppConsistency, GroupLeader, Membership, SourcePolicy},
    source::{LimitedHours, LinkLimit},
};

/// A message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    #[error("field `{field}` is refused: {why}")]
    Refused { field: &'static str, why: String },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

pub(crate) fn refused(field: &'static str, why: impl ToString) -> Malformed {
    Malformed::Refused {
        field,
        why: why.to_string(),
    }
}

pub(crate) fn time_out(time: WallTime) -> prost_types::Timestamp {
    let seconds = i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1_000_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds, nanos }
}

pub(crate) fn time_in(
    time: Option<&prost_types::Timestamp>,
    field: &'static str,
) -> Result<WallTime, Malformed> {
    let time = time.ok_or(Malformed::Missing(field))?;
    let parts = u64::try_from(time.seconds)
        .ok()
        .zip(u64::try_from(time.nanos).ok());
    parts
        .filter(|(_, nanoseconds)| *nanoseconds < 1_000_000_000)
        .and_then(|(seconds, nanoseconds)| seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds))
        .map(WallTime)
        .ok_or_else(|| refused(field, "a time between 1970 and 2554 is accepted"))
}

pub(crate) fn duration_out(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn duration_in(
    duration: Option<&prost_types::Duration>,
    field: &'static str,
) -> Result<Duration, Malformed> {
    let duration = duration.ok_or(Malformed::Missing(field))?;
    let seconds = u64::try_from(duration.seconds).ok();
    let nanoseconds = u32::try_from(duration.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    seconds
        .zip(nanoseconds)
        .map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds))
        .ok_or_else(|| refused(field, "a duration that is not negative is accepted"))
}

pub(crate) fn source_policy_out(policy: SourcePolicy) -> v1::Replicate {
    v1::Replicate {
        interval: Some(duration_out(policy.interval)),
        bandwidth_bytes_per_second: policy.bandwidth.map_or(0, |rate| rate.0),
        link: policy.link.map(link_limit_out),
        audit_bytes_per_second: policy.audit_rate.0,
        guest_cost_limit_percent: policy.guest_cost_limit_percent,
        app_consistent_every: policy.app_consistency.map(|wanted| duration_out(wanted.every)),
        freeze_limit: policy
            .app_consistency
            .map(|wanted| duration_out(wanted.freeze_limit)),
    }
}

pub(crate) fn source_policy_in(policy: Option<v1::Replicate>) -> Result<SourcePolicy, Malformed> {
    let policy = policy.ok_or(Malformed::Missing("policy"))?;
    let app_consistency = app_consistency_in(&policy)?;
    Ok(SourcePolicy {
        interval: duration_in(policy.interval.as_ref(), "policy.interval")?,
        bandwidth: Some(ByteCount(policy.bandwidth_bytes_per_second)).filter(|rate| rate.0 > 0),
        link: policy.link.map(link_limit_in).transpose()?,
        audit_rate: ByteCount(policy.audit_bytes_per_second),
        guest_cost_limit_percent: policy.guest_cost_limit_percent.min(100),
        app_consistency,
    })
}

fn link_limit_out(limit: LinkLimit) -> v1::LinkLimit {
    let hours = limit.hours.into_iter().map(|hours| v1::LinkHours {
        days: hours.days,
        from_minute: hours.from_minute,
        to_minute: hours.to_minute,
        bytes_per_second: hours.bandwidth.map_or(0, |rate| rate.0),
    });
    v1::LinkLimit {
        to: limit.to,
        bytes_per_second: limit.bandwidth.map_or(0, |rate| rate.0),
        hours: hours.collect(),
        connections: limit.connections.unwrap_or(0),
    }
}

fn link_limit_in(limit: v1::LinkLimit) -> Result<LinkLimit, Malformed> {
    const MINUTES_OF_A_DAY: u32 = 24 * 60;
    let rate = |bytes: u64| Some(ByteCount(bytes)).filter(|rate| rate.0 > 0);
    let hours = limit.hours.into_iter().map(|hours| {
        if hours.days.iter().any(|day| *day > 6) || hours.from_minute.max(hours.to_minute) > MINUTES_OF_A_DAY
        {
            return Err(refused(
                "policy.link.hours",
                "days from 0 to 6 and minutes to 1440 are accepted",
            ));
        }
        Ok(LimitedHours {
            days: hours.days,
            from_minute: hours.from_minute,
            to_minute: hours.to_minute,
            bandwidth: rate(hours.bytes_per_second),
        })
    });
    Ok(LinkLimit {
        to: limit.to,
        bandwidth: rate(limit.bytes_per_second),
        hours: hours.collect::<Result<_, _>>()?,
        connections: Some(limit.connections).filter(|most| *most > 0),
    })
}

pub(crate) fn membership_out(membership: &Membership) -> v1::Membership {
    let watchdog = membership.watchdog_monitor.as_ref();
    v1::Membership {
        group: membership.group.clone(),
        members: membership.members.clone(),
        hold_limit: Some(duration_out(membership.hold_limit)),
        watchdog_monitor: watchdog.map_or_else(String::new, |path| path.display().to_string()),
        leader: membership.leader.as_ref().map(|leader| v1::GroupLeader {
            replicator: leader.replicator.clone(),
            endpoint: leader.endpoint.clone(),
        }),
    }
}

pub(crate) fn membership_in(membership: v1::Membership) -> Result<Membership, Malformed> {
    Ok(Membership {
        group: membership.group,
        members: membership.members,
        hold_limit: duration_in(membership.hold_limit.as_ref(), "membership.hold_limit")?,
        watchdog_monitor: path_in(membership.watchdog_monitor),
        leader: membership.leader.map(|leader| GroupLeader {
            replicator: leader.replicator,
            endpoint: leader.endpoint,
        }),
    })
}

/// Empty is none.
pub(crate) fn path_in(path: String) -> Option<PathBuf> {
    Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn app_consistency_in(policy: &v1::Replicate) -> Result<Option<AppConsistency>, Malformed> {
    if policy.app_consistent_every.is_none() {
        return Ok(None);
    }
    Ok(Some(AppConsistency {
        every: duration_in(
            policy.app_consistent_every.as_ref(),
            "policy.app_consistent_every",
        )?,
        freeze_limit: duration_in(policy.freeze_limit.as_ref(), "policy.freeze_limit")?,
    }))
}

pub(crate) fn retention_out(policy: &RetentionPolicy) -> v1::Retention {
    v1::Retention {
        keep_all: Some(duration_out(policy.keep_all)),
        hourly: policy.hourly,
        daily: policy.daily,
        weekly: policy.weekly,
        monthly: policy.monthly,
        yearly: policy.yearly,
        limit_bytes: policy.limit.map_or(0, |limit| limit.0),
    }
}

pub(crate) fn retention_in(retention: Option<v1::Retention>) -> Result<RetentionPolicy, Malformed> {
    let retention = retention.ok_or(Malformed::Missing("retention"))?;
    Ok(RetentionPolicy {
        keep_all: duration_in(retention.keep_all.as_ref(), "retention.keep_all")?,
        hourly: retention.hourly,
        daily: retention.daily,
        weekly: retention.weekly,
        monthly: retention.monthly,
        yearly: retention.yearly,
        limit: Some(ByteCount(retention.limit_bytes)).filter(|limit| limit.0 > 0),
    })
}

pub(crate) fn pin_out(pin: Pin) -> v1::PointPin {
    v1::PointPin {
        locked_until: match pin {
            Pin::Pinned => None,
            Pin::LockedUntil(until) => Some(time_out(until)),
        },
    }
}

pub(crate) fn pin_in(pin: v1::PointPin) -> Result<Pin, Malformed> {
    match pin.locked_until {
        None => Ok(Pin::Pinned),
        Some(until) => time_in(Some(&until), "pin.locked_until").map(Pin::LockedUntil),
    }
}

pub(crate) fn chain_in(bytes: &[u8]) -> Result<ChainId, Malformed> {
    ChainId::try_from(bytes).map_err(|error| refused("chain", error))
}

pub(crate) fn incarnation_in(bytes: &[u8]) -> Result<Incarnation, Malformed> {
    Incarnation::try_from(bytes).map_err(|error| refused("vault_incarnation", error))
}

pub(crate) fn holder_in(bytes: &[u8]) -> Result<HolderNonce, Malformed> {
    HolderNonce::try_from(bytes).map_err(|error| refused("holder", error))
}

pub(crate) fn epoch_out(epoch: Epoch) -> v1::Epoch {
    v1::Epoch {
        number: epoch.number,
        holder: epoch.holder.as_bytes().to_vec().into(),
    }
}

pub(crate) fn epoch_in(epoch: Option<&v1::Epoch>) -> Result<Epoch, Malformed> {
    let epoch = epoch.ok_or(Malformed::Missing("epoch"))?;
    Ok(Epoch {
        number: epoch.number,
        holder: holder_in(&epoch.holder)?,
    })
}

pub(crate) fn point_head_out(point: PointHead) -> v1::PointHead {
    v1::PointHead {
        sequence: point.sequence.0,
        digest: point.digest.as_bytes().to_vec().into(),
    }
}

pub(crate) fn point_head_in(point: &v1::PointHead) -> Result<PointHead, Malformed> {
    Ok(PointHead {
        sequence: Sequence(point.sequence),
        digest: digest_in(&point.digest)?,
    })
}

pub(crate) fn digest_in(bytes: &[u8]) -> Result<Digest, Malformed> {
    Digest::try_from(bytes).map_err(|error| refused("digest", error))
}

pub(crate) fn change_out(change: ChangeDigest) -> v1::ChangeDigest {
    v1::ChangeDigest {
        digest: change.digest.as_bytes().to_vec().into(),
        frames: change.frames,
        bytes: change.bytes.0,
    }
}

pub(crate) fn change_in(change: &v1::ChangeDigest) -> Result<ChangeDigest, Malformed> {
    Ok(ChangeDigest {
        digest: digest_in(&change.digest)?,
        frames: change.frames,
        bytes: ByteCount(change.bytes),
    })
}

pub(crate) fn watermark_out(mark: Watermark) -> v1::Watermark {
    v1::Watermark {
        volume: mark.volume.0,
        scanned_through_bytes: mark.scanned_through.0,
    }
}

pub(crate) fn watermark_in(mark: &v1::Watermark) -> Watermark {
    Watermark {
        volume: VolumeIndex(mark.volume),
        scanned_through: ByteOffset(mark.scanned_through_bytes),
    }
}

pub(crate) fn frame_out(frame: &Frame) -> v1::Frame {
    let encoding = match frame.encoding() {
        Encoding::Raw => v1::FrameEncoding::Raw,
        Encoding::Zero => v1::FrameEncoding::Zero,
        Encoding::Zstd => v1::FrameEncoding::Zstd,
    };
    v1::Frame {
        volume: frame.volume().0,
        offset_bytes: frame.extent().start().0,
        length_bytes: u32::try_from(frame.extent().length().0).unwrap_or(u32::MAX),
        crc32: frame.crc32(),
        encoding: encoding.into(),
        payload: frame.payload().clone(),
    }
}

/// A change as it travels: of what a seed has, only the digest.
pub(crate) fn frame_of_change(change: &Change) -> v1::Frame {
    let whole = frame_out(change.frame());
    match change {
        Change::Sent(_) => whole,
        Change::Seeded(frame) => v1::Frame {
            encoding: v1::FrameEncoding::Seed.into(),
            payload: frame.raw_digest().as_bytes().to_vec().into(),
            ..whole
        },
    }
}

pub(crate) fn frame_in(frame: v1::Frame) -> Result<Frame, Malformed> {
    let encoding = match frame.encoding() {
        v1::FrameEncoding::Raw => Encoding::Raw,
        v1::FrameEncoding::Zero => Encoding::Zero,
        v1::FrameEncoding::Zstd => Encoding::Zstd,
        v1::FrameEncoding::Unspecified => {
            return Err(refused("encoding", format!("{} is not known", frame.encoding)));
        }
        v1::FrameEncoding::Seed => {
            return Err(refused(
                "encoding",
                "the bytes are expected here, and not a seed's digest",
            ));
        }
    };
    let offset = ByteOffset(frame.offset_bytes);
    let volume = VolumeIndex(frame.volume);
    Ok(Frame::from_parts(
        volume,
        offset,
        frame.length_bytes,
        frame.crc32,
        encoding,
        frame.payload,
    )?)
}

pub(crate) fn machine_in(machine: Option<v1::Machine>) -> Result<MachineSpecification, Malformed> {
    let machine = machine.ok_or(Malformed::Missing("machine"))?;
    let firmware = match machine.firmware.as_str() {
        "bios" => Firmware::Bios,
        "uefi" => Firmware::Uefi,
        other => {
            return Err(refused(
                "firmware",
                format!("`{other}`: bios and uefi are accepted"),
            ));
        }
    };
    let disks = machine
        .disks
        .into_iter()
        .map(disk_in)
        .collect::<Result<Vec<_>, _>>()?;
    if disks.is_empty() {
        return Err(refused("disks", "at least one disk is needed"));
    }
    Ok(MachineSpecification {
        vm: machine.vm,
        uuid: Some(machine.uuid).filter(|uuid| !uuid.is_empty()),
        processors: machine.processors,
        memory: ByteCount(machine.memory_bytes),
        firmware,
        machine_type: machine.machine_type,
        disks,
        nics: machine
            .nics
            .into_iter()
            .map(|nic| NicSpecification { mac: nic.mac })
            .collect(),
    })
}

fn disk_in(disk: v1::Disk) -> Result<DiskSpecification, Malformed> {
    let bus = match disk.bus.as_str() {
        "virtioBlk" => DiskBus::VirtioBlk,
        "virtioScsi" => DiskBus::VirtioScsi,
        other => {
            return Err(refused(
                "bus",
                format!("`{other}`: virtioBlk and virtioScsi are accepted"),
            ));
        }
    };
    Ok(DiskSpecification {
        name: disk.name,
        device: disk.device,
        bus,
    })
}

pub(crate) fn disk_out(disk: &DiskSpecification) -> v1::Disk {
    let bus = match disk.bus {
        DiskBus::VirtioBlk => "virtioBlk",
        DiskBus::VirtioScsi => "virtioScsi",
    };
    v1::Disk {
        name: disk.name.clone(),
        device: disk.device.clone(),
        bus: bus.to_owned(),
    }
}

pub(crate) fn check_out(check: Check) -> v1::Check {
    let outcome = match check.outcome {
        CheckOutcome::Passed => v1::CheckOutcome::Passed,
        CheckOutcome::Warning => v1::CheckOutcome::Warning,
        CheckOutcome::Failed => v1::CheckOutcome::Failed,
    };
    v1::Check {
        code: check.code,
        outcome: outcome.into(),
        found: check.found,
        remedy: check.remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_survive_the_wire() {
        let time = WallTime(1_700_000_000_123_456_789);
        assert_eq!(time_in(Some(&time_out(time)), "t").unwrap(), time);
        let duration = Duration::new(3, 5);
        assert_eq!(duration_in(Some(&duration_out(duration)), "d").unwrap(), duration);
    }

    #[test]
    fn a_time_that_cannot_be_is_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert!(time_in(Some(&prost_types::Timestamp { seconds, nanos }), "t").is_err());
        }
    }

    #[test]
    fn a_frame_with_a_wrong_checksum_does_not_come_in() {
        let frame = Frame::from_raw(VolumeIndex(0), ByteOffset(0), vec![1; 512].into()).unwrap();
        let mut wire = frame_out(&frame);
        assert_eq!(frame_in(wire.clone()).unwrap(), frame);
        wire.crc32 ^= 1;
        assert!(matches!(
            frame_in(wire),
            Err(Malformed::Frame(FrameError::Checksum { .. }))
        ));
    }
}

//! Decides how a declared machine is told to replicators and to users.

use std::time::Duration;

use farshore_blocks::ByteCount;
use farshore_domain::declaration::{Link, ProtectedVm, ReplicationPolicy, Retention, SourcePlace};
use farshore_proto::v1;

use crate::records::VolumeRecord;

/// The machine of a declared VM.
#[must_use]
pub fn to_wire(vm: &ProtectedVm) -> v1::Machine {
    let machine = vm.machine();
    v1::Machine {
        vm: vm.name().to_string(),
        uuid: machine.uuid().map(ToString::to_string).unwrap_or_default(),
        processors: machine.processors(),
        memory_bytes: machine.memory().0,
        firmware: machine.firmware().as_str().to_owned(),
        machine_type: machine.machine_type().to_string(),
        disks: machine
            .disks()
            .iter()
            .map(|disk| v1::Disk {
                name: disk.name.to_string(),
                device: disk.device.to_string(),
                bus: disk.bus.as_str().to_owned(),
            })
            .collect(),
        nics: machine
            .nics()
            .iter()
            .map(|nic| v1::Nic {
                mac: nic.mac.to_string(),
            })
            .collect(),
    }
}

/// Where the VM's monitor is; empty if no hypervisor runs it.
#[must_use]
pub fn monitor(declared: &ProtectedVm) -> String {
    match &declared.source().place {
        SourcePlace::Monitor(monitor) => monitor.to_string(),
        SourcePlace::Disks(_) => String::new(),
    }
}

/// Where the channel of the VM's guest agent is; empty if none is declared.
#[must_use]
pub fn guest_agent(declared: &ProtectedVm) -> String {
    let agent = declared.source().guest_agent.as_ref();
    agent.map(ToString::to_string).unwrap_or_default()
}

/// Where the VM's disks are if no hypervisor runs it, in the machine's order.
#[must_use]
pub fn disk_paths(declared: &ProtectedVm) -> Vec<String> {
    let disks = declared.source().disks().iter();
    disks.map(|disk| disk.path.to_string()).collect()
}

/// Where older copies of the VM's disks are at its target.
#[must_use]
pub fn seeds(declared: &ProtectedVm) -> Vec<v1::SeedPath> {
    let seeds = declared.target().seed.iter();
    seeds
        .map(|seed| v1::SeedPath {
            volume: seed.disk.to_string(),
            path: seed.path.to_string(),
        })
        .collect()
}

/// What the source is to do by the policy, and by the limits of the link that it shares.
#[must_use]
pub fn policy_to_wire(policy: &ReplicationPolicy, link: Option<&Link>) -> v1::Replicate {
    v1::Replicate {
        link: link.map(link_to_wire),
        interval: Some(duration(policy.interval())),
        bandwidth_bytes_per_second: policy.bandwidth_limit().map_or(0, |limit| limit.0),
        audit_bytes_per_second: policy.audit_rate().0,
        guest_cost_limit_percent: guest_cost_limit_percent(policy),
        app_consistent_every: policy.app_consistent().map(|wanted| duration(wanted.every())),
        freeze_limit: policy
            .app_consistent()
            .map(|wanted| duration(wanted.freeze_limit())),
    }
}

/// The limits of a link.
#[must_use]
pub fn link_to_wire(link: &Link) -> v1::LinkLimit {
    let rate = |limit: Option<ByteCount>| limit.map_or(0, |limit| limit.0);
    let hours = link.schedule().iter().map(|hours| v1::LinkHours {
        days: hours.days().iter().map(|day| day.number()).collect(),
        from_minute: hours.from().minute(),
        to_minute: hours.to().minute(),
        bytes_per_second: rate(hours.limit()),
    });
    v1::LinkLimit {
        to: link.to().to_string(),
        bytes_per_second: rate(link.bandwidth_limit()),
        hours: hours.collect(),
        connections: link.connections().unwrap_or(0),
    }
}

/// 0 without fast mode.
#[must_use]
pub fn guest_cost_limit_percent(policy: &ReplicationPolicy) -> u32 {
    policy
        .fast_mode()
        .map_or(0, |fast| fast.guest_cost_limit().number())
}

/// Which points the target is to keep by the policy.
#[must_use]
pub fn retention_to_wire(retention: &Retention) -> v1::Retention {
    v1::Retention {
        keep_all: Some(duration(retention.keep_all())),
        hourly: retention.hourly(),
        daily: retention.daily(),
        weekly: retention.weekly(),
        monthly: retention.monthly(),
        yearly: retention.yearly(),
        limit_bytes: retention.limit().map_or(0, |limit| limit.0),
    }
}

/// The volumes of a VM.
#[must_use]
pub fn volumes_to_wire(volumes: &[VolumeRecord]) -> Vec<v1::Volume> {
    volumes
        .iter()
        .map(|volume| v1::Volume {
            name: volume.name.clone(),
            size_bytes: volume.size_bytes,
        })
        .collect()
}

/// A duration as the wire has it; one that is too long becomes the longest.
#[must_use]
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

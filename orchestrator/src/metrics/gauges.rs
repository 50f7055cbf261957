//! A snapshot as gauges, in a registry of their own.

use std::time::Duration;

use prometheus::{Error, GaugeVec, IntGaugeVec, Opts, Registry, core::Collector};

use super::{ControlSnapshot, PREFIX, VmSnapshot, labels};

/// The gauges of this snapshot.
pub(super) fn registry(snapshot: &ControlSnapshot) -> Result<Registry, Error> {
    let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
    let points = PointGauges::register(&registry)?;
    let states = StateGauges::register(&registry)?;
    let progress = ProgressGauges::register(&registry)?;
    for vm in &snapshot.vms {
        points.set(vm)?;
        states.set(vm)?;
        progress.set(vm)?;
    }
    set_fleet(&registry, snapshot)?;
    set_jobs(&registry, snapshot)?;
    Ok(registry)
}

/// What can be recovered, and what would be lost.
struct PointGauges {
    timestamp: GaugeVec,
    count: IntGaugeVec,
    rpo: GaugeVec,
    rpo_target: GaugeVec,
    last_test: GaugeVec,
}

impl PointGauges {
    fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            timestamp: seconds(
                registry,
                "recovery_point_timestamp_seconds",
                "The instant of the newest recovery point of each kind, in seconds since 1970.",
                &["vm", "kind"],
            )?,
            count: number(
                registry,
                "recovery_points",
                "How many recovery points there are.",
                &["vm"],
            )?,
            rpo: seconds(
                registry,
                "rpo_seconds",
                "Seconds of data that would be lost now, never better than the truth.",
                &["vm"],
            )?,
            rpo_target: seconds(
                registry,
                "rpo_target_seconds",
                "The policy's bound for `farshore_rpo_seconds`.",
                &["vm"],
            )?,
            last_test: seconds(
                registry,
                "test_failover_last_success_timestamp_seconds",
                "When a test failover last succeeded, in seconds since 1970.",
                &["vm"],
            )?,
        })
    }

    fn set(&self, vm: &VmSnapshot) -> Result<(), Error> {
        let name = vm.name.as_str();
        for (kind, instant) in &vm.newest_points {
            let kind = labels::point_kind(*kind);
            put(&self.timestamp, &[name, &kind], instant.as_seconds())?;
        }
        put_number(&self.count, &[name], vm.recovery_points)?;
        put_duration(&self.rpo, &[name], vm.rpo)?;
        put_duration(&self.rpo_target, &[name], Some(vm.rpo_target))?;
        if let Some(instant) = vm.last_successful_test {
            put(&self.last_test, &[name], instant.as_seconds())?;
        }
        Ok(())
    }
}

/// In which state a VM is: 1 for that one, 0 for all others, so that a query can tell "no" from "unknown".
struct StateGauges {
    state: IntGaugeVec,
    health: IntGaugeVec,
}

impl StateGauges {
    fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            state: number(
                registry,
                "protection_state",
                "1 for the state that protection is in, 0 for every other.",
                &["vm", "state"],
            )?,
            health: number(
                registry,
                "replication_health",
                "1 for the health that replication has, 0 for every other.",
                &["vm", "health"],
            )?,
        })
    }

    fn set(&self, vm: &VmSnapshot) -> Result<(), Error> {
        for (state, label) in labels::protection_states() {
            let value = u64::from(vm.state == state);
            put_number(&self.state, &[&vm.name, &label], Some(value))?;
        }
        for (health, label) in labels::healths() {
            let value = u64::from(vm.health == health);
            put_number(&self.health, &[&vm.name, &label], Some(value))?;
        }
        Ok(())
    }
}

/// How replication gets on.
struct ProgressGauges {
    initial_sync: IntGaugeVec,
    last_cycle: GaugeVec,
    backlog: IntGaugeVec,
}

impl ProgressGauges {
    fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            initial_sync: number(
                registry,
                "initial_sync_bytes",
                "How many bytes of the initial sync are done, and how many there are in total.",
                &["vm", "what"],
            )?,
            last_cycle: seconds(
                registry,
                "last_cycle_duration_seconds",
                "How long the last cycle took.",
                &["vm"],
            )?,
            backlog: number(
                registry,
                "backlog_bytes",
                "Bytes that were changed and are not shipped yet.",
                &["vm"],
            )?,
        })
    }

    fn set(&self, vm: &VmSnapshot) -> Result<(), Error> {
        if let Some(sync) = vm.initial_sync {
            put_number(&self.initial_sync, &[&vm.name, "done"], Some(sync.done.0))?;
            put_number(&self.initial_sync, &[&vm.name, "total"], Some(sync.total.0))?;
        }
        put_duration(&self.last_cycle, &[&vm.name], vm.last_cycle)?;
        put_number(&self.backlog, &[&vm.name], vm.backlog.map(|bytes| bytes.0))
    }
}

fn set_fleet(registry: &Registry, snapshot: &ControlSnapshot) -> Result<(), Error> {
    let up = number(
        registry,
        "replicator_up",
        "1 if the replicator is attached and reports, else 0.",
        &["replicator", "site"],
    )?;
    for replicator in &snapshot.replicators {
        let value = u64::from(replicator.up);
        put_number(&up, &[&replicator.name, &replicator.site], Some(value))?;
    }
    let bytes = number(
        registry,
        "vault_bytes",
        "How many bytes the vault of a replicator takes, and how many its file system has left.",
        &["vault", "what"],
    )?;
    for vault in &snapshot.vaults {
        put_number(&bytes, &[&vault.name, "used"], Some(vault.used.0))?;
        put_number(&bytes, &[&vault.name, "free"], Some(vault.free.0))?;
    }
    Ok(())
}

fn set_jobs(registry: &Registry, snapshot: &ControlSnapshot) -> Result<(), Error> {
    let jobs = number(registry, "jobs", "How many jobs are in each state.", &["state"])?;
    for (state, label) in labels::job_states() {
        let count = snapshot.jobs.get(&state).copied().unwrap_or(0);
        put_number(&jobs, &[&label], Some(count))?;
    }
    Ok(())
}

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
    registered(registry, GaugeVec::new(Opts::new(name, help), labels)?)
}

fn number(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn registered<Metric: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Metric,
) -> Result<Metric, Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn put(gauge: &GaugeVec, labels: &[&str], value: f64) -> Result<(), Error> {
    gauge.get_metric_with_label_values(labels)?.set(value);
    Ok(())
}

fn put_duration(gauge: &GaugeVec, labels: &[&str], value: Option<Duration>) -> Result<(), Error> {
    match value {
        Some(duration) => put(gauge, labels, duration.as_secs_f64()),
        None => Ok(()),
    }
}

fn put_number(gauge: &IntGaugeVec, labels: &[&str], value: Option<u64>) -> Result<(), Error> {
    if let Some(value) = value {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        gauge.get_metric_with_label_values(labels)?.set(value);
    }
    Ok(())
}

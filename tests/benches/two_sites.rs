//! Two replicators on loopback, a source and a target, each a process of its own as in production.

#![allow(dead_code, reason = "what one bench does not need, another does")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{self, command::Body, command_result::Outcome};
use farshore_tests::daemon::binary;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{conductor::Conductor, process::Process};

/// The replicator beside the VM.
pub(crate) const SOURCE: &str = "east-1";
/// The replicator with the vault.
pub(crate) const TARGET: &str = "west-1";
const SYNC_PATIENCE: Duration = Duration::from_secs(180);

/// The two, and the bench that conducts them.
pub(crate) struct TwoSites {
    pub(crate) conductor: Conductor,
    pub(crate) source: Process,
    pub(crate) target: Process,
    target_endpoint: String,
    source_http: String,
    /// Dropped last: the processes use it.
    directory: TempDir,
}

/// A VM as it is to be protected.
#[derive(Debug, Clone)]
pub(crate) struct VmToProtect {
    pub(crate) machine: v1::Machine,
    pub(crate) monitor: PathBuf,
    /// The disks' sizes, in the machine's order.
    pub(crate) sizes: Vec<u64>,
    pub(crate) interval: Duration,
}

/// A VM that is protected.
#[derive(Debug, Clone)]
pub(crate) struct ProtectedVm {
    pub(crate) chain: Vec<u8>,
    /// The vault's first point of it.
    pub(crate) first: v1::RecoveryPoint,
    /// From the order that enabled replication until the first point was sealed.
    pub(crate) synced_in: Duration,
}

impl TwoSites {
    /// Starts both.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
        let conductor = Conductor::start().await?;
        let base = directory.path();
        let orchestrator = conductor.endpoint();
        let west = format!(
            "name: {TARGET}\nsite: west\nstateDirectory: {0}/w\nreplicationListen: 127.0.0.1:0\nhttpListen: \
             127.0.0.1:0\nvaultDirectory: {0}/vault\nrecoveryDirectory: {0}/r\naccelerator: tcg\norchestrator: \
             {orchestrator}\n",
            base.display()
        );
        let east = format!(
            "name: {SOURCE}\nsite: east\nstateDirectory: {0}/e\nhttpListen: 127.0.0.1:0\nscratchDirectory: \
             {0}/scratch\norchestrator: {orchestrator}\n",
            base.display()
        );
        let (target, _) = replicator(base, "west", &west)?;
        let (source, source_http) = replicator(base, "east", &east)?;
        let target_endpoint = conductor.attached(TARGET).await?;
        conductor.attached(SOURCE).await?;
        Ok(Self {
            conductor,
            source,
            target,
            target_endpoint,
            source_http,
            directory,
        })
    }

    /// A path in the bench's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Protects a VM and waits for its first point.
    pub(crate) async fn protect(&self, vm: &VmToProtect) -> anyhow::Result<ProtectedVm> {
        self.check(vm).await?;
        let volumes = vm.volumes();
        let chain = uuid::Uuid::new_v4().as_bytes().to_vec();
        let prepare = v1::PrepareTarget {
            chain: chain.clone().into(),
            vm: vm.machine.vm.clone(),
            volumes: volumes.clone(),
            holder: uuid::Uuid::new_v4().as_bytes().to_vec().into(),
            seeds: Vec::new(),
            source_endpoint: String::new(),
        };
        let prepared = self.conductor.order(TARGET, Body::PrepareTarget(prepare)).await?;
        let Outcome::TargetPrepared(prepared) = prepared else {
            bail!("{TARGET} answered {prepared:?}");
        };
        let install = v1::InstallSource {
            machine: Some(vm.machine.clone()),
            monitor: vm.monitor.display().to_string(),
            chain: chain.clone().into(),
            epoch: prepared.epoch,
            target_endpoint: self.target_endpoint.clone(),
            policy: Some(v1::Replicate {
                interval: Some(vm.interval.try_into()?),
                bandwidth_bytes_per_second: 0,
                audit_bytes_per_second: 0,
                guest_cost_limit_percent: 0,
                app_consistent_every: None,
                freeze_limit: None,
                link: None,
            }),
            volumes,
            guest_agent: String::new(),
            membership: None,
            disk_paths: Vec::new(),
        };
        self.conductor.order(SOURCE, Body::InstallSource(install)).await?;
        let ordered_at = WallTime::now();
        let enable = v1::EnableSource {
            chain: chain.clone().into(),
        };
        self.conductor.order(SOURCE, Body::EnableSource(enable)).await?;
        let first = self.first_point(&chain).await?;
        let sealed_at = first.sealed_at.context("a point without the time of its seal")?;
        let since_epoch = Duration::new(sealed_at.seconds.try_into()?, sealed_at.nanos.try_into()?);
        let synced_in = since_epoch.saturating_sub(Duration::from_secs_f64(ordered_at.as_seconds()));
        Ok(ProtectedVm {
            chain,
            first,
            synced_in,
        })
    }

    /// Ends protection; the VM is left as it was.
    pub(crate) async fn release(&self, vm: &ProtectedVm) -> anyhow::Result<()> {
        let remove = v1::RemoveSource {
            chain: vm.chain.clone().into(),
        };
        self.conductor.order(SOURCE, Body::RemoveSource(remove)).await?;
        Ok(())
    }

    /// The source's metrics, as Prometheus would scrape them.
    pub(crate) async fn source_metrics(&self) -> anyhow::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(&self.source_http).await?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.source_http
        );
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    async fn check(&self, vm: &VmToProtect) -> anyhow::Result<()> {
        let check = v1::CheckSource {
            machine: Some(vm.machine.clone()),
            monitor: vm.monitor.display().to_string(),
            watchdog_monitor: String::new(),
            disk_paths: Vec::new(),
        };
        let checked = self.conductor.order(SOURCE, Body::CheckSource(check)).await?;
        let Outcome::SourceChecked(checked) = checked else {
            bail!("{SOURCE} answered {checked:?}");
        };
        let failed: Vec<_> = checked
            .checks
            .iter()
            .filter(|check| check.outcome() == v1::CheckOutcome::Failed)
            .map(|check| &check.found)
            .collect();
        if !failed.is_empty() {
            bail!("the VM cannot be protected: {failed:?}");
        }
        Ok(())
    }

    async fn first_point(&self, chain: &[u8]) -> anyhow::Result<v1::RecoveryPoint> {
        let mut reports = self.conductor.reports(TARGET)?;
        let newest = |report: &v1::Report| {
            let target = report.targets.iter().find(|target| target.chain == chain)?;
            target.newest.clone()
        };
        let reached = reports.wait_for(|report| newest(report).is_some());
        let reached = tokio::time::timeout(SYNC_PATIENCE, reached).await;
        drop(reached.context("no first point came")??);
        // Cycles may have gone on meanwhile: the first point is asked for.
        let list = v1::ListPoints {
            chain: chain.to_vec().into(),
            limit: 0,
        };
        let listed = self.conductor.order(TARGET, Body::ListPoints(list)).await?;
        let Outcome::PointsListed(listed) = listed else {
            bail!("{TARGET} answered {listed:?}");
        };
        let first = listed.points.into_iter().find(|point| point.sequence == 1);
        first.context("the first point is not listed")
    }
}

impl VmToProtect {
    fn volumes(&self) -> Vec<v1::Volume> {
        let disks = self.machine.disks.iter().zip(&self.sizes);
        disks
            .map(|(disk, size_bytes)| v1::Volume {
                name: disk.name.clone(),
                size_bytes: *size_bytes,
            })
            .collect()
    }
}

/// Starts `farshore replicator` and waits until it listens; gives its HTTP address too.
fn replicator(directory: &Path, name: &str, configuration: &str) -> anyhow::Result<(Process, String)> {
    let path = directory.join(format!("{name}.yaml"));
    let log = directory.join(format!("{name}.log"));
    fs::write(&path, configuration)?;
    let mut command = Command::new(binary());
    command
        .args(["replicator", "--config"])
        .arg(&path)
        .env("RUST_LOG", "warn");
    let mut process = Process::start(&mut command, &log)?;
    let http = process.ready(&log, || {
        let said = fs::read_to_string(&log).ok()?;
        let listening = said.lines().find(|line| line.starts_with("listening"))?;
        let http = listening
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http="))?;
        Some(http.to_owned())
    });
    Ok((process, http))
}

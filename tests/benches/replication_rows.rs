//! The rows of the replication benchmark, and what most of them are measured on: a VM without a guest between two sites.

pub(crate) mod guest;
pub(crate) mod incremental;
pub(crate) mod large;
pub(crate) mod line;
pub(crate) mod rpo;
pub(crate) mod scattered;
pub(crate) mod sync;

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use farshore_proto::v1::{self, command::Body, command_result::Outcome};
use farshore_tests::bare_vm::{BareVm, raw_disk, virtio_disk};
use tokio::runtime::Runtime;

use crate::two_sites::{ProtectedVm, SOURCE, TARGET, TwoSites, VmToProtect};

const MIB: u64 = 1 << 20;
const CYCLE_PATIENCE: Duration = Duration::from_secs(120);
/// Of a VM without a guest.
const MEMORY_BYTES: u64 = 32 * MIB;

/// A protected VM that nobody runs a guest on; its one disk is written through its device.
struct Scene {
    runtime: Runtime,
    sites: TwoSites,
    vm: BareVm,
    protected: ProtectedVm,
}

impl Scene {
    /// An empty disk of this size, with its first point sealed.
    fn start(directory: &Path, name: &str, size_mib: u64, interval: Duration) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let disk = raw_disk(directory, name, size_mib);
        let vm = BareVm::start(directory, name, &virtio_disk("disk", "raw", &disk, ""));
        let (sites, protected) = runtime.block_on(async {
            let sites = TwoSites::start().await?;
            let protected = sites
                .protect(&VmToProtect {
                    machine: machine(name),
                    monitor: vm.monitor(),
                    sizes: vec![size_mib * MIB],
                    interval,
                })
                .await?;
            anyhow::Ok((sites, protected))
        })?;
        Ok(Self {
            runtime,
            sites,
            vm,
            protected,
        })
    }

    /// Writes to the disk as a guest would.
    fn write(&self, pattern: u8, offset: u64, length: u64) {
        self.vm.write("vddisk", pattern, offset, length);
    }

    /// The newest point that the source knows to be sealed.
    fn newest(&self) -> anyhow::Result<u64> {
        Ok(newest(&self.status_when(|_| true)?))
    }

    /// The cycle that ends next after the point `after`.
    fn cycle_after(&self, after: u64) -> anyhow::Result<v1::SourceStatus> {
        self.status_when(|status| newest(status) > after)
    }

    fn status_when(
        &self,
        mut wanted: impl FnMut(&v1::SourceStatus) -> bool,
    ) -> anyhow::Result<v1::SourceStatus> {
        let chain = &self.protected.chain;
        let find = |report: &v1::Report| {
            let source = report.sources.iter().find(|source| source.chain == *chain);
            source.cloned()
        };
        let mut reports = self.sites.conductor.reports(SOURCE)?;
        self.runtime.block_on(async {
            let reached = reports.wait_for(|report| find(report).is_some_and(|status| wanted(&status)));
            let reached = tokio::time::timeout(CYCLE_PATIENCE, reached).await;
            let report = reached.context("cycles stopped")??;
            find(&report).context("the report lost the chain")
        })
    }

    /// All points of the chain, the oldest first.
    fn points(&self) -> anyhow::Result<Vec<v1::RecoveryPoint>> {
        let list = v1::ListPoints {
            chain: self.protected.chain.clone().into(),
            limit: 0,
        };
        let ordered = self.sites.conductor.order(TARGET, Body::ListPoints(list));
        let Outcome::PointsListed(mut listed) = self.runtime.block_on(ordered)? else {
            bail!("{TARGET} answered something else");
        };
        listed.points.sort_by_key(|point| point.sequence);
        Ok(listed.points)
    }

    /// The payload bytes that the source sent so far.
    fn wire_bytes(&self) -> anyhow::Result<f64> {
        let metrics = self.runtime.block_on(self.sites.source_metrics())?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("farshore_wire_bytes_total "));
        let bytes = line.context("the source does not count its bytes")?;
        Ok(bytes.trim().parse()?)
    }
}

fn newest(status: &v1::SourceStatus) -> u64 {
    status.newest.as_ref().map_or(0, |point| point.sequence)
}

fn machine(name: &str) -> v1::Machine {
    v1::Machine {
        vm: name.to_owned(),
        uuid: String::new(),
        processors: 1,
        memory_bytes: MEMORY_BYTES,
        firmware: "bios".to_owned(),
        machine_type: "pc".to_owned(),
        disks: vec![v1::Disk {
            name: "disk".to_owned(),
            device: "vddisk".to_owned(),
            bus: "virtioBlk".to_owned(),
        }],
        nics: Vec::new(),
    }
}

/// A time of the wire, in seconds since 1970.
fn seconds(time: Option<&prost_types::Timestamp>) -> anyhow::Result<f64> {
    let time = time.context("a point without a time")?;
    Ok(time.seconds as f64 + f64::from(time.nanos) / 1e9)
}

//! How much memory both replicators need at most during an initial sync.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a bench prints its table; its figures are for people"
)]

mod conductor;
mod disk_usage;
mod figures;
mod process;
mod still_vm;
mod two_sites;

use std::{path::Path, time::Duration};

use anyhow::ensure;

use disk_usage::size_that_fits;
use figures::{Samples, Table, Target};
use process::peak_resident_bytes;
use still_vm::{Content, StillVm};
use two_sites::{TwoSites, VmToProtect};

const MIB: f64 = 1024.0 * 1024.0;
const GIB: u64 = 1 << 30;
const PEAK: Target = Target(256.0);
const ROUNDS: usize = 3;
/// No cycle comes between the first point and the end of its measurement.
const INTERVAL: Duration = Duration::from_secs(60);

const DENSE: Content = Content {
    size_bytes: GIB,
    runs: 1,
    run_bytes: GIB,
};
const SPARSE: Content = Content {
    size_bytes: 1024 * GIB,
    runs: 4096,
    run_bytes: 16 * 1024,
};

/// What one kind of disk cost.
struct Costs {
    seconds: Samples,
    source_peak_mib: f64,
    target_peak_mib: f64,
}

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let dense = sync(directory.path(), "dense", DENSE, ROUNDS).await?;
    let content = Content {
        size_bytes: size_that_fits(SPARSE.size_bytes, directory.path())?,
        ..SPARSE
    };
    let sparse = sync(directory.path(), "sparse", content, 1).await?;
    let shown = format!(
        "{} GiB, {} runs of {} KiB",
        content.size_bytes / GIB,
        content.runs,
        content.run_bytes / 1024
    );
    memory_table(
        directory.path(),
        [("1 GiB, incompressible", &dense), (&shown, &sparse)],
    );
    Ok(())
}

/// Replicates a disk with `content` some times, each time into a new chain.
async fn sync(directory: &Path, name: &str, content: Content, rounds: usize) -> anyhow::Result<Costs> {
    let image = directory.join(format!("{name}.raw"));
    content.write(&image)?;
    let vm = StillVm::start(directory, name, &image)?;
    let sites = TwoSites::start().await?;
    let mut costs = Costs {
        seconds: Samples::default(),
        source_peak_mib: 0.0,
        target_peak_mib: 0.0,
    };
    for _ in 0..rounds {
        let protected = sites
            .protect(&VmToProtect {
                machine: vm.machine(),
                monitor: vm.monitor.clone(),
                sizes: vec![content.size_bytes],
                interval: INTERVAL,
            })
            .await?;
        ensure!(
            protected.first.changed_bytes >= content.data_bytes(),
            "the first point has {} of {} bytes",
            protected.first.changed_bytes,
            content.data_bytes()
        );
        costs.seconds.add(protected.synced_in.as_secs_f64());
        sites.release(&protected).await?;
    }
    costs.source_peak_mib = peak_resident_bytes(sites.source.pid())? as f64 / MIB;
    costs.target_peak_mib = peak_resident_bytes(sites.target.pid())? as f64 / MIB;
    Ok(costs)
}

fn memory_table(directory: &Path, disks: [(&str, &Costs); 2]) {
    let title = "memory: peak resident memory (VmHWM) over initial syncs";
    let head = ["disk", "syncs", "seconds", "replicator", "peak MiB", "target", ""];
    let mut table = Table::new(title, &head);
    for (disk, costs) in disks {
        let syncs = costs.seconds.count().to_string();
        let seconds = format!("{:.2}", costs.seconds.median());
        for (replicator, peak) in [
            ("source", costs.source_peak_mib),
            ("target", costs.target_peak_mib),
        ] {
            let shown = format!("{peak:.0}");
            let target = format!("< {:.0}", PEAK.0);
            let verdict = PEAK.verdict(peak);
            table.row(&[disk, &syncs, &seconds, replicator, &shown, &target, verdict]);
        }
    }
    table.print(directory, &[]);
}

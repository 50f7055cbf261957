//! How long it takes from the order until a recovered VM runs, by the size of its disk.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    reason = "a bench prints its table; what fails in it fails by panicking"
)]

mod conductor;
mod figures;
mod process;
mod still_vm;
mod two_sites;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use farshore_proto::v1::{self, command::Body, command_result::Outcome, start_recovery};
use farshore_qmp::{ConnectOptions, Monitor};
use serde_json::Value;

use figures::{Samples, Table, Target};
use process::peak_resident_bytes;
use still_vm::{Content, StillVm};
use two_sites::{ProtectedVm, TARGET, TwoSites, VmToProtect};

const GIB: u64 = 1 << 30;
const ORDER_TO_RUNNING: Target = Target(2000.0);
const ROUNDS: usize = 7;
const INTERVAL: Duration = Duration::from_secs(60);
/// 16 MiB of data, wherever the disk ends.
const RUNS: u64 = 256;
const RUN_BYTES: u64 = 64 * 1024;

/// A disk's size and what starting from it took.
struct Case {
    shown: &'static str,
    size_bytes: u64,
    order_to_running: Samples,
}

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let sites = TwoSites::start().await?;
    let mut cases =
        [("256 MiB", GIB / 4), ("4 GiB", 4 * GIB), ("64 GiB", 64 * GIB)].map(|(shown, size_bytes)| Case {
            shown,
            size_bytes,
            order_to_running: Samples::default(),
        });
    let mut protected = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        protected.push(protect(&sites, directory.path(), &format!("vm{number}"), case.size_bytes).await?);
    }
    // Sizes take turns, so that whatever else the machine does meets all of them.
    for round in 0..ROUNDS {
        for (number, (case, vm)) in cases.iter_mut().zip(&protected).enumerate() {
            let took = recover(&sites, vm, &format!("b{number}-{round}")).await?;
            case.order_to_running.add_milliseconds(took);
        }
    }
    let title =
        "recovery: from the order to the replicator until the VM's processors run, in a bubble of its own";
    let head = ["disk", "starts", "median ms", "spread ms", "target", ""];
    let mut table = Table::new(title, &head);
    for case in &cases {
        let samples = &case.order_to_running;
        table.row(&[
            case.shown,
            &samples.count().to_string(),
            &format!("{:.0}", samples.median()),
            &samples.spread(0),
            &format!("< {:.0}", ORDER_TO_RUNNING.0),
            ORDER_TO_RUNNING.verdict(samples.median()),
        ]);
    }
    let peak = peak_resident_bytes(sites.target.pid())? >> 20;
    let note = format!(
        "The order includes the export's start and the proof that the bubble is isolated. The target's replicator had at most {peak} MiB."
    );
    table.print(directory.path(), &[&note]);
    Ok(())
}

/// Protects a VM without a guest until it has a point, and lets it go.
async fn protect(
    sites: &TwoSites,
    directory: &Path,
    name: &str,
    size_bytes: u64,
) -> anyhow::Result<ProtectedVm> {
    let image = directory.join(format!("{name}.raw"));
    let content = Content {
        size_bytes,
        runs: RUNS,
        run_bytes: RUN_BYTES,
    };
    content.write(&image)?;
    let vm = StillVm::start(directory, name, &image)?;
    let protected = sites
        .protect(&VmToProtect {
            machine: vm.machine(),
            monitor: vm.monitor.clone(),
            interval: INTERVAL,
        })
        .await?;
    ensure!(
        protected.first.changed_bytes >= content.data_bytes(),
        "the point is not whole"
    );
    sites.release(&protected).await?;
    Ok(protected)
}

/// Starts a VM from the point, sees that it runs, and removes it.
async fn recover(sites: &TwoSites, vm: &ProtectedVm, id: &str) -> anyhow::Result<Duration> {
    let start = v1::StartRecovery {
        recovery_id: id.to_owned(),
        chain: vm.chain.clone().into(),
        sequence: vm.first.sequence,
        network: Some(start_recovery::Network::Bubble(id.to_owned())),
    };
    let ordered = Instant::now();
    let started = sites.conductor.order(TARGET, Body::StartRecovery(start)).await;
    let took = ordered.elapsed();
    let seen = match started {
        Ok(Outcome::RecoveryStarted(started)) => see_running(&started, vm).await,
        Ok(other) => bail!("{TARGET} answered {other:?}"),
        Err(error) => Err(error),
    };
    let discard = v1::DiscardRecovery {
        recovery_id: id.to_owned(),
    };
    let discarded = sites
        .conductor
        .order(TARGET, Body::DiscardRecovery(discard))
        .await;
    seen?;
    let Outcome::RecoveryDiscarded(discarded) = discarded? else {
        bail!("{TARGET} did not discard the VM");
    };
    ensure!(discarded.leaks.is_empty(), "left behind: {:?}", discarded.leaks);
    Ok(took)
}

/// Asks QEMU itself.
async fn see_running(started: &v1::RecoveryStarted, vm: &ProtectedVm) -> anyhow::Result<()> {
    ensure!(
        started.ways_out.is_empty(),
        "the bubble leads out: {:?}",
        started.ways_out
    );
    let monitor = Monitor::connect(Path::new(&started.monitor), ConnectOptions::default()).await?;
    let status = monitor.execute("query-status", Value::Null).await?;
    let running = status.get("running").and_then(Value::as_bool);
    ensure!(
        running == Some(true),
        "the VM of {:?} does not run: {status}",
        vm.chain
    );
    Ok(())
}

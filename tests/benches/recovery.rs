//! How long it takes from the order until a recovered VM runs, by the size of its disk: ordered of the target's
//! replicator alone, and ordered by a user of the whole product.

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

use anyhow::{Context, bail, ensure};
use farshore_proto::v1::{self, command::Body, command_result::Outcome, start_recovery};
use farshore_qmp::{ConnectOptions, Monitor};
use farshore_tests::{
    Lab,
    lab::{LabOptions, SYNC},
};
use serde_json::Value;

use figures::{Samples, Table, Target};
use process::peak_resident_bytes;
use still_vm::{Content, StillVm};
use two_sites::{ProtectedVm, TARGET, TwoSites, VmToProtect};

const GIB: u64 = 1 << 30;
const ORDER_TO_RUNNING: Target = Target(2000.0);
const ROUNDS: usize = 5;
const INTERVAL: Duration = Duration::from_secs(60);
/// 16 MiB of data, wherever the disk ends.
const RUNS: u64 = 256;
const RUN_BYTES: u64 = 64 * 1024;

/// A disk's size and what starting from it took.
struct Case {
    shown: &'static str,
    name: String,
    size_bytes: u64,
    by_replicator: Samples,
    by_user: Samples,
}

fn main() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let sizes = [("256 MiB", GIB / 4), ("4 GiB", 4 * GIB), ("64 GiB", 64 * GIB)];
    let mut cases = sizes.map(|(shown, size_bytes)| Case {
        shown,
        name: format!("vm-{}", shown.to_lowercase().replace(' ', "")),
        size_bytes,
        by_replicator: Samples::default(),
        by_user: Samples::default(),
    });
    let runtime = tokio::runtime::Runtime::new()?;
    let peak_mib = runtime.block_on(order_of_replicator(directory.path(), &mut cases))?;
    order_as_user(&mut cases)?;
    recovery_table(directory.path(), &cases, peak_mib);
    Ok(())
}

fn recovery_table(directory: &Path, cases: &[Case], peak_mib: u64) {
    let title = "recovery: from the order until the VM's processors run, in a bubble of its own";
    let head = [
        "ordered",
        "disk",
        "starts",
        "median ms",
        "spread ms",
        "target",
        "",
    ];
    let mut table = Table::new(title, &head);
    let of_replicator = cases
        .iter()
        .map(|case| ("of the replicator", case, &case.by_replicator));
    let as_user = cases
        .iter()
        .map(|case| ("by `failover test --wait`", case, &case.by_user));
    for (ordered, case, samples) in of_replicator.chain(as_user) {
        table.row(&[
            ordered,
            case.shown,
            &samples.count().to_string(),
            &format!("{:.0}", samples.median()),
            &samples.spread(0),
            &format!("< {:.0}", ORDER_TO_RUNNING.0),
            ORDER_TO_RUNNING.verdict(samples.median()),
        ]);
    }
    let peak = format!("The target's replicator had at most {peak_mib} MiB.");
    let parts = "Both include the export's start and the proof that the bubble is isolated; the user's order also the \
                 command line, the orchestrator and its durable job, to the end of the wait.";
    table.print(directory, &[parts, &peak]);
}

/// Sizes take turns, so that whatever else the machine does meets all of them.
async fn order_of_replicator(directory: &Path, cases: &mut [Case]) -> anyhow::Result<u64> {
    let sites = TwoSites::start().await?;
    let mut protected = Vec::new();
    for case in &*cases {
        protected.push(protect(&sites, directory, case).await?);
    }
    for round in 0..ROUNDS {
        for (number, (case, vm)) in cases.iter_mut().zip(&protected).enumerate() {
            let took = recover(&sites, vm, &format!("b{number}-{round}")).await?;
            case.by_replicator.add_milliseconds(took);
        }
    }
    Ok(peak_resident_bytes(sites.target.pid())? >> 20)
}

/// The same by the command line and an orchestrator, between two sites in namespaces of their own.
fn order_as_user(cases: &mut [Case]) -> anyhow::Result<()> {
    let lab = Lab::start(LabOptions::default());
    let mut vms = Vec::new();
    for case in &*cases {
        let vm = start_vm(&lab.path(""), case)?;
        let declared = format!(
            "apiVersion: farshore/v1\nkind: ProtectedVm\nmetadata: {{name: {name}}}\nspec:\n  policy: gold\n  \
             source: {{site: east, monitor: {monitor}}}\n  target: {{site: west, network: production}}\n  machine:\n    \
             processors: 1\n    memory: {memory}MiB\n    firmware: bios\n    machineType: pc\n    disks:\n    \
             - {{name: disk, device: vd0}}\n",
            name = case.name,
            monitor = vm.monitor.display(),
            memory = still_vm::MEMORY_MIB,
        );
        let _ = lab.apply(&declared).done();
        vms.push(vm);
    }
    for case in &*cases {
        lab.cli.vm_in(&case.name, "Protected", SYNC);
    }
    for _ in 0..ROUNDS {
        for case in &mut *cases {
            let ordered = Instant::now();
            let order = ["failover", "test", case.name.as_str(), "--wait", "-o", "json"];
            let test = lab.cli.run(&order).done().json();
            case.by_user.add_milliseconds(ordered.elapsed());
            let test = test.get(0).unwrap_or(&test);
            ensure!(
                test.get("state").and_then(Value::as_str) == Some("Running"),
                "the test does not run: {test:#}"
            );
            let name = test.get("name").and_then(Value::as_str);
            let name = name.context("the test has no name")?;
            let _ = lab.cli.run(&["failover", "cleanup", name, "--wait"]).done();
        }
    }
    Ok(())
}

/// Protects a VM without a guest until it has a point, and lets it go.
async fn protect(sites: &TwoSites, directory: &Path, case: &Case) -> anyhow::Result<ProtectedVm> {
    let vm = start_vm(directory, case)?;
    let protected = sites
        .protect(&VmToProtect {
            machine: vm.machine(),
            monitor: vm.monitor.clone(),
            sizes: vec![case.size_bytes],
            interval: INTERVAL,
        })
        .await?;
    ensure!(
        protected.first.changed_bytes >= RUNS * RUN_BYTES,
        "the point is not whole"
    );
    sites.release(&protected).await?;
    Ok(protected)
}

fn start_vm(directory: &Path, case: &Case) -> anyhow::Result<StillVm> {
    let image = directory.join(format!("{}.raw", case.name));
    let content = Content {
        size_bytes: case.size_bytes,
        runs: RUNS,
        run_bytes: RUN_BYTES,
    };
    content.write(&image)?;
    StillVm::start(directory, &case.name, &image)
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

//! How much memory both replicators need at most during an initial sync, and how fast it is beside `nbdcopy`.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a bench prints its table; its figures are for people"
)]

mod conductor;
mod figures;
mod process;
mod still_vm;
mod two_sites;

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;

use figures::{Samples, Table, Target};
use process::{Process, peak_resident_bytes};
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
/// Of a disk's size must be free where the source keeps its scratch, or the VM is refused.
const SCRATCH_SHARE: u64 = 20;

/// What one kind of disk cost.
struct Costs {
    gigabytes_per_second: Samples,
    seconds: Samples,
    source_peak_mib: f64,
    target_peak_mib: f64,
}

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let mut nbdcopy = Samples::default();
    let dense = sync(directory.path(), "dense", DENSE, ROUNDS, |image| {
        nbdcopy.add(gigabytes_per_second(
            DENSE.data_bytes(),
            copy_by_nbd(directory.path(), image)?,
        ));
        Ok(())
    })
    .await?;
    let content = that_fits(SPARSE, directory.path())?;
    let sparse = sync(directory.path(), "sparse", content, 1, |_| Ok(())).await?;
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
    throughput_table(directory.path(), &dense, &nbdcopy);
    Ok(())
}

/// The same on a smaller disk, if this file system has no room for the scratch of one so large.
fn that_fits(mut content: Content, directory: &Path) -> anyhow::Result<Content> {
    let room = rustix::fs::statvfs(directory)?;
    // Others may take some of it meanwhile.
    let free = room.f_bavail * room.f_frsize / 10 * 9;
    while content.size_bytes / SCRATCH_SHARE > free {
        content.size_bytes /= 2;
    }
    Ok(content)
}

/// Replicates a disk with `content` some times, each time into a new chain; `beside` runs after each.
async fn sync(
    directory: &Path,
    name: &str,
    content: Content,
    rounds: usize,
    mut beside: impl FnMut(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<Costs> {
    let image = directory.join(format!("{name}.raw"));
    content.write(&image)?;
    let vm = StillVm::start(directory, name, &image)?;
    let sites = TwoSites::start().await?;
    let mut costs = Costs {
        gigabytes_per_second: Samples::default(),
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
        let rate = gigabytes_per_second(content.data_bytes(), protected.synced_in);
        costs.gigabytes_per_second.add(rate);
        sites.release(&protected).await?;
        beside(&image)?;
    }
    costs.source_peak_mib = peak_resident_bytes(sites.source.pid())? as f64 / MIB;
    costs.target_peak_mib = peak_resident_bytes(sites.target.pid())? as f64 / MIB;
    Ok(costs)
}

/// The same bytes from a unix socket to a TCP port by standard tools, durable at the end.
fn copy_by_nbd(directory: &Path, image: &Path) -> anyhow::Result<Duration> {
    let socket = directory.join("nbdkit.sock");
    let copy = directory.join("copy.raw");
    File::create(&copy)?.set_len(fs::metadata(image)?.len())?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let log = directory.join("nbdkit.log");
    let mut from = Command::new("nbdkit");
    from.args(["--foreground", "--readonly", "--unix"])
        .arg(&socket)
        .arg("file")
        .arg(image);
    let mut from = Process::start(&mut from, &log)?;
    from.ready(&log, || UnixStream::connect(&socket).ok());
    let mut to = Command::new("nbdkit");
    to.args(["--foreground", "--ipaddr", "127.0.0.1", "--port"])
        .arg(port.to_string())
        .arg("file")
        .arg(&copy);
    let mut to = Process::start(&mut to, &log)?;
    to.ready(&log, || TcpStream::connect(("127.0.0.1", port)).ok());
    let began = Instant::now();
    let copied = Command::new("nbdcopy")
        .arg("--flush")
        .arg(format!("nbd+unix:///?socket={}", socket.display()))
        .arg(format!("nbd://127.0.0.1:{port}"))
        .status()?;
    let took = began.elapsed();
    ensure!(copied.success(), "nbdcopy: {copied}");
    drop((from, to));
    fs::remove_file(&socket)?;
    fs::remove_file(copy)?;
    Ok(took)
}

fn gigabytes_per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e9 / took.as_secs_f64()
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

fn throughput_table(directory: &Path, dense: &Costs, nbdcopy: &Samples) {
    let title = "throughput: 1 GiB of incompressible data, in the page cache, until it is durable";
    let head = ["what", "runs", "median GB/s", "spread GB/s", "ratio"];
    let mut table = Table::new(title, &head);
    let rate = &dense.gigabytes_per_second;
    let ratio = format!("{:.2}", rate.median() / nbdcopy.median());
    for (what, samples, ratio) in [
        ("nbdcopy --flush, nbdkit to nbdkit", nbdcopy, "1.00"),
        ("initial sync, order to sealed point", rate, &ratio),
    ] {
        table.row(&[
            what,
            &samples.count().to_string(),
            &format!("{:.2}", samples.median()),
            &samples.spread(2),
            ratio,
        ]);
    }
    table.print(
        directory,
        &["The sync checks every byte (crc32, blake3) and proves the point; nbdcopy copies."],
    );
}

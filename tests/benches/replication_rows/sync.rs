//! The initial sync of a whole disk, from the order until its first point is sealed, beside `nbdcopy` and `cp`.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;

use crate::{
    comparison::{Aim, Pair, Row, in_turns},
    figures::Samples,
    process::{Process, processor_seconds, processor_seconds_of},
    still_vm::{Content, StillVm},
    two_sites::{TwoSites, VmToProtect},
};

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 5;
const SPARSE_ROUNDS: usize = 3;
/// No cycle comes between the first point and the end of its measurement.
const INTERVAL: Duration = Duration::from_secs(3600);

const DENSE: Content = Content {
    size_bytes: 4 * GIB,
    runs: 1,
    run_bytes: 4 * GIB,
};
/// A quarter is data; of the rest one half is holes and the other is made zeroes.
const SPARSE: Content = Content {
    size_bytes: 4 * GIB,
    runs: 1024,
    run_bytes: MIB,
};
const MIB: u64 = 1 << 20;

/// What one run took.
struct Run {
    wall: Duration,
    /// Of everyone who took part.
    processor_seconds: f64,
}

/// What one sync took, and sent.
struct Synced {
    run: Run,
    wire_bytes: f64,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let image = directory.join("dense.raw");
    DENSE.write(&image)?;
    let vm = StillVm::start(directory, "dense", &image)?;
    let beside = "nbdcopy --flush, nbdkit to nbdkit";
    let mut speed = Row::beside(
        "initial sync, 4 GiB dense",
        "GB/s",
        Aim::RatioAtLeast(1.0),
        beside,
    );
    let mut cost = Row::beside("the same, processors", "s/GiB", Aim::None, beside);
    let mut local = Row::beside("the same", "GB/s", Aim::RatioAtLeast(0.7), "cp, then sync");
    let rate = |wall: Duration| DENSE.data_bytes() as f64 / 1e9 / wall.as_secs_f64();
    let per_gib = |run: &Run| run.processor_seconds * GIB as f64 / DENSE.data_bytes() as f64;
    let mut dense_seconds = Samples::default();
    let (mut copies, mut rates) = (Vec::new(), Vec::new());
    in_turns(
        ROUNDS,
        || Ok(synced(&runtime, &vm, DENSE)?.run),
        || {
            copies.push(rate(copied(directory, &image)?));
            copied_by_nbd(directory, &image)
        },
        |pair| {
            dense_seconds.add(pair.ours.wall.as_secs_f64());
            speed.add(Pair {
                ours: rate(pair.ours.wall),
                theirs: rate(pair.theirs.wall),
            });
            cost.add(Pair {
                ours: per_gib(&pair.ours),
                theirs: per_gib(&pair.theirs),
            });
            rates.push(rate(pair.ours.wall));
        },
    )?;
    drop(vm);
    fs::remove_file(image)?;
    for (ours, theirs) in rates.iter().zip(&copies) {
        local.add(Pair {
            ours: *ours,
            theirs: *theirs,
        });
    }
    let mut rows = vec![speed, cost, local];
    rows.extend(sparse(directory, &runtime, dense_seconds.median())?);
    Ok(rows)
}

fn sparse(directory: &Path, runtime: &Runtime, dense_seconds: f64) -> anyhow::Result<Vec<Row>> {
    let image = directory.join("sparse.raw");
    SPARSE.write(&image)?;
    make_zeroes(&image)?;
    let vm = StillVm::start(directory, "sparse", &image)?;
    let mut time = Row::beside(
        "initial sync, 4 GiB, 75 % holes and zeroes",
        "s",
        Aim::RatioAtMost(0.35),
        "dense",
    );
    let mut wire = Samples::default();
    for _ in 0..SPARSE_ROUNDS {
        let synced = synced(runtime, &vm, SPARSE)?;
        time.add(Pair {
            ours: synced.run.wall.as_secs_f64(),
            theirs: dense_seconds,
        });
        wire.add(synced.wire_bytes / SPARSE.data_bytes() as f64);
    }
    let wire = Row::alone(
        "the same, sent for each byte that is not zero",
        "B/B",
        Aim::AtMost(1.01),
        wire,
    );
    Ok(vec![time, wire])
}

/// Every other hole becomes zeroes that are written.
fn make_zeroes(image: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(image)?;
    let distance = SPARSE.size_bytes / SPARSE.runs;
    let zeroes = vec![0; usize::try_from(distance - SPARSE.run_bytes)?];
    for run in (0..SPARSE.runs).step_by(2) {
        file.write_all_at(&zeroes, run * distance + SPARSE.run_bytes)?;
    }
    Ok(file.sync_all()?)
}

/// Replicates the disk into a vault of its own.
fn synced(runtime: &Runtime, vm: &StillVm, content: Content) -> anyhow::Result<Synced> {
    rustix::fs::sync();
    let qemu_before = processor_seconds_of(vm.pid())?;
    let before = processor_seconds()?;
    let (wall, wire_bytes) = runtime.block_on(async {
        let sites = TwoSites::start().await?;
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
            "the first point has {} bytes",
            protected.first.changed_bytes
        );
        let metrics = sites.source_metrics().await?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("farshore_wire_bytes_total "));
        let wire_bytes: f64 = line
            .context("the source does not count its bytes")?
            .trim()
            .parse()?;
        sites.release(&protected).await?;
        anyhow::Ok((protected.synced_in, wire_bytes))
    })?;
    // The replicators have been waited for by now.
    let ours = processor_seconds()? - before;
    let qemu = processor_seconds_of(vm.pid())? - qemu_before;
    Ok(Synced {
        run: Run {
            wall,
            processor_seconds: ours + qemu,
        },
        wire_bytes,
    })
}

fn copied(directory: &Path, image: &Path) -> anyhow::Result<Duration> {
    rustix::fs::sync();
    let copy = directory.join("local.raw");
    let began = Instant::now();
    // A file system that shares blocks would copy nothing.
    let copied = Command::new("cp")
        .arg("--reflink=never")
        .arg(image)
        .arg(&copy)
        .status()?;
    let synced = Command::new("sync").arg(&copy).arg(directory).status()?;
    let took = began.elapsed();
    ensure!(
        copied.success() && synced.success(),
        "cp: {copied}, sync: {synced}"
    );
    fs::remove_file(copy)?;
    Ok(took)
}

/// The same bytes from a unix socket to a TCP port by standard tools, durable at the end.
fn copied_by_nbd(directory: &Path, image: &Path) -> anyhow::Result<Run> {
    rustix::fs::sync();
    let before = processor_seconds()?;
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
    let wall = began.elapsed();
    ensure!(copied.success(), "nbdcopy: {copied}");
    drop((from, to));
    fs::remove_file(&socket)?;
    fs::remove_file(copy)?;
    Ok(Run {
        wall,
        processor_seconds: processor_seconds()? - before,
    })
}

//! The initial sync of compressible data over a long line, beside `rsync` over the same one.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use farshore_tests::{
    Lab,
    bare_vm::{BareVm, document, qcow2_disk, virtio_disk},
    lab::LabOptions,
    wan::{WanOptions, Way},
};

use super::MIB;
use crate::{
    comparison::{Aim, Pair, Row},
    figures::Samples,
    process::Process,
};

const IMAGE_BYTES: u64 = 512 * MIB;
const ROUND_TRIP: Duration = Duration::from_millis(40);
/// 200 Mbit/s.
const BYTES_PER_SECOND: u64 = 25_000_000;
const ROUNDS: usize = 3;
/// The stream is under way when so much has passed: commands and reports are far less.
const UNDER_WAY_BYTES: u64 = MIB;
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const EAST: &str = "10.91.0.1";
const WEST: &str = "10.91.0.2";
const RSYNC_PORT: &str = "8730";

/// What one transfer took.
struct Transfer {
    wall: Duration,
    /// What passed the line meanwhile.
    line_bytes: u64,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let image = directory.join("root.raw");
    program_text(&image)?;
    let mut lab = Lab::start(LabOptions {
        interval: "1h".to_owned(),
        rpo_target: "2h".to_owned(),
        wan: Some(WanOptions::even(ROUND_TRIP, BYTES_PER_SECOND)),
        ..LabOptions::default()
    });
    let data = qcow2_disk(directory, "db", 8);
    let disks = [
        virtio_disk("root", "raw", &image, ""),
        virtio_disk("data", "qcow2", &data, ""),
    ];
    let _ = lab.adopt_bare(BareVm::start(directory, "db", &disks.concat()));
    let daemon = RsyncDaemon::start(&lab, directory)?;
    let rate = |transfer: &Transfer| IMAGE_BYTES as f64 / 1e6 / transfer.wall.as_secs_f64();
    let name = "initial sync, 512 MiB, 200 Mbit/s, 40 ms";
    let mut plain = Row::beside(name, "MB/s", Aim::RatioAtLeast(1.5), "rsync --inplace");
    let mut compressed = Row::beside("the same", "MB/s", Aim::RatioAtLeast(1.0), "rsync --inplace -z");
    let (mut used, mut used_by_rsync) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let theirs = daemon.send(&lab, &image, &[])?;
        let ours = synced(&lab)?;
        let theirs_compressed = daemon.send(&lab, &image, &["-z"])?;
        plain.add(Pair {
            ours: rate(&ours),
            theirs: rate(&theirs),
        });
        compressed.add(Pair {
            ours: rate(&ours),
            theirs: rate(&theirs_compressed),
        });
        used.add(share_used(&ours));
        used_by_rsync.add(share_used(&theirs));
    }
    Ok(vec![
        plain,
        compressed,
        Row::alone("the same, share of the line used", "", Aim::AtLeast(0.95), used),
        Row::alone(
            "rsync --inplace, share of the line used",
            "",
            Aim::None,
            used_by_rsync,
        ),
    ])
}

fn share_used(transfer: &Transfer) -> f64 {
    transfer.line_bytes as f64 / transfer.wall.as_secs_f64() / BYTES_PER_SECOND as f64
}

/// What programs are made of, one after the other.
fn program_text(image: &Path) -> anyhow::Result<()> {
    let mut out = File::create(image)?;
    let mut left = IMAGE_BYTES;
    for directory in [
        "/usr/bin",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/sbin",
        "/usr/libexec",
    ] {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file() && !file.is_symlink()) {
            let mut bytes = Vec::new();
            BufReader::new(File::open(file)?)
                .take(left)
                .read_to_end(&mut bytes)?;
            if bytes.starts_with(b"\x7fELF") {
                out.write_all(&bytes)?;
                left -= bytes.len() as u64;
            }
        }
    }
    ensure!(left == 0, "this machine's programs are {left} bytes too short");
    Ok(out.sync_all()?)
}

/// One initial sync, from its first MiB on the line until its point is sealed.
fn synced(lab: &Lab) -> anyhow::Result<Transfer> {
    let monitor = lab.bare("db").monitor();
    let passed = || lab.wan().counts(Way::There).bytes;
    let before = passed();
    let _ = lab.apply(&document("db", &monitor)).done();
    let deadline = Instant::now() + PATIENCE;
    while passed() < before + UNDER_WAY_BYTES {
        ensure!(Instant::now() < deadline, "no sync began");
        thread::sleep(LOOK_EVERY);
    }
    let (began, from) = (farshore_blocks::clock::WallTime::now(), passed());
    // What passes after the seal is little, so that this need not be looked at often.
    lab.cli.vm_in("db", "Protected", PATIENCE);
    let to = passed();
    let points = lab.cli.run(&["get", "points", "db", "-o", "json"]).done().json();
    let first = points["items"].as_array().and_then(|items| items.last().cloned());
    let first = first.context("no point")?;
    let Some(sealed_at) = first["sealedAt"].as_str() else {
        bail!("a point without the time of its seal: {first}");
    };
    let sealed_at: jiff::Timestamp = sealed_at.parse()?;
    let sealed_at = sealed_at.as_nanosecond() as f64 / 1e9;
    let wall = Duration::from_secs_f64(sealed_at - began.as_seconds());
    lab.delete_vm("db");
    Ok(Transfer {
        wall,
        line_bytes: to - from,
    })
}

/// An `rsync` that listens in the west.
struct RsyncDaemon {
    _process: Process,
    copies: PathBuf,
}

impl RsyncDaemon {
    fn start(lab: &Lab, directory: &Path) -> anyhow::Result<Self> {
        let copies = directory.join("copies");
        fs::create_dir(&copies)?;
        let configuration = directory.join("rsyncd.conf");
        fs::write(
            &configuration,
            format!(
                "use chroot = false\nuid = 0\ngid = 0\n[copies]\npath = {}\nread only = false\n",
                copies.display()
            ),
        )?;
        let log = directory.join("rsyncd.log");
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", lab.west_network()))
            .args([
                "--",
                "rsync",
                "--daemon",
                "--no-detach",
                "--address",
                WEST,
                "--port",
                RSYNC_PORT,
            ])
            .arg(format!("--config={}", configuration.display()));
        let mut process = Process::start(&mut command, &log)?;
        let east = lab.east_network().to_owned();
        process.ready(&log, || {
            let listed = Command::new("nsenter")
                .arg(format!("--net=/run/netns/{east}"))
                .args(["--", "rsync", &format!("rsync://{WEST}:{RSYNC_PORT}/")])
                .output()
                .ok()?;
            listed.status.success().then_some(())
        });
        Ok(Self {
            _process: process,
            copies,
        })
    }

    fn send(&self, lab: &Lab, image: &Path, arguments: &[&str]) -> anyhow::Result<Transfer> {
        let before = lab.wan().counts(Way::There).bytes;
        let began = Instant::now();
        let sent = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", lab.east_network()))
            .args(["--", "rsync", "--inplace", "--address", EAST])
            .args(arguments)
            .arg(image)
            .arg(format!("rsync://{WEST}:{RSYNC_PORT}/copies/copy.raw"))
            .status()?;
        let wall = began.elapsed();
        ensure!(sent.success(), "rsync: {sent}");
        let line_bytes = lab.wan().counts(Way::There).bytes - before;
        fs::remove_file(self.copies.join("copy.raw"))?;
        Ok(Transfer { wall, line_bytes })
    }
}

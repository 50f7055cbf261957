//! A cycle beside an incremental backup of libvirt's world, `virtnbdbackup`, after the same change: how long it takes,
//! what it reads of the guest's disks, and how long it holds the guest's writes.
//!
//! Two guests that are alike run side by side, one under a libvirtd of the bench's own, and write a little all the time.
//! The change is written to both from outside, through the devices.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use farshore_guest::{image::GuestDisks, machine::DiskFormat};
use farshore_proto::v1;
use farshore_tests::spare_monitor::SpareMonitor;
use serde_json::json;
use tokio::runtime::Runtime;

use super::MIB;
use crate::{
    comparison::{Aim, Pair, Row, in_turns},
    disk_usage::apparent_bytes,
    guest_vm::{GuestOrder, GuestVm, see_unharmed},
    libvirt_host::LibvirtHost,
    noise::Noise,
    process::bytes_read_by,
    two_sites::{ProtectedVm, SOURCE, TwoSites},
};

const ROUNDS: usize = 7;
const DATA_BYTES: u64 = 4 << 30;
/// Behind everything that the guest has on the disk.
const FREE_FROM_MIB: u64 = 512;
const CHANGED_MIB: u64 = 64;
/// Each is written to both disks: a hold of more than 5 ms meets a write.
const RECORDS_PER_SECOND: u32 = 200;
/// The backup is over before the next cycle begins.
const INTERVAL: Duration = Duration::from_secs(5);
/// The guest is listened to for about as long as a backup takes, not since the change was written.
const LISTEN_BEFORE: Duration = Duration::from_secs(2);
const CYCLE_PATIENCE: Duration = Duration::from_secs(60);
const BESIDE: &str = "virtnbdbackup -l inc";

/// What one of them took.
struct Taken {
    seconds: f64,
    /// Of all disks, for each byte that it took along.
    read: f64,
    longest_write_milliseconds: f64,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let order = GuestOrder {
        data_bytes: DATA_BYTES,
        data_format: DiskFormat::Qcow2,
        ..GuestOrder::small(RECORDS_PER_SECOND)
    };
    let mut host = LibvirtHost::start(&made(directory, "libvirt")?)?;
    host.start_guest(&qcow2_images(&made(directory, "theirs")?, &order)?)?;
    let place = made(directory, "ours")?;
    let guest = GuestVm::start_on(&place, order, &qcow2_images(&place, &order)?)?;
    let mut ours = Ours::protect(guest)?;
    host.back_up("full")?;
    let what = format!(
        "incremental, {CHANGED_MIB} MiB changed of two disks of {} GiB",
        DATA_BYTES >> 30
    );
    let mut took = Row::beside(&what, "s", Aim::RatioAtMost(1.0), BESIDE);
    let mut read = Row::beside(
        "of it: read of the disks, for each byte taken",
        "B/B",
        Aim::None,
        BESIDE,
    );
    let mut held = Row::beside("the guest's longest write meanwhile", "ms", Aim::None, BESIDE);
    let (mut noise, mut more) = (Noise::new(8), Noise::new(8));
    in_turns(
        ROUNDS,
        || ours.cycle(&mut noise),
        || backed_up(&host, &mut more),
        |pair| {
            let both = |figure: fn(&Taken) -> f64| Pair {
                ours: figure(&pair.ours),
                theirs: figure(&pair.theirs),
            };
            took.add(both(|taken| taken.seconds));
            read.add(both(|taken| taken.read));
            held.add(both(|taken| taken.longest_write_milliseconds));
        },
    )?;
    ours.guest.see_unharmed()?;
    see_unharmed(&host.witness())?;
    Ok(vec![took, read, held])
}

/// The guest that is protected.
struct Ours {
    runtime: Runtime,
    sites: TwoSites,
    protected: ProtectedVm,
    guest: GuestVm,
}

impl Ours {
    fn protect(guest: GuestVm) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let sites = runtime.block_on(TwoSites::start())?;
        let vm = guest.to_protect(guest.monitor()?, INTERVAL);
        let protected = runtime.block_on(sites.protect(&vm))?;
        Ok(Self {
            runtime,
            sites,
            protected,
            guest,
        })
    }

    /// Writes the change right after a cycle, and follows the next one.
    fn cycle(&mut self, noise: &mut Noise) -> anyhow::Result<Taken> {
        let before = self.cycle_after(None)?;
        let ended = Instant::now();
        change(self.guest.spare_monitor()?, "vddata", noise)?;
        thread::sleep((INTERVAL - LISTEN_BEFORE).saturating_sub(ended.elapsed()));
        let (listener, read_before) = (self.guest.listen()?, bytes_read_by(self.guest.pid())?);
        let status = self.cycle_after(Some(&before))?;
        let read = bytes_read_by(self.guest.pid())? - read_before;
        let told = listener.stop()?;
        let changed = status.last_cycle_times.unwrap_or_default().changed_bytes;
        ensure!(
            changed >= CHANGED_MIB * MIB,
            "the cycle took {changed} bytes along"
        );
        let took: Duration = status.last_cycle.context("a point without a cycle")?.try_into()?;
        Ok(Taken {
            seconds: took.as_secs_f64(),
            read: read as f64 / changed as f64,
            longest_write_milliseconds: told.longest(),
        })
    }

    /// The cycle that ends next, after the one that was reported before.
    fn cycle_after(&self, before: Option<&v1::SourceStatus>) -> anyhow::Result<v1::SourceStatus> {
        let mut reports = self.sites.conductor.reports(SOURCE)?;
        let find = |report: &v1::Report| {
            let source = report
                .sources
                .iter()
                .find(|source| source.chain == self.protected.chain);
            source.cloned()
        };
        let present = find(&reports.borrow()).context("the source does not report the chain")?;
        let after = super::newest(before.unwrap_or(&present));
        self.runtime.block_on(async {
            let reached =
                reports.wait_for(|report| find(report).is_some_and(|status| super::newest(&status) > after));
            let reached = tokio::time::timeout(CYCLE_PATIENCE, reached).await;
            let report = reached.context("cycles stopped")??;
            find(&report).context("the report lost the chain")
        })
    }
}

/// Writes the change and backs it up.
fn backed_up(host: &LibvirtHost, noise: &mut Noise) -> anyhow::Result<Taken> {
    change(&host.monitor(), "virtio-disk1", noise)?;
    let (listener, read_before) = (host.listen()?, bytes_read_by(host.qemu()?)?);
    let stored_before = apparent_bytes(&host.backups())?;
    let took = host.back_up("inc")?;
    let read = bytes_read_by(host.qemu()?)? - read_before;
    let told = listener.stop()?;
    let stored = apparent_bytes(&host.backups())? - stored_before;
    ensure!(stored >= CHANGED_MIB * MIB, "the backup has {stored} bytes");
    Ok(Taken {
        seconds: took.as_secs_f64(),
        read: read as f64 / stored as f64,
        longest_write_milliseconds: told.longest(),
    })
}

/// Single MiB all over what is free of the data disk.
fn change(monitor: &Path, device: &str, noise: &mut Noise) -> anyhow::Result<()> {
    let monitor = SpareMonitor(monitor.to_owned());
    let part_mib = (DATA_BYTES / MIB - FREE_FROM_MIB) / CHANGED_MIB;
    for part in 0..CHANGED_MIB {
        let at = (FREE_FROM_MIB + part * part_mib + noise.below(part_mib)) * MIB;
        let pattern = noise.below(255) + 1;
        let backend = format!("/machine/peripheral/{device}/virtio-backend");
        let line = format!("qemu-io -d {backend} \"write -P {pattern} {at} {MIB}\"");
        let answer = monitor.ask("human-monitor-command", json!({"command-line": line}));
        ensure!(!answer.to_string().contains("rror"), "{line}: {answer}");
    }
    Ok(())
}

/// The guest's disks, both qcow2.
fn qcow2_images(directory: &Path, order: &GuestOrder) -> anyhow::Result<GuestDisks> {
    let built = order.images(directory, "db")?;
    let data = directory.join("db-data.qcow2");
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&built.data)
        .arg(&data)
        .status()?;
    ensure!(converted.success(), "qemu-img: {converted}");
    fs::remove_file(&built.data)?;
    Ok(GuestDisks { data, ..built })
}

fn made(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let place = directory.join(name);
    fs::create_dir(&place)?;
    Ok(place)
}

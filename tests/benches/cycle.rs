//! How long a cycle of two disks with little to send takes, and how long it holds the guest's writes.
//!
//! A guest of `farshore-guest` (root: qcow2, data: raw) writes a few records a second; two replicator processes
//! protect it. Whole cycles are counted: looking for changes, the instant, reading, sending, the durable
//! acknowledgement, the seal and the way back. A second, shorter run has a tap on the monitor, because the
//! replicator's own figure counts the instant alone, and every command may hold the guest's writes while QEMU
//! works on it.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a bench prints its table; its figures are for people"
)]

mod conductor;
mod cycle_report;
mod figures;
mod guest_vm;
mod monitor_tap;
mod process;
mod references;
mod two_sites;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use farshore_guest::machine::CacheMode;
use farshore_proto::v1;

use cycle_report::{cycle_table, hold_table};
use figures::{Samples, Target};
use guest_vm::{GuestOrder, GuestVm};
use monitor_tap::{MonitorTap, Timed};
use process::peak_resident_bytes;
use references::{EmptyCommands, empty_commands, small_syncs};
use two_sites::{ProtectedVm, SOURCE, TARGET, TwoSites};

const CYCLE: Target = Target(60.0);
const HOLD_WITHOUT_CACHE: Target = Target(10.0);
/// Longer than the 200 ms between two reports, so that each cycle is in a report of its own.
const INTERVAL: Duration = Duration::from_millis(220);
const CYCLES: usize = 100;
const TAPPED_CYCLES: usize = 40;
/// The first cycles still carry what the boot and the sync left.
const WARM_UP_CYCLES: u64 = 5;
/// Little to send: about five records a cycle and disk.
const RECORDS_PER_SECOND: u32 = 20;
const CYCLES_PATIENCE: Duration = Duration::from_secs(120);

/// What cycles of one cache mode cost.
struct Measured {
    shown: &'static str,
    hold_target: Option<Target>,
    cycles: Samples,
    holds: Samples,
    /// Writing 4 KiB and syncing them, where the vault is.
    small_sync: Samples,
    changed_kib: Samples,
    phases: Phases,
    tapped: Tapped,
    peak_mib: u64,
}

/// Means of the replicator's own histogram, in milliseconds.
struct Phases {
    send: f64,
    seal: f64,
    failed: f64,
}

/// What the tap saw.
#[derive(Default)]
struct Tapped {
    /// The longest command of each cycle, in milliseconds.
    longest: Samples,
    commands: Samples,
    bytes: Samples,
    together: Samples,
    /// Of all cycles.
    slowest: String,
    /// Which commands cost most, for people.
    costliest: String,
    empty: EmptyCommands,
}

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let modes = [
        ("none", CacheMode::None, Some(HOLD_WITHOUT_CACHE)),
        ("writeback", CacheMode::Writeback, None),
    ];
    let mut measured = Vec::new();
    for (shown, cache, hold_target) in modes {
        let place = directory.path().join(shown);
        fs::create_dir(&place)?;
        measured.push(measure_mode(&place, shown, cache, hold_target).await?);
    }
    cycle_table(directory.path(), &measured);
    hold_table(directory.path(), &measured);
    Ok(())
}

async fn measure_mode(
    directory: &Path,
    shown: &'static str,
    cache: CacheMode,
    hold_target: Option<Target>,
) -> anyhow::Result<Measured> {
    let order = GuestOrder {
        cache,
        ..GuestOrder::small(RECORDS_PER_SECOND)
    };
    let guest = GuestVm::start(directory, order)?;
    let sites = TwoSites::start().await?;
    let spare = guest.spare_monitor()?;
    let protected = sites
        .protect(&guest.to_protect(guest.monitor()?, INTERVAL))
        .await?;
    let mut measured = Measured {
        shown,
        hold_target,
        cycles: Samples::default(),
        holds: Samples::default(),
        small_sync: Samples::default(),
        changed_kib: Samples::default(),
        phases: Phases {
            send: f64::NAN,
            seal: f64::NAN,
            failed: 0.0,
        },
        tapped: Tapped::default(),
        peak_mib: 0,
    };
    let began_at = after(&sites, &protected, WARM_UP_CYCLES).await?;
    let before = sites.source_metrics().await?;
    sample(&sites, &protected, began_at, &mut measured).await?;
    let after_all = sites.source_metrics().await?;
    measured.phases = Phases::between(&before, &after_all)?;
    sites.release(&protected).await?;
    measured.small_sync = small_syncs(&sites.path("small"))?;

    let tap = MonitorTap::start(sites.path("tap.qmp"), spare)?;
    let protected = sites.protect(&guest.to_protect(tap.path(), INTERVAL)).await?;
    measured.tapped = tapped(&sites, &protected, &tap).await?;
    sites.release(&protected).await?;
    measured.tapped.empty = empty_commands(spare)?;
    let peaks = [sites.source.pid(), sites.target.pid()].map(peak_resident_bytes);
    for peak in peaks {
        measured.peak_mib = measured.peak_mib.max(peak? >> 20);
    }
    guest.see_unharmed()?;
    Ok(measured)
}

/// The source's present status of this chain, of a report in which `wanted` is true of it.
async fn status_when(
    sites: &TwoSites,
    vm: &ProtectedVm,
    mut wanted: impl FnMut(&v1::SourceStatus) -> bool,
) -> anyhow::Result<v1::SourceStatus> {
    let find = |report: &v1::Report| {
        let source = report.sources.iter().find(|source| source.chain == vm.chain);
        source.cloned()
    };
    let mut reports = sites.conductor.reports(SOURCE)?;
    let reached = reports.wait_for(|report| find(report).is_some_and(|status| wanted(&status)));
    let reached = tokio::time::timeout(CYCLES_PATIENCE, reached).await;
    let report = reached.context("cycles stopped")??;
    find(&report).context("the report lost the chain")
}

fn newest(status: &v1::SourceStatus) -> u64 {
    status.newest.as_ref().map_or(0, |point| point.sequence)
}

/// Waits for so many more points than there are now.
async fn after(sites: &TwoSites, vm: &ProtectedVm, points: u64) -> anyhow::Result<u64> {
    let now = newest(&status_when(sites, vm, |_| true).await?);
    let status = status_when(sites, vm, |status| newest(status) >= now + points).await?;
    Ok(newest(&status))
}

/// Every cycle as the source reports it.
async fn sample(
    sites: &TwoSites,
    vm: &ProtectedVm,
    began_at: u64,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let mut last = began_at;
    while measured.cycles.count() < CYCLES {
        let status = status_when(sites, vm, |status| newest(status) > last).await?;
        last = newest(&status);
        let cycle = status.last_cycle.context("a point without a cycle")?;
        let hold = status.last_hold.context("a point without a hold")?;
        measured.cycles.add_milliseconds(cycle.try_into()?);
        measured.holds.add_milliseconds(hold.try_into()?);
        if let Some(changed) = changed_bytes(sites, vm)? {
            measured.changed_kib.add(changed as f64 / 1024.0);
        }
    }
    Ok(())
}

fn changed_bytes(sites: &TwoSites, vm: &ProtectedVm) -> anyhow::Result<Option<u64>> {
    let report = sites.conductor.reports(TARGET)?;
    let report = report.borrow();
    let target = report.targets.iter().find(|target| target.chain == vm.chain);
    let newest = target.and_then(|target| target.newest.as_ref());
    Ok(newest.map(|point| point.changed_bytes))
}

/// Every command of some cycles.
async fn tapped(sites: &TwoSites, vm: &ProtectedVm, tap: &MonitorTap) -> anyhow::Result<Tapped> {
    after(sites, vm, WARM_UP_CYCLES).await?;
    tap.take();
    let mut tapped = Tapped::default();
    after(sites, vm, u64::try_from(TAPPED_CYCLES)?).await?;
    let seen = tap.take();
    let mut slowest = Duration::ZERO;
    for cycle in cycles(&seen) {
        let Some(longest) = cycle.iter().max_by_key(|timed| timed.took) else {
            continue;
        };
        tapped.longest.add_milliseconds(longest.took);
        tapped.commands.add(cycle.len() as f64);
        let bytes: usize = cycle.iter().map(|timed| timed.bytes).sum();
        tapped.bytes.add(bytes as f64);
        let together = cycle.iter().map(|timed| timed.took).sum();
        tapped.together.add_milliseconds(together);
        if longest.took > slowest {
            slowest = longest.took;
            tapped.slowest = longest.command.clone();
        }
    }
    let whole: Vec<Timed> = cycles(&seen).flatten().cloned().collect();
    tapped.costliest = costliest(&whole, tapped.commands.count() as f64);
    Ok(tapped)
}

/// The three commands that cost most of a cycle, with how often they come.
fn costliest(seen: &[Timed], cycles: f64) -> String {
    let mut costs: BTreeMap<&str, (f64, Duration)> = BTreeMap::new();
    for timed in seen {
        let cost = costs.entry(&timed.command).or_default();
        cost.0 += 1.0;
        cost.1 += timed.took;
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort_by_key(|(_, (_, took))| std::cmp::Reverse(*took));
    let shown = costs.iter().take(3).map(|(command, (times, took))| {
        let milliseconds = took.as_secs_f64() * 1000.0 / cycles;
        format!("{command} ({:.0} times, {milliseconds:.1} ms)", times / cycles)
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Commands from one instant to the one before the next. Each cycle switches its wrappers twice, there and back: cycles
/// begin with every second switch; what comes before the first is left out, and so is the last.
fn cycles(seen: &[Timed]) -> impl Iterator<Item = &[Timed]> {
    let switches = seen
        .iter()
        .enumerate()
        .filter(|(_, timed)| timed.command == "blockdev-reopen")
        .map(|(place, _)| place);
    let there: Vec<usize> = switches.step_by(2).collect();
    let bounds: Vec<(usize, usize)> = there.iter().copied().zip(there.iter().copied().skip(1)).collect();
    bounds.into_iter().filter_map(|(from, to)| seen.get(from..to))
}

impl Phases {
    fn between(before: &str, after: &str) -> anyhow::Result<Self> {
        let grown = |series: &str| -> f64 { value(after, series) - value(before, series) };
        let mean = |phase: &str| {
            let series = |what: &str| format!("farshore_cycle_duration_seconds_{what}{{phase=\"{phase}\"}}");
            grown(&series("sum")) / grown(&series("count")) * 1000.0
        };
        let (send, seal) = (mean("send"), mean("seal"));
        ensure!(send.is_finite() && seal.is_finite(), "the metrics show no cycles");
        Ok(Self {
            send,
            seal,
            failed: grown("farshore_cycles_total{result=\"failed\",vm=\"db\"}"),
        })
    }
}

/// A series' value; one that is absent has counted nothing.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0.0)
}

//! What a guest's synchronous writes lose by being protected.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use farshore_guest::{
    image::{GuestImage, ImageRequest, WorkloadExecutable},
    machine::{SourceVm, SourceVmRequest},
};
use farshore_proto::v1;
use farshore_tests::{daemon::binary, guests::BOOT};
use tokio::runtime::Runtime;

use crate::{
    comparison::{Aim, Pair, Row, in_turns},
    figures::Samples,
    two_sites::{TwoSites, VmToProtect},
};

const ROUNDS: usize = 10;
const WINDOW: Duration = Duration::from_secs(5);
/// Until cycles follow each other evenly.
const SETTLE: Duration = Duration::from_secs(2);
/// More than any disk takes one at a time.
const RECORDS_PER_SECOND: u32 = 1_000_000;
const ROOT_BYTES: u64 = 512 << 20;
const DATA_BYTES: u64 = 256 << 20;
const END: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A guest that ends with the value.
struct Guest(SourceVm);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill9(END);
    }
}

/// What one window showed.
struct Window {
    writes_per_second: f64,
    /// Between two acknowledgements that the witness heard, in milliseconds; it hears of many at once, 10 ms apart.
    silences: Samples,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let guest = start(directory)?;
    let sites = runtime.block_on(TwoSites::start())?;
    let mut rows = Vec::new();
    for (shown, interval, least) in [
        ("every 1 s", Duration::from_secs(1), 0.9),
        ("every 200 ms", Duration::from_millis(200), 0.8),
    ] {
        let what = format!("synchronous 4 KiB writes, cycles {shown}");
        let mut speed = Row::beside(&what, "1/s", Aim::RatioAtLeast(least), "not protected");
        let mut silence = Row::beside(
            "the same, p99 of the witness's silences",
            "ms",
            Aim::None,
            "not protected",
        );
        let mut longest = Row::beside("the same, the longest silence", "ms", Aim::None, "not protected");
        in_turns(
            ROUNDS,
            || protected(&runtime, &sites, &guest, interval),
            || observe(&guest),
            |pair| {
                speed.add(both(&pair, |window| window.writes_per_second));
                silence.add(both(&pair, |window| window.silences.percentile(99)));
                longest.add(both(&pair, |window| window.silences.percentile(100)));
            },
        )?;
        rows.extend([speed, silence, longest]);
    }
    let errors = guest.0.testimony()?.errors;
    ensure!(errors.is_empty(), "the guest had errors: {errors:?}");
    Ok(rows)
}

fn both(pair: &Pair<Window>, figure: impl Fn(&Window) -> f64) -> Pair<f64> {
    Pair {
        ours: figure(&pair.ours),
        theirs: figure(&pair.theirs),
    }
}

fn start(directory: &Path) -> anyhow::Result<Guest> {
    let workload = WorkloadExecutable {
        path: binary(),
        leading_arguments: vec!["guest-workload".into()],
    };
    let mut image = ImageRequest::small(directory, "db", workload);
    image.root_bytes = ROOT_BYTES;
    image.data_bytes = DATA_BYTES;
    image.records_per_second = RECORDS_PER_SECOND;
    image.journal_records_per_second = 1;
    let disks = GuestImage::build(&image)?;
    let vm = SourceVm::start(SourceVmRequest::small(directory, "db", &disks))?;
    let guest = Guest(vm);
    let verdict = guest.0.wait_for_boot(BOOT)?;
    ensure!(verdict.is_clean(), "{verdict:?}");
    Ok(guest)
}

fn protected(
    runtime: &Runtime,
    sites: &TwoSites,
    guest: &Guest,
    interval: Duration,
) -> anyhow::Result<Window> {
    let monitor = guest.0.request().monitors.first().context("no monitor")?;
    let protected = runtime.block_on(sites.protect(&vm(monitor.clone(), interval)))?;
    thread::sleep(SETTLE);
    let window = observe(guest)?;
    runtime.block_on(sites.release(&protected))?;
    Ok(window)
}

fn vm(monitor: PathBuf, interval: Duration) -> VmToProtect {
    let disk = |name: &str| v1::Disk {
        name: name.to_owned(),
        device: format!("vd{name}"),
        bus: "virtioBlk".to_owned(),
    };
    VmToProtect {
        machine: v1::Machine {
            vm: "db".to_owned(),
            uuid: String::new(),
            processors: 1,
            memory_bytes: 256 << 20,
            firmware: "bios".to_owned(),
            machine_type: "pc".to_owned(),
            disks: vec![disk("root"), disk("data")],
            nics: Vec::new(),
        },
        monitor,
        sizes: vec![ROOT_BYTES, DATA_BYTES],
        interval,
    }
}

/// Follows the witness's file through one window.
fn observe(guest: &Guest) -> anyhow::Result<Window> {
    let before = guest.0.testimony()?.acknowledged;
    let mut file = File::open(&guest.0.request().witness)?;
    file.seek(SeekFrom::End(0))?;
    let began = Instant::now();
    let (mut heard, mut silences, mut text) = (began, Samples::default(), Vec::new());
    while began.elapsed() < WINDOW {
        text.clear();
        file.read_to_end(&mut text)?;
        if !text.is_empty() {
            silences.add_milliseconds(heard.elapsed());
            heard = Instant::now();
        }
        thread::sleep(LOOK_EVERY);
    }
    silences.add_milliseconds(heard.elapsed());
    let after = guest.0.testimony()?.acknowledged;
    let writes = (after.region_a - before.region_a) + (after.region_b - before.region_b);
    Ok(Window {
        writes_per_second: writes as f64 / began.elapsed().as_secs_f64(),
        silences,
    })
}

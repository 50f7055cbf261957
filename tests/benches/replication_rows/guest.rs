//! What a guest's synchronous writes lose by being protected.

use std::{path::Path, thread, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    comparison::{Aim, Pair, Row, in_turns},
    guest_vm::{GuestOrder, GuestVm, Told},
    two_sites::TwoSites,
};

const ROUNDS: usize = 10;
const WINDOW: Duration = Duration::from_secs(5);
/// Until cycles follow each other evenly.
const SETTLE: Duration = Duration::from_secs(2);
/// More than any disk takes one at a time.
const RECORDS_PER_SECOND: u32 = 1_000_000;
const BESIDE: &str = "not protected";

type Figure = fn(&Told) -> f64;

/// What is shown besides the speed.
const LATENCIES: [(&str, Figure); 3] = [
    ("of them, one write: median", |told| told.per_mille(500)),
    ("of them, one write: p99", |told| told.per_mille(990)),
    ("of them, one write: longest", Told::longest),
];

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let guest = GuestVm::start(directory, GuestOrder::small(RECORDS_PER_SECOND))?;
    let sites = runtime.block_on(TwoSites::start())?;
    let mut rows = Vec::new();
    for (shown, interval, least) in [
        ("every 1 s", Duration::from_secs(1), 0.9),
        ("every 200 ms", Duration::from_millis(200), 0.8),
    ] {
        let what = format!("synchronous 4 KiB writes, cycles {shown}");
        let mut speed = Row::beside(&what, "1/s", Aim::RatioAtLeast(least), BESIDE);
        let mut latencies = LATENCIES.map(|(what, _)| Row::beside(what, "ms", Aim::None, BESIDE));
        in_turns(
            ROUNDS,
            || protected(&runtime, &sites, &guest, interval),
            || observe(&guest),
            |pair| {
                speed.add(both(&pair, |told| told.writes_per_second));
                for (row, (_, figure)) in latencies.iter_mut().zip(LATENCIES) {
                    row.add(both(&pair, figure));
                }
            },
        )?;
        rows.push(speed);
        rows.extend(latencies);
    }
    guest.see_unharmed()?;
    Ok(rows)
}

fn both(pair: &Pair<Told>, figure: impl Fn(&Told) -> f64) -> Pair<f64> {
    Pair {
        ours: figure(&pair.ours),
        theirs: figure(&pair.theirs),
    }
}

fn protected(
    runtime: &Runtime,
    sites: &TwoSites,
    guest: &GuestVm,
    interval: Duration,
) -> anyhow::Result<Told> {
    let vm = guest.to_protect(guest.monitor()?, interval);
    let protected = runtime.block_on(sites.protect(&vm))?;
    thread::sleep(SETTLE);
    let told = observe(guest)?;
    runtime.block_on(sites.release(&protected))?;
    Ok(told)
}

fn observe(guest: &GuestVm) -> anyhow::Result<Told> {
    let listener = guest.listen()?;
    thread::sleep(WINDOW);
    listener.stop()
}

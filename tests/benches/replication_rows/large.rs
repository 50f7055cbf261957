//! A cycle of a few changed MiB on a huge disk beside the same on a small one, and the memory that a large backlog takes.

use std::{path::Path, time::Duration};

use farshore_proto::v1;

use super::{MIB, Scene};
use crate::{
    comparison::{Aim, Pair, Row, in_turns},
    disk_usage::size_that_fits,
    figures::Samples,
    noise::Noise,
    process::peak_resident_bytes,
};

const SMALL_MIB: u64 = 1024;
const HUGE_MIB: u64 = 1024 * 1024;
const CHANGED_MIB: u64 = 4;
const BACKLOG_MIB: u64 = 1024;
const WRITE_MIB: u64 = 4;
const ROUNDS: usize = 9;
/// A change is written within it, right after the point before.
const INTERVAL: Duration = Duration::from_secs(1);
const PEAK_MIB: f64 = 256.0;

type Phase = fn(&v1::CycleTimes) -> f64;

/// Where the time of a cycle goes; the rest is its end.
const PHASES: [(&str, Phase); 4] = [
    ("of it: until reading could begin", |times| {
        milliseconds(times.begin.as_ref())
    }),
    ("of it: reading", |times| milliseconds(times.read.as_ref())),
    ("of it: sending", |times| milliseconds(times.send.as_ref())),
    ("of it: sealing", |times| milliseconds(times.seal.as_ref())),
];

/// A cycle, in milliseconds.
struct Cycle {
    took: f64,
    times: v1::CycleTimes,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let huge_mib = size_that_fits(HUGE_MIB * MIB, directory)? / MIB;
    let huge = Scene::start(directory, "huge", huge_mib, INTERVAL)?;
    let small = Scene::start(directory, "small", SMALL_MIB, INTERVAL)?;
    let mut noise = Noise::new(3);
    let mut more = Noise::new(4);
    let what = format!("cycle, 4 MiB changed, disk of {} GiB", huge_mib / 1024);
    let beside = "disk of 1 GiB";
    let mut row = Row::beside(&what, "ms", Aim::RatioAtMost(1.2), beside);
    let mut phases = PHASES.map(|(what, _)| Row::beside(what, "ms", Aim::None, beside));
    in_turns(
        ROUNDS,
        || cycle(&huge, huge_mib, &mut noise),
        || cycle(&small, SMALL_MIB, &mut more),
        |pair| {
            let took = |cycle: &Cycle| cycle.took;
            row.add(both(&pair, took));
            for (row, (_, of)) in phases.iter_mut().zip(PHASES) {
                row.add(both(&pair, |cycle| of(&cycle.times)));
            }
        },
    )?;
    drop(small);
    let mut rows = vec![row];
    rows.extend(phases);
    rows.extend(backlog(&huge, huge_mib, &mut noise)?);
    Ok(rows)
}

fn both(pair: &Pair<Cycle>, figure: impl Fn(&Cycle) -> f64) -> Pair<f64> {
    Pair {
        ours: figure(&pair.ours),
        theirs: figure(&pair.theirs),
    }
}

fn milliseconds(duration: Option<&prost_types::Duration>) -> f64 {
    duration.map_or(f64::NAN, |duration| {
        duration.seconds as f64 * 1e3 + f64::from(duration.nanos) / 1e6
    })
}

/// Changes a few MiB and gives what the cycle took that shipped them all.
fn cycle(scene: &Scene, size_mib: u64, noise: &mut Noise) -> anyhow::Result<Cycle> {
    loop {
        let newest = scene.newest()?;
        write(scene, size_mib, CHANGED_MIB, 1, noise)?;
        let status = scene.cycle_after(newest)?;
        let times = status.last_cycle_times.unwrap_or_default();
        if times.changed_bytes == CHANGED_MIB * MIB {
            let took = milliseconds(status.last_cycle.as_ref());
            return Ok(Cycle { took, times });
        }
        // The cycle began between two writes: the rest is shipped by the next one.
        std::thread::sleep(INTERVAL * 2);
    }
}

/// A backlog that one cycle has to ship.
fn backlog(scene: &Scene, size_mib: u64, noise: &mut Noise) -> anyhow::Result<Vec<Row>> {
    let newest = scene.newest()?;
    write(scene, size_mib, BACKLOG_MIB, WRITE_MIB, noise)?;
    scene.status_when(|status| super::newest(status) > newest + 1 && status.backlog_bytes == 0)?;
    let row = |what: &str, pid| {
        let mut peak = Samples::default();
        peak.add(peak_resident_bytes(pid)? as f64 / MIB as f64);
        anyhow::Ok(Row::alone(what, "MiB", Aim::AtMost(PEAK_MIB), peak))
    };
    Ok(vec![
        row("memory of the source, 1 GiB changed", scene.sites.source.pid())?,
        row("memory of the target, 1 GiB changed", scene.sites.target.pid())?,
    ])
}

fn write(scene: &Scene, size_mib: u64, mib: u64, step_mib: u64, noise: &mut Noise) -> anyhow::Result<()> {
    // Each in a part of its own, so that no two meet.
    let parts = mib / step_mib;
    let part_mib = size_mib / parts;
    for part in 0..parts {
        let at_mib = part * part_mib + noise.below(part_mib - step_mib);
        let pattern = u8::try_from(noise.below(255))? + 1;
        scene.write(pattern, at_mib * MIB, step_mib * MIB);
    }
    Ok(())
}

//! How long it takes to write to a large vault again after its process was killed while it sealed, and in how much memory.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use farshore_vault::Vault;

use super::prepared;
use crate::{
    chain::{CHAIN, Chain, Change},
    comparison::{Aim, Row},
    figures::Samples,
    noise::Noise,
    process::peak_resident_bytes,
};

/// The parts of this program that run as processes of their own.
pub(crate) const SEAL_ON: &str = "seal-on";
pub(crate) const REOPEN: &str = "reopen";

/// How many points the vault has; building it with fewer takes less time.
const POINTS_VARIABLE: &str = "FARSHORE_BENCH_REOPEN_POINTS";
const POINTS: u64 = 10_000;
const EXTENTS_PER_POINT: usize = 1000;
/// Enough to be an extent, and hashed quickly.
const EXTENT_BYTES: u64 = 512;
const VOLUME_BYTES: u64 = 1 << 40;
const CHANGE_BYTES: usize = 4 << 20;
/// When the process is killed, counted from when it begins to seal.
const KILLED_AFTER_MILLISECONDS: [u64; 7] = [0, 1, 2, 3, 5, 8, 13];
const SEALING: &str = "sealing";

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let points = match env::var(POINTS_VARIABLE) {
        Ok(points) => points.parse().context(POINTS_VARIABLE)?,
        Err(_) => POINTS,
    };
    let began = Instant::now();
    let place = prepared(directory.join("vault"), 4 << 30, |place| build(place, points))?;
    let built_in = began.elapsed().as_secs();
    let (mut seconds, mut peaks, mut open_cycles) = (Samples::default(), Samples::default(), 0);
    for after in KILLED_AFTER_MILLISECONDS {
        kill_while_sealing(&place, Duration::from_millis(after))?;
        let reopened = in_process_of_its_own(&place)?;
        seconds.add(reopened.seconds);
        peaks.add(reopened.peak_mib);
        open_cycles += reopened.open_cycles;
    }
    let what = format!(
        "open after kill -9: {points} points, {} extents (built in {built_in} s)",
        points * u64::try_from(EXTENTS_PER_POINT)?
    );
    let memory = format!("the same, peak memory ({open_cycles} times a cycle was open)");
    Ok(vec![
        Row::alone(&what, "s", Aim::AtMost(2.0), seconds),
        Row::alone(&memory, "MiB", Aim::AtMost(256.0), peaks),
    ])
}

fn build(place: &Path, points: u64) -> anyhow::Result<()> {
    let mut noise = Noise::new(6);
    let mut chain = Chain::create(place, VOLUME_BYTES)?;
    for _ in 0..points {
        let change = Change::zeroes(&mut noise, VOLUME_BYTES, EXTENTS_PER_POINT, EXTENT_BYTES)?;
        chain.add_point(&change)?;
    }
    Ok(())
}

/// Lets a process seal one point after the other, and kills it while it seals the second.
fn kill_while_sealing(place: &Path, after: Duration) -> anyhow::Result<()> {
    let mut sealing = Command::new(env::current_exe()?)
        .arg(SEAL_ON)
        .arg(place)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = sealing.stdout.take().context("the process has no output")?;
    let mut lines = BufReader::new(output).lines();
    for _ in 0..2 {
        let line = lines.next().context("the process that seals ended")??;
        ensure!(line == SEALING, "it said {line}");
    }
    thread::sleep(after);
    sealing.kill()?;
    sealing.wait()?;
    Ok(())
}

/// Seals until it is killed, and says before each seal that it begins. The same change belongs to the same sequence, so
/// that a cycle that was left open is gone on with.
pub(crate) fn seal_on(place: &Path) -> anyhow::Result<()> {
    let mut chain = Chain::open(place)?;
    loop {
        let open = chain.begin()?;
        let bytes = Noise::new(open.sequence.0).bytes(CHANGE_BYTES);
        let change = Change::sequential(0, &Bytes::from(bytes))?;
        for (number, frames) in (1..).zip(&change.messages) {
            chain.writer.append(chain.epoch, number, frames, &[])?;
        }
        println!("{SEALING}");
        std::io::stdout().flush()?;
        chain.seal(&open, &change)?;
    }
}

/// What opening it again took.
struct Reopened {
    seconds: f64,
    peak_mib: f64,
    open_cycles: u32,
}

fn in_process_of_its_own(place: &Path) -> anyhow::Result<Reopened> {
    let told = Command::new(env::current_exe()?)
        .arg(REOPEN)
        .arg(place)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(told.status.success(), "the vault was not opened: {}", told.status);
    let text = String::from_utf8(told.stdout)?;
    let mut figures = text.split_whitespace();
    let mut next = || figures.next().context("a figure is missing");
    Ok(Reopened {
        seconds: next()?.parse()?,
        peak_mib: next()?.parse()?,
        open_cycles: next()?.parse()?,
    })
}

/// Opens the vault for writing, and prints the seconds, the peak of memory in MiB, and how many cycles are open.
pub(crate) fn reopen(place: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    let vault = Vault::open(place)?;
    let writer = vault.chain_writer(CHAIN)?;
    let took = began.elapsed().as_secs_f64();
    let peak = peak_resident_bytes(process::id())? as f64 / (1024.0 * 1024.0);
    let open_cycles = u32::from(writer.head().open.is_some());
    println!("{took} {peak} {open_cycles}");
    Ok(())
}

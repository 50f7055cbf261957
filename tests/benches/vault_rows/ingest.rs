//! How fast incompressible data gets into the vault, checked and durable, beside copying the same bytes durably.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use bytes::Bytes;
use farshore_blocks::Frame;

use crate::{
    chain::{Chain, Change},
    comparison::{Aim, Pair, Row, in_turns},
    noise::Noise,
    process::processor_seconds,
};

const BYTES: u64 = 2 << 30;
const ROUNDS: usize = 5;
/// As the replicator does: 8 MiB.
const MESSAGES_PER_SYNC: u64 = 8;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// What one run took.
struct Run {
    wall: Duration,
    processor_seconds: f64,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let bytes = Bytes::from(Noise::new(1).bytes(usize::try_from(BYTES)?));
    let source = directory.join("source");
    fs::write(&source, &bytes)?;
    let change = Change::sequential(0, &bytes)?;
    let beside = "cp, then sync of file and directory";
    let mut speed = Row::beside("ingest, 2 GiB", "GB/s", Aim::RatioAtLeast(0.9), beside);
    let mut cost = Row::beside("ingest, processors", "s/GiB", Aim::None, beside);
    in_turns(
        ROUNDS,
        || ingest(&directory.join("vault"), &change),
        || copy(&source, &directory.join("copies")),
        |pair| {
            let gigabytes_per_second = |run: &Run| BYTES as f64 / 1e9 / run.wall.as_secs_f64();
            let seconds_per_gib = |run: &Run| run.processor_seconds / (BYTES as f64 / GIB);
            speed.add(both(&pair, gigabytes_per_second));
            cost.add(both(&pair, seconds_per_gib));
        },
    )?;
    fs::remove_file(source)?;
    Ok(vec![speed, cost])
}

fn both(pair: &Pair<Run>, figure: impl Fn(&Run) -> f64) -> Pair<f64> {
    Pair {
        ours: figure(&pair.ours),
        theirs: figure(&pair.theirs),
    }
}

fn ingest(directory: &Path, change: &Change) -> anyhow::Result<Run> {
    let mut chain = Chain::create(directory, BYTES)?;
    let run = timed(|| {
        let open = chain.begin()?;
        for (number, frames) in (1..).zip(&change.messages) {
            let checked = frames.iter().map(received).collect::<Result<Vec<_>, _>>()?;
            chain.writer.append(chain.epoch, number, &checked, &[])?;
            if number % MESSAGES_PER_SYNC == 0 {
                chain.writer.sync()?;
            }
        }
        chain.seal(&open, change)?;
        Ok(())
    })?;
    drop(chain);
    fs::remove_dir_all(directory)?;
    Ok(run)
}

/// The frame as a replicator has it of the wire: with its checksum proven.
fn received(frame: &Frame) -> anyhow::Result<Frame> {
    let length = u32::try_from(frame.raw_length().0)?;
    Ok(Frame::from_parts(
        frame.volume(),
        frame.extent().start(),
        length,
        frame.crc32(),
        frame.encoding(),
        frame.payload().clone(),
    )?)
}

fn copy(source: &Path, directory: &Path) -> anyhow::Result<Run> {
    fs::create_dir(directory)?;
    let copy = directory.join("copy");
    let run = timed(|| {
        // A file system that shares blocks would copy nothing.
        let copied = Command::new("cp")
            .arg("--reflink=never")
            .arg(source)
            .arg(&copy)
            .status()?;
        let synced = Command::new("sync").arg(&copy).arg(directory).status()?;
        ensure!(
            copied.success() && synced.success(),
            "cp: {copied}, sync: {synced}"
        );
        Ok(())
    })?;
    fs::remove_dir_all(directory)?;
    Ok(run)
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Run> {
    // What the last run left to be written is not this one's.
    rustix::fs::sync();
    let before = processor_seconds()?;
    let began = Instant::now();
    work()?;
    let wall = began.elapsed();
    Ok(Run {
        wall,
        processor_seconds: processor_seconds()? - before,
    })
}

//! The recovery point objective while 5 MiB a second are written: by how much the newest sealed point is behind, at any time.

use std::{
    env,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use farshore_proto::v1;

use super::{MIB, Scene, seconds};
use crate::{
    comparison::{Aim, Row},
    figures::Samples,
    noise::Noise,
};

const SECONDS: u64 = 300;
const SIZE_MIB: u64 = 4096;
const WRITES_A_SECOND: u32 = 5;
/// How often the recovery point objective is looked at.
const SAMPLES_A_SECOND: f64 = 100.0;

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    Ok(vec![
        row(directory, "every 1 s", Duration::from_secs(1), Aim::AtMost(3.0))?,
        row(
            directory,
            "every 200 ms",
            Duration::from_millis(200),
            Aim::AtMost(1.0),
        )?,
    ])
}

fn row(directory: &Path, shown: &str, interval: Duration, aim: Aim) -> anyhow::Result<Row> {
    let length = env::var("FARSHORE_BENCH_RPO_SECONDS").map_or(Ok(SECONDS), |text| text.parse())?;
    let name = format!("rpo{}", interval.as_millis());
    let scene = Scene::start(directory, &name, SIZE_MIB, interval)?;
    let mut noise = Noise::new(7);
    let first = scene.newest()?;
    let began = Instant::now();
    let mut due = began;
    while began.elapsed() < Duration::from_secs(length) {
        let pattern = u8::try_from(noise.below(255))? + 1;
        scene.write(pattern, noise.below(SIZE_MIB - 1) * MIB, MIB);
        due += Duration::from_secs(1) / WRITES_A_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let points = scene.points()?;
    let points: Vec<_> = points.iter().filter(|point| point.sequence > first).collect();
    let behind = behind(&points)?;
    let percentile = behind.percentile(99);
    let mut figure = Samples::default();
    figure.add(percentile);
    let what = format!(
        "RPO over {length} s, cycles {shown}, {} points: p99",
        points.len()
    );
    Ok(Row::alone(&what, "s", aim, figure))
}

/// How far the newest point is behind, looked at again and again from the first seal to the last.
fn behind(points: &[&v1::RecoveryPoint]) -> anyhow::Result<Samples> {
    ensure!(points.len() > 2, "there are {} points", points.len());
    let mut samples = Samples::default();
    for pair in points.windows(2) {
        let [newest, next] = pair else { continue };
        let captured = seconds(newest.captured_at.as_ref())?;
        let until = seconds(next.sealed_at.as_ref())?;
        let mut now = seconds(newest.sealed_at.as_ref())?;
        while now < until {
            samples.add(now - captured);
            now += 1.0 / SAMPLES_A_SECOND;
        }
        samples.add(until - captured);
    }
    Ok(samples)
}

//! What a small cycle costs on a large volume with many points, beside the same on a small volume with one.

use std::{path::Path, time::Instant};

use bytes::Bytes;

use super::prepared;
use crate::{
    chain::{BLOCK_BYTES, Chain, Change},
    comparison::{Aim, Row, in_turns},
    noise::Noise,
};

const LARGE_BYTES: u64 = 1 << 40;
const SMALL_BYTES: u64 = 1 << 30;
const POINTS: u64 = 1000;
const EXTENTS_PER_POINT: usize = 256;
const CHANGE_BYTES: usize = 4 << 20;
const SEALS: usize = 60;

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let mut noise = Noise::new(2);
    let large = prepared(directory.join("large"), 1 << 30, |place| {
        build(place, LARGE_BYTES, POINTS)
    })?;
    let small = prepared(directory.join("small"), 1 << 30, |place| {
        build(place, SMALL_BYTES, 1)
    })?;
    let (mut large, mut small) = (Chain::open(&large)?, Chain::open(&small)?);
    let bytes = Bytes::from(noise.bytes(CHANGE_BYTES));
    let change = Change::sequential(SMALL_BYTES / 2, &bytes)?;
    let mut row = Row::beside(
        "begin, append 4 MiB, seal: 1 TiB volume, 1,000 points",
        "ms",
        Aim::RatioAtMost(2.0),
        "the same: 1 GiB volume, 1 point",
    );
    in_turns(
        SEALS,
        || milliseconds_of_point(&mut large, &change),
        || milliseconds_of_point(&mut small, &change),
        |pair| row.add(pair),
    )?;
    Ok(vec![row])
}

fn build(place: &Path, volume_bytes: u64, points: u64) -> anyhow::Result<()> {
    let mut noise = Noise::new(3);
    let mut chain = Chain::create(place, volume_bytes)?;
    for _ in 0..points {
        let change = Change::zeroes(&mut noise, volume_bytes, EXTENTS_PER_POINT, BLOCK_BYTES)?;
        chain.add_point(&change)?;
    }
    Ok(())
}

fn milliseconds_of_point(chain: &mut Chain, change: &Change) -> anyhow::Result<f64> {
    let began = Instant::now();
    chain.add_point(change)?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

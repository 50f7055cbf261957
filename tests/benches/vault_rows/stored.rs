//! How much the vault's directory grows by what changed, and by a cycle in which next to nothing did.

use std::path::Path;

use bytes::Bytes;

use crate::{
    chain::{Chain, Change},
    comparison::{Aim, Row},
    disk_usage::apparent_bytes,
    figures::Samples,
    noise::Noise,
};

const VOLUME_BYTES: u64 = 1 << 30;
const CHANGE_BYTES: usize = 4 << 20;
const CHANGE_BLOCKS: usize = CHANGE_BYTES / 4096;
const SEALS: usize = 5;
const SHARE: Aim = Aim::AtMost(1.02);
const FIXED: Aim = Aim::AtMost(16.0 * 1024.0);

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let place = directory.join("vault");
    let mut noise = Noise::new(5);
    let mut chain = Chain::create(&place, VOLUME_BYTES)?;
    let mut grown = |change: &dyn Fn(&mut Noise) -> anyhow::Result<Change>| -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for _ in 0..SEALS {
            let change = change(&mut noise)?;
            let before = apparent_bytes(&place)?;
            chain.add_point(&change)?;
            samples.add((apparent_bytes(&place)? - before) as f64);
        }
        Ok(samples)
    };
    // The first point makes files that later ones find.
    grown(&|noise| Change::scattered(noise, VOLUME_BYTES, 1))?;
    let nothing = grown(&|_| Ok(Change::of(Vec::new())))?;
    let block = grown(&|noise| Change::scattered(noise, VOLUME_BYTES, 1))?;
    let sequential = grown(&|noise| {
        let offset = noise.below(VOLUME_BYTES / CHANGE_BYTES as u64 / 2) * CHANGE_BYTES as u64;
        Change::sequential(offset, &Bytes::from(noise.bytes(CHANGE_BYTES)))
    })?;
    let scattered = grown(&|noise| Change::scattered(noise, VOLUME_BYTES, CHANGE_BLOCKS))?;
    let share = |samples: Samples| samples.divided_by(CHANGE_BYTES as f64);
    Ok(vec![
        Row::alone(
            "stored for a point of 4 MiB in one run",
            "B/B",
            SHARE,
            share(sequential),
        ),
        Row::alone(
            "stored for a point of 4 MiB in 4 KiB blocks",
            "B/B",
            SHARE,
            share(scattered),
        ),
        Row::alone("stored for a point of nothing", "B", FIXED, nothing),
        Row::alone("stored for a point of one 4 KiB block", "B", FIXED, block),
    ])
}

//! What is sent and stored for scattered writes of 4 KiB.

use std::{path::Path, time::Duration};

use super::Scene;
use crate::{
    comparison::{Aim, Row},
    disk_usage::apparent_bytes,
    figures::Samples,
    noise::Noise,
};

const SIZE_MIB: u64 = 4096;
const BLOCK_BYTES: u64 = 4096;
const BLOCKS: u64 = 1024;
const ROUNDS: usize = 5;
const INTERVAL: Duration = Duration::from_secs(2);
const MOST: Aim = Aim::AtMost(1.1);

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::start(directory, "scattered", SIZE_MIB, INTERVAL)?;
    let mut noise = Noise::new(6);
    let (mut wire, mut stored) = (Samples::default(), Samples::default());
    let vault = scene.sites.path("vault");
    for _ in 0..ROUNDS {
        let newest = scene.newest()?;
        let (wire_before, stored_before) = (scene.wire_bytes()?, apparent_bytes(&vault)?);
        // Each in a part of its own, so that no two meet.
        let part_blocks = (SIZE_MIB << 20) / BLOCK_BYTES / BLOCKS;
        for part in 0..BLOCKS {
            let block = part * part_blocks + noise.below(part_blocks);
            let pattern = u8::try_from(noise.below(255))? + 1;
            scene.write(pattern, block * BLOCK_BYTES, BLOCK_BYTES);
        }
        scene.status_when(|status| super::newest(status) > newest && status.backlog_bytes == 0)?;
        std::thread::sleep(INTERVAL * 2);
        let changed = (BLOCKS * BLOCK_BYTES) as f64;
        wire.add((scene.wire_bytes()? - wire_before) / changed);
        stored.add((apparent_bytes(&vault)? - stored_before) as f64 / changed);
    }
    Ok(vec![
        Row::alone("sent for 1,024 scattered writes of 4 KiB", "B/B", MOST, wire),
        Row::alone("stored for them in the vault", "B/B", MOST, stored),
    ])
}

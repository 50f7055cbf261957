//! Judging a recovery point as it lies in the vault against what the witness heard.

use std::{io, path::Path};

use anyhow::Context;
use farshore_blocks::{ByteOffset, Sequence, VolumeIndex};
use farshore_guest::{
    disk_layout::{REGION_A, REGION_B},
    judge::{Judgement, judge},
    record::Stream,
    region::{ReadAt, RegionScan},
    witness::Acknowledged,
};
use farshore_vault::{PointReader, VaultReader};

/// One disk of a point.
struct PointDisk<'a> {
    point: &'a PointReader,
    volume: VolumeIndex,
}

impl ReadAt for PointDisk<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.point
            .read_at(self.volume, ByteOffset(offset), buffer)
            .map_err(io::Error::other)
    }
}

/// Reads the guest's regions from the point and judges them. It blocks.
pub(super) fn judge_point(
    vault: &Path,
    vm: &str,
    sequence: u64,
    acknowledged: Acknowledged,
) -> anyhow::Result<Judgement> {
    let reader = VaultReader::open(vault)?;
    let chains = reader.chains()?;
    let (chain, _) = chains
        .into_iter()
        .find(|(_, description)| description.vm == vm)
        .with_context(|| format!("the vault has no chain of {vm}"))?;
    let point = reader.open_point(chain, Sequence(sequence))?;
    let data = disk(&point, "data")?;
    let root = disk(&point, "root")?;
    let region_a = RegionScan::read(&data, REGION_A, Stream::RegionA)?;
    let region_b = RegionScan::read(&root, REGION_B, Stream::RegionB)?;
    Ok(judge(&region_a, &region_b, acknowledged))
}

fn disk<'a>(point: &'a PointReader, name: &str) -> anyhow::Result<PointDisk<'a>> {
    let found = point.volumes_there().find(|(_, volume)| volume.name == name);
    let (volume, _) = found.with_context(|| format!("the point has no volume `{name}`"))?;
    Ok(PointDisk { point, volume })
}

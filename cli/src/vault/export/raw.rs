//! A raw image: the volume's bytes at their offsets, holes where nothing was written.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use anyhow::Context;
use farshore_blocks::{ByteCount, Extent};
use farshore_nbd::Export;
use farshore_vault::Allocation;
use tokio_util::sync::CancellationToken;

use super::{
    Done, interrupted,
    partial::{Partial, failed},
};
use crate::{
    exit::CliError,
    vault::{unreadable, volume::PointVolume},
};

/// How much is read at once.
const PIECE: ByteCount = ByteCount(1024 * 1024);

pub(super) async fn write(
    volume: &PointVolume,
    partial: &Partial,
    done: &Done,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    let (path, file) = (partial.path().to_owned(), partial.file().try_clone());
    let file = file.map_err(|source| failed("open", &path, source))?;
    let (volume, done, stop) = (volume.clone(), done.clone(), stop.clone());
    let copied = tokio::task::spawn_blocking(move || copy(&volume, (&file, &path), &done, &stop));
    copied.await.context("the thread that copies has died")?
}

fn copy(
    volume: &PointVolume,
    (file, path): (&File, &Path),
    done: &Done,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    let size = volume.size();
    file.set_len(size)
        .map_err(|source| failed("size", path, source))?;
    let mut at: u64 = 0;
    while at < size {
        for (extent, allocation) in volume.states(at, size).map_err(unreadable)? {
            if stop.is_cancelled() {
                return Err(interrupted());
            }
            match allocation {
                Allocation::Data => copy_extent(volume, extent, (file, path), (done, stop))?,
                Allocation::Zero | Allocation::Hole => done.add(extent.length().0),
            }
            at = extent.end().0;
        }
    }
    Ok(())
}

fn copy_extent(
    volume: &PointVolume,
    extent: Extent,
    (file, path): (&File, &Path),
    (done, stop): (&Done, &CancellationToken),
) -> Result<(), CliError> {
    for piece in extent.pieces(PIECE) {
        if stop.is_cancelled() {
            return Err(interrupted());
        }
        let mut bytes = vec![0; usize::try_from(piece.length().0).unwrap_or(0)];
        volume.read(piece.start().0, &mut bytes).map_err(unreadable)?;
        let written = file.write_all_at(&bytes, piece.start().0);
        written.map_err(|source| failed("write", path, source))?;
        done.add(piece.length().0);
    }
    Ok(())
}

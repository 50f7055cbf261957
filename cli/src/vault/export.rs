//! `vault export DIR`: a volume of a recovery point as an image file, sparse where nothing was written.
//!
//! The file that is asked for must not exist, and does not exist after a failure.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use farshore_blocks::{ByteCount, Extent};
use farshore_nbd::Export;
use farshore_vault::Allocation;

use super::{
    selection::{PointSelection, find_volume},
    unreadable,
    volume::PointVolume,
};
use crate::{
    exit::CliError,
    output::{format, progress::Progress, talk},
};

/// How much is read at once.
const PIECE: ByteCount = ByteCount(1024 * 1024);

/// Progress is told at every tenth.
const TELLING_PERCENT: u64 = 10;

/// Which volume, and where to.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) point: PointSelection,
    /// The volume, by its name
    #[arg(long)]
    pub(crate) volume: String,
    /// The file to write, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// The image's format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ImageFormat,
}

/// The format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The bytes as they are, with holes where nothing was written.
    #[default]
    Raw,
    /// QEMU's, made by `qemu-img`.
    Qcow2,
}

pub(super) fn run(arguments: &ExportArguments) -> Result<(), CliError> {
    let point = Arc::new(arguments.point.open()?);
    let index = find_volume(&point, &arguments.volume)?.as_usize();
    let sequence = point.record().sequence;
    let Some((name, volume)) = PointVolume::all(&point).into_iter().nth(index) else {
        return Ok(());
    };
    match arguments.format {
        ImageFormat::Raw => write_new(&arguments.to, |file| copy(&volume, file, &arguments.to))?,
        ImageFormat::Qcow2 => write_qcow2(&volume, &arguments.to)?,
    }
    talk(&format!(
        "volume `{name}` of point {sequence} is in {} ({})",
        arguments.to.display(),
        format::size(volume.size())
    ));
    Ok(())
}

/// Creates the file and lets `write` fill it; it is durable when this returns, and gone when that fails.
fn write_new(path: &Path, write: impl FnOnce(&File) -> Result<(), CliError>) -> Result<(), CliError> {
    let failed = |action| move |source| file_error(action, path, source);
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.map_err(failed("create"))?;
    let written = write(&file).and_then(|()| file.sync_all().map_err(failed("sync")));
    written.inspect_err(|_| {
        if let Err(error) = fs::remove_file(path) {
            talk(&format!(
                "{} is incomplete, and cannot be removed: {error}",
                path.display()
            ));
        }
    })
}

fn copy(volume: &PointVolume, file: &File, path: &Path) -> Result<(), CliError> {
    let size = volume.size();
    file.set_len(size)
        .map_err(|source| file_error("size", path, source))?;
    let progress = Progress::for_people();
    let mut told_percent = 0;
    let mut at: u64 = 0;
    while at < size {
        for (extent, allocation) in volume.states(at, size).map_err(unreadable)? {
            if allocation == Allocation::Data {
                copy_extent(volume, extent, file, path)?;
            }
            at = extent.end().0;
        }
        let percent = u64::try_from(u128::from(at) * 100 / u128::from(size)).unwrap_or(100);
        if percent >= told_percent + TELLING_PERCENT {
            told_percent = percent;
            progress.line(&format!("{percent} % of {}", format::size(size)));
        }
    }
    Ok(())
}

fn copy_extent(volume: &PointVolume, extent: Extent, file: &File, path: &Path) -> Result<(), CliError> {
    for piece in extent.pieces(PIECE) {
        let mut bytes = vec![0; usize::try_from(piece.length().0).unwrap_or(0)];
        volume.read(piece.start().0, &mut bytes).map_err(unreadable)?;
        let written = file.write_all_at(&bytes, piece.start().0);
        written.map_err(|source| file_error("write", path, source))?;
    }
    Ok(())
}

/// Writes the raw image beside the file that is wanted, and has `qemu-img` make that one of it.
fn write_qcow2(volume: &PointVolume, path: &Path) -> Result<(), CliError> {
    write_new(path, |_| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let raw = tempfile::NamedTempFile::new_in(directory);
        let raw = raw.map_err(|source| file_error("create a file in", directory, source))?;
        copy(volume, raw.as_file(), raw.path())?;
        convert(raw.path(), path).map_err(CliError::Part)
    })
}

fn convert(raw: &Path, path: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(absolute(raw)?)
        .arg(absolute(path)?);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot run qemu-img")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "qemu-img convert failed: {}",
        said.trim()
    );
    Ok(())
}

/// A path that `qemu-img` takes neither for an option nor for an address (`-x.qcow2`, `nbd:x`).
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).context("cannot find the current directory")
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> CliError {
    CliError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

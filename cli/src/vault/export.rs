//! `vault export DIR VM FILE|DIR`: volumes of a recovery point as image files, sparse where nothing was written.
//!
//! Images are written under other names beside those that were asked for and take them at the end, all of them or
//! none: whatever has its final name is whole and durable. A failure, or a signal, leaves nothing behind; after a
//! power cut a `….partial` file may be left.

mod partial;
mod qcow2;
mod raw;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use farshore_nbd::Export;
use farshore_vault::PointReader;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{
    selection::{PointSelection, no_such_volume},
    serve::end_at_signals,
    volume::PointVolume,
};
use crate::{
    exit::CliError,
    output::{bytes_progress::BytesProgress, format, progress::Progress, talk},
};
use partial::Partial;

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which volumes, and where to.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) point: PointSelection,
    /// The image file, with --volume; else a directory that gets an image of every volume
    #[arg(value_name = "FILE|DIR")]
    pub(crate) to: PathBuf,
    /// Only this volume, by its name
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Option<String>,
    /// The images' format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ImageFormat,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) force: bool,
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

/// An image that is wanted.
#[derive(Debug)]
struct Image {
    volume_name: String,
    volume: PointVolume,
    path: PathBuf,
}

/// How many bytes of all images are done; shared with whoever writes.
#[derive(Debug, Clone, Default)]
struct Done(Arc<AtomicU64>);

impl Done {
    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn run(arguments: &ExportArguments) -> Result<(), CliError> {
    let runtime = Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let stop = end_at_signals()?;
        export(arguments, &stop).await
    })
}

async fn export(arguments: &ExportArguments, stop: &CancellationToken) -> Result<(), CliError> {
    let point = Arc::new(arguments.point.open()?);
    let images = plan(arguments, &point)?;
    if !arguments.force
        && let Some(there) = images.iter().find(|image| image.path.symlink_metadata().is_ok())
    {
        return Err(partial::exists(&there.path));
    }
    if arguments.volume.is_none() {
        partial::make_directory(&arguments.to)?;
    }
    let total = images.iter().map(|image| image.volume.size()).sum();
    let mut progress = BytesProgress::new(&Progress::for_people(), "written", Some(total));
    let done = Done::default();
    let mut written = Vec::new();
    for image in images {
        let partial = Partial::beside(&image.path)?;
        let note = format!("volume `{}`", image.volume_name);
        let writing = write(&image, arguments.format, &partial, &done, stop);
        told(writing, &note, &done, &mut progress).await?;
        written.push((image, partial));
    }
    drop(progress);
    for (image, partial) in written {
        partial.persist(&image.path, arguments.force)?;
        talk(&format!(
            "volume `{}` of point {} is in {} ({})",
            image.volume_name,
            point.record().sequence,
            image.path.display(),
            format::size(image.volume.size())
        ));
    }
    Ok(())
}

async fn write(
    image: &Image,
    format: ImageFormat,
    partial: &Partial,
    done: &Done,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    match format {
        ImageFormat::Raw => raw::write(&image.volume, partial, done, stop).await?,
        ImageFormat::Qcow2 => qcow2::write(&image.volume, partial, done, stop).await?,
    }
    partial.sync()
}

/// Shows how far `work` has come until it ends.
async fn told<T>(work: impl Future<Output = T>, note: &str, done: &Done, progress: &mut BytesProgress) -> T {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            _ = looks.tick() => progress.show(done.bytes(), note),
        }
    }
}

/// The images that are wanted, in the order of the volumes.
fn plan(arguments: &ExportArguments, point: &Arc<PointReader>) -> Result<Vec<Image>, CliError> {
    let volumes = PointVolume::all(point).into_iter();
    let Some(wanted) = &arguments.volume else {
        let extension = match arguments.format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        };
        return volumes
            .map(|(volume_name, volume)| {
                let path = file_in(&arguments.to, &volume_name, extension)?;
                Ok(Image {
                    volume_name,
                    volume,
                    path,
                })
            })
            .collect();
    };
    if arguments.to.is_dir() {
        return Err(CliError::Usage(format!(
            "{} is a directory: with --volume, name the image file",
            arguments.to.display()
        )));
    }
    let mut volumes = volumes.filter(|(name, _)| name == wanted);
    let (volume_name, volume) = volumes.next().ok_or_else(|| no_such_volume(point, wanted))?;
    Ok(vec![Image {
        volume_name,
        volume,
        path: arguments.to.clone(),
    }])
}

/// A volume's name may be anything; a file's may not.
fn file_in(directory: &Path, volume: &str, extension: &str) -> Result<PathBuf, CliError> {
    let mut parts = Path::new(volume).components();
    match (parts.next(), parts.next()) {
        (Some(std::path::Component::Normal(name)), None) if name == volume => {
            Ok(directory.join(format!("{volume}.{extension}")))
        }
        (_, _) => Err(CliError::Usage(format!(
            "volume `{volume}` has a name that no file can have: export each one with --volume"
        ))),
    }
}

fn interrupted() -> CliError {
    CliError::Failed {
        message: "the export was interrupted; nothing of it is left".to_owned(),
        reason: "interrupted".to_owned(),
    }
}

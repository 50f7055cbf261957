//! `vault serve DIR`: every volume of a recovery point as a read-only NBD export, until SIGTERM or SIGINT.
//!
//! Recovered VMs run on such a process, so it outlives whoever started it: it ignores SIGHUP, does not care
//! whether anyone still reads its output, and holds no lock of the vault. It serves one point for its whole life.

mod address;

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use farshore_blocks::files;
use farshore_nbd::{Exports, serve_connections};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{selection::PointSelection, volume::PointVolume};
use crate::{
    exit::CliError,
    output::{answer, talk},
};
use address::{Address, Bound};

/// Clients beyond this wait: a VM with all its disks over several connections each needs far fewer.
const CONNECTIONS_MAXIMUM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Threads that read the point for all connections together; requests beyond them wait. It takes some to keep a disk
/// busy, and each costs memory as long as it lives.
const READING_THREADS_MAXIMUM: usize = 64;

/// Which point, and where to serve it.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) point: PointSelection,
    #[command(flatten)]
    pub(crate) address: Address,
    /// Write the process's id to this file, which is removed at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
}

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CliError> {
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(READING_THREADS_MAXIMUM)
        .build();
    let runtime = runtime.context("cannot start the async runtime")?;
    runtime.block_on(async {
        let shutdown = end_at_signals()?;
        serve(arguments, shutdown, |bound| {
            // Whoever started this may be gone already; the recovered VM still needs its disks.
            if let Err(error) = answer(&format!("listening {bound}")) {
                talk(&format!(
                    "nobody reads that it listens on {bound}: {}",
                    error.describe()
                ));
            }
        })
        .await
    })
}

/// Serves until `shutdown`; tells `ready` once clients can dial.
pub(super) async fn serve(
    arguments: &ServeArguments,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Bound),
) -> Result<(), CliError> {
    let point = Arc::new(arguments.point.open()?);
    let exports = exports(&point)?;
    let (listener, bound) = arguments.address.bind().await?;
    let _pid_file = arguments.pid_file.clone().map(PidFile::write).transpose()?;
    talk(&format!(
        "point {} of VM `{}`, read-only: {}",
        point.record().sequence,
        point.vm(),
        exports
            .names()
            .map(|name| bound.export_uri(name))
            .collect::<Vec<_>>()
            .join(" ")
    ));
    ready(&bound);
    serve_connections(listener, exports, CONNECTIONS_MAXIMUM, shutdown).await;
    Ok(())
}

fn exports(point: &Arc<farshore_vault::PointReader>) -> Result<Arc<Exports>, CliError> {
    let mut builder = Exports::builder();
    for (name, volume) in PointVolume::all(point) {
        let added = builder.add(name, Arc::new(volume));
        builder = added.context("a volume's name cannot be that of an NBD export")?;
    }
    Ok(Arc::new(builder.build()))
}

/// Cancelled by SIGTERM or SIGINT; SIGHUP, which ends a process when its terminal goes, does nothing.
pub(super) fn end_at_signals() -> Result<CancellationToken, CliError> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    let cancelled = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {}
            }
        }
        cancelled.cancel();
    });
    Ok(shutdown)
}

/// The file that says which process this is; removed when dropped.
#[derive(Debug)]
struct PidFile {
    path: PathBuf,
}

impl PidFile {
    fn write(path: PathBuf) -> Result<Self, CliError> {
        let content = format!("{}\n", std::process::id());
        match files::replace_file(&path, content.as_bytes()) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(CliError::File {
                action: "write",
                path,
                source,
            }),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            talk(&format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

//! `orchestrator` and `replicator`: the server parts, run until they are told to end.

use std::{io::IsTerminal, path::PathBuf};

use anyhow::Context;
use clap::Args;
use farshore_orchestrator::configuration::{
    ConfigurationError as OrchestratorFileError, OrchestratorConfiguration,
};
use farshore_replicator::{ConfigurationError as ReplicatorFileError, ReplicatorConfiguration};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{exit::CliError, output};

/// What a part is told.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Its configuration, a YAML file
    #[arg(long, value_name = "F")]
    config: PathBuf,
}

/// Runs the orchestrator.
pub(crate) async fn orchestrator(arguments: ServeArguments) -> Result<(), CliError> {
    log_to_stderr("info");
    let configuration = OrchestratorConfiguration::load(&arguments.config).map_err(|error| match error {
        OrchestratorFileError::Unreadable { .. } => CliError::Part(error.into()),
        OrchestratorFileError::Malformed { .. }
        | OrchestratorFileError::NoStateDirectory { .. }
        | OrchestratorFileError::SameAddress { .. }
        | OrchestratorFileError::Insecure { .. } => invalid(error),
    })?;
    let (ready, listening) = oneshot::channel();
    let running = farshore_orchestrator::run(configuration, ready, cancelled_by_signal()?);
    let telling = async {
        if let Ok(listening) = listening.await {
            tell(&format!(
                "listening grpc={} http={}",
                listening.grpc, listening.http
            ));
        }
    };
    let (ran, ()) = tokio::join!(running, telling);
    Ok(ran?)
}

/// Runs a replicator.
pub(crate) async fn replicator(arguments: ServeArguments) -> Result<(), CliError> {
    log_to_stderr("info");
    let configuration = ReplicatorConfiguration::load(&arguments.config).map_err(|error| match error {
        ReplicatorFileError::Unreadable { .. } => CliError::Part(error.into()),
        ReplicatorFileError::Malformed { .. } | ReplicatorFileError::Unfit { .. } => invalid(error),
    })?;
    let executable = std::env::current_exe().context("this executable has no path")?;
    let (ready, listening) = oneshot::channel();
    let running = farshore_replicator::run(configuration, executable, ready, cancelled_by_signal()?);
    let telling = async {
        if let Ok(listening) = listening.await {
            let replication = listening
                .replication
                .map(|address| format!(" replication={address}"));
            tell(&format!(
                "listening{} http={}",
                replication.unwrap_or_default(),
                listening.http
            ));
        }
    };
    let (ran, ()) = tokio::join!(running, telling);
    Ok(ran?)
}

/// Cancelled by SIGINT or SIGTERM.
fn cancelled_by_signal() -> Result<CancellationToken, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    // It lives as long as the process, which has nothing else to do with these signals.
    tokio::spawn(async move {
        select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("told to end");
        cancelled.cancel();
    });
    Ok(stop)
}

fn tell(line: &str) {
    if let Err(error) = output::answer(line) {
        tracing::warn!(%error, "nobody reads where this process listens");
    }
}

/// Logs what is at least as grave as `least`, unless `RUST_LOG` says otherwise.
pub(crate) fn log_to_stderr(least: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(least));
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // A log that is there already stays.
    let _ = format.with_ansi(std::io::stderr().is_terminal()).try_init();
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::InvalidManifest(format!("{:#}", anyhow::Error::new(error)))
}

//! The process: parse, build, run, drain.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    configuration::OrchestratorConfiguration,
    plane::{Listeners, Plane},
};

/// Where an orchestrator listens, with the real ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// gRPC, for users and replicators.
    pub grpc: SocketAddr,
    /// `/metrics`, `/healthz` and `/readyz`.
    pub http: SocketAddr,
}

/// Runs an orchestrator until it is stopped. `ready` gets the addresses once requests are taken.
///
/// # Errors
/// When its state cannot be opened, its addresses cannot be bound, or a part of it fails.
pub async fn run(
    configuration: OrchestratorConfiguration,
    ready: oneshot::Sender<Listening>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let plane = Plane::open(&configuration.state_directory, stop)?;
    let listeners = Listeners {
        grpc: bind(configuration.listen).await?,
        http: bind(configuration.http_listen).await?,
    };
    let listening = Listening {
        grpc: listeners
            .grpc
            .local_addr()
            .context("the gRPC listener has no address")?,
        http: listeners
            .http
            .local_addr()
            .context("the HTTP listener has no address")?,
    };
    tracing::info!(grpc = %listening.grpc, http = %listening.http, "the orchestrator is ready");
    // Nobody may be interested.
    let _ = ready.send(listening);
    plane.run(listeners).await?;
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

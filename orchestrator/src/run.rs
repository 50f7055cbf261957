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

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn configuration(directory: &Path, listen: SocketAddr) -> OrchestratorConfiguration {
        let text = format!(
            "listen: {listen}\nhttpListen: 127.0.0.1:0\nstateDirectory: {}\n",
            directory.display()
        );
        OrchestratorConfiguration::parse(Path::new("o.yaml"), &text).unwrap()
    }

    #[tokio::test]
    async fn it_tells_where_it_listens_and_ends_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (ready, listening) = oneshot::channel();
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(configuration(directory.path(), free), ready, stop.clone()));
        let listening = timeout(LONG, listening).await.unwrap().unwrap();
        assert!(listening.grpc.port() != 0 && listening.http.port() != 0);

        let elsewhere = tempfile::tempdir().unwrap();
        let (ready, _) = oneshot::channel();
        let taken = configuration(elsewhere.path(), listening.grpc);
        let error = timeout(LONG, run(taken, ready, CancellationToken::new()))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {}", listening.grpc));

        let (ready, _) = oneshot::channel();
        let same_state = configuration(directory.path(), free);
        let error = timeout(LONG, run(same_state, ready, CancellationToken::new()))
            .await
            .unwrap()
            .unwrap_err();
        assert!(error.to_string().contains("cannot be opened"), "{error}");

        stop.cancel();
        timeout(LONG, running).await.unwrap().unwrap().unwrap();
    }
}

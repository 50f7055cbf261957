//! Accepts connections up to a bound, and ends them all when told to.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{ServeError, Service};
use crate::export::Exports;

/// How long to wait after a failed accept (no descriptors left, say) before the next one.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Where clients dial.
#[derive(Debug)]
pub enum Listener {
    /// A socket in the file system.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Serves everyone who dials until `shutdown` is cancelled, which ends open connections too. Clients beyond
/// `connections_maximum` wait in the listener's backlog until another one leaves.
pub async fn serve_connections(
    listener: Listener,
    exports: Arc<Exports>,
    connections_maximum: NonZeroUsize,
    shutdown: CancellationToken,
) {
    let service = Service::new(exports);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = accept(&listener), if connections.len() < connections_maximum.get() => match accepted {
                Ok(Accepted::Unix(stream)) => {
                    let (reader, writer) = stream.into_split();
                    connections.spawn(service.clone().serve(reader, writer));
                }
                Ok(Accepted::Tcp(stream)) => {
                    let (reader, writer) = stream.into_split();
                    connections.spawn(service.clone().serve(reader, writer));
                }
                Err(error) => {
                    tracing::warn!(%error, "an NBD client could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream))
        }
    }
}

fn report(ended: Result<Result<(), ServeError>, JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        // Clients vanish in ordinary life (a VM is killed, a tool is interrupted), so that this needs no person.
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(%error, cause, "an NBD connection ended early");
        }
        Err(failure) => tracing::error!(%failure, "the task of an NBD connection failed"),
    }
}

//! The port at which replicators of other sites reach this one: sources that dial it as a target, and targets that offer it, as
//! a source, connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use farshore_proto::v1::{self, replication_server::ReplicationServer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    configuration::ReplicatorConfiguration,
    offering,
    source::Offers,
    target::{Dialling, ReplicationService, Targets},
    wire,
};

/// Connections that wait for the gRPC server, which takes them at once.
const WAITING_CONNECTIONS: usize = 16;
/// How many that have said nothing yet may be open at once.
const SILENT_CONNECTIONS: usize = 256;
/// How long one may say nothing.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(5);
/// After a failure to accept, which is often for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections on which gRPC is served, whoever dialled.
pub(crate) type Served = mpsc::Sender<io::Result<TcpStream>>;

/// The port, with what is served on the connections that come of it or are dialled from here.
pub(crate) struct Port {
    /// Where it is; none if nobody dials this replicator.
    pub(crate) address: Option<SocketAddr>,
    /// With targets: dials sources.
    pub(crate) dialling: Option<Dialling>,
    accepting: Option<JoinHandle<()>>,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Port {
    /// Opens it as it is configured, until `stop` is cancelled.
    pub(crate) async fn open(
        configuration: &ReplicatorConfiguration,
        targets: Option<&Targets>,
        offers: Offers,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let (served, to_serve) = served();
        let state = &configuration.state_directory;
        let dialling = targets
            .map(|_| Dialling::open(state, configuration.plaintext(), served.clone(), stop.clone()))
            .transpose()?;
        let listener = match configuration.replication_listen {
            Some(listen) => {
                let bound = TcpListener::bind(listen).await;
                Some(bound.with_context(|| format!("cannot listen on {listen}"))?)
            }
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let accepting = listener.map(|listener| accept(listener, served, offers, stop.clone()));
        Ok(Self {
            address,
            dialling,
            accepting: accepting.map(tokio::spawn),
            serving: tokio::spawn(serve(to_serve, targets.cloned(), stop.clone())),
        })
    }

    /// Waits until nobody is served any more.
    pub(crate) async fn closed(self) -> anyhow::Result<()> {
        if let Some(accepting) = self.accepting {
            accepting.await?;
        }
        if let Some(dialling) = self.dialling {
            dialling.ended().await;
        }
        self.serving.await?
    }
}

/// Where connections are put on which gRPC is to be served.
pub(crate) fn served() -> (Served, mpsc::Receiver<io::Result<TcpStream>>) {
    mpsc::channel(WAITING_CONNECTIONS)
}

/// Accepts until it is stopped, and gives every connection to whom it is for.
pub(crate) async fn accept(listener: TcpListener, served: Served, offers: Offers, stop: CancellationToken) {
    let silent = Arc::new(Semaphore::new(SILENT_CONNECTIONS));
    let work = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(turn) = Arc::clone(&silent).try_acquire_owned() else {
            tracing::warn!("too many connections say nothing: another one is closed");
            continue;
        };
        let (served, offers, stop) = (served.clone(), offers.clone(), stop.clone());
        work.spawn(async move {
            let sorted = stop.run_until_cancelled(sort(&stream)).await;
            drop(turn);
            match sorted {
                Some(Ok(Caller::Target)) => stop.run_until_cancelled(offers.receive(stream)).await,
                // The server takes what comes until it is stopped.
                Some(Ok(Caller::Client)) => served.send(Ok(stream)).await.ok(),
                // It said nothing, or is gone.
                Some(Err(_)) | None => None,
            }
        });
    }
    work.close();
    work.wait().await;
}

/// Who called.
enum Caller {
    /// A gRPC client, most often a source.
    Client,
    /// A target with an offer.
    Target,
}

async fn sort(stream: &TcpStream) -> io::Result<Caller> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    let peeked = timeout(FIRST_BYTE_LIMIT, stream.peek(&mut first)).await;
    match peeked.map_err(io::Error::other)?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if first == offering::MAGIC[..1] => Ok(Caller::Target),
        _ => Ok(Caller::Client),
    }
}

/// Serves gRPC on every connection, whoever dialled it.
pub(crate) async fn serve(
    connections: mpsc::Receiver<io::Result<TcpStream>>,
    targets: Option<Targets>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let mut reflection = tonic_reflection::server::Builder::configure()
        // The protocol files describe the orchestrator's services too, which are not here.
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
        .with_service_name(tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME)
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    if targets.is_some() {
        reflection = reflection.with_service_name(v1::replication_server::SERVICE_NAME);
        health_reporter
            .set_serving::<ReplicationServer<ReplicationService>>()
            .await;
    }
    let service = targets.map(|targets| {
        ReplicationServer::new(ReplicationService::new(targets, stop.clone()))
            .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
    });
    wire::server()
        .add_optional_service(service)
        .add_service(health)
        .add_service(reflection.build_v1()?)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled_owned())
        .await?;
    Ok(())
}

/// A target's port and its service, as one.
#[cfg(test)]
pub(crate) async fn serve_at(
    listener: TcpListener,
    targets: Targets,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (served, to_serve) = served();
    let accepting = accept(listener, served, Offers::default(), stop.clone());
    let (_, ended) = tokio::join!(accepting, serve(to_serve, Some(targets), stop));
    ended
}

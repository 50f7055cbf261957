//! The gRPC server: which services it has, how its connections are kept alive, and how it drains.

use std::time::Duration;

use farshore_proto::v1;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    api::{DeclarationsService, FailoversService, JobsService, ProtectionService},
    control::Control,
    fleet::Fleet,
};

/// How often an idle connection is asked whether it still lives, and how long its answer may take. Without
/// this a connection stays stuck long after a partition has healed.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Room for a slow answer on a busy machine before a connection is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What reflection lists: the protocol files describe the replicators' service too, which is not here.
const SERVED: [&str; 7] = [
    v1::declarations_server::SERVICE_NAME,
    v1::protection_server::SERVICE_NAME,
    v1::failovers_server::SERVICE_NAME,
    v1::jobs_server::SERVICE_NAME,
    v1::fleet_server::SERVICE_NAME,
    tonic_health::pb::health_server::SERVICE_NAME,
    tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME,
];

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The reflection service could not be built of our own protocol files.
    #[error("the reflection service cannot be built")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the gRPC server failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves until it is stopped, then lets requests end.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: TcpListener,
    control: Control,
    fleet: &Fleet,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let reflection = SERVED
        .into_iter()
        .fold(
            tonic_reflection::server::Builder::configure(),
            tonic_reflection::server::Builder::with_service_name,
        )
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServeError::Reflection)?;
    let declarations =
        v1::declarations_server::DeclarationsServer::new(DeclarationsService::new(control.clone()));
    let protection = v1::protection_server::ProtectionServer::new(ProtectionService::new(control.clone()));
    let failovers = v1::failovers_server::FailoversServer::new(FailoversService::new(control.clone()));
    let jobs = v1::jobs_server::JobsServer::new(JobsService::new(control));
    let attach = fleet.service();
    let (health, health_service) = tonic_health::server::health_reporter();
    set_serving(&health, &declarations).await;
    set_serving(&health, &protection).await;
    set_serving(&health, &failovers).await;
    set_serving(&health, &jobs).await;
    set_serving(&health, &attach).await;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(reflection)
        .add_service(health_service)
        .add_service(declarations)
        .add_service(protection)
        .add_service(failovers)
        .add_service(jobs)
        .add_service(attach)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .map_err(ServeError::Transport)
}

/// A service that is there serves: what it needs was opened before.
async fn set_serving<S: tonic::server::NamedService>(
    health: &tonic_health::server::HealthReporter,
    _service: &S,
) {
    health.set_serving::<S>().await;
}

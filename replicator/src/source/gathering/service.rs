//! The service `farshore.v1.Gathering`, at which members of groups attend whose sources are at other replicators of the site.

use std::{pin::Pin, sync::Arc};

use farshore_proto::v1::{
    self,
    gathering_server::{self, GatheringServer},
};
use futures_util::{Stream, StreamExt};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Groups, hosting,
    messages::{self, FromLeader, Numbered},
};
use crate::wire;

/// A member is answered once for each thing it says, and told of new instants.
const OUTGOING_MESSAGES: usize = 8;
/// How many members may attend: peers must not fill the memory.
const MOST_MEMBERS: usize = 4096;

struct Service {
    groups: Groups,
    free_seats: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Serves until it is stopped.
pub(crate) async fn serve(
    listener: TcpListener,
    groups: Groups,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let service = GatheringServer::new(Service {
        groups,
        free_seats: Arc::new(Semaphore::new(MOST_MEMBERS)),
        stop: stop.clone(),
        tasks: tasks.clone(),
    })
    .max_decoding_message_size(wire::MAX_MESSAGE_BYTES);
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<GatheringServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .with_service_name(gathering_server::SERVICE_NAME)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
        .with_service_name(tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME)
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    wire::server()
        .add_service(service)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
        .await?;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

#[tonic::async_trait]
impl gathering_server::Gathering for Service {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<v1::LeaderMessage, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<v1::MemberMessage>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let seat = Arc::clone(&self.free_seats)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many members attend here"))?;
        let words = request.into_inner().map(|message| {
            let message = message.map_err(|status| status.message().to_owned())?;
            messages::member_in(message).map_err(|malformed| malformed.to_string())
        });
        let (answers, answered) = mpsc::channel::<Numbered<FromLeader>>(OUTGOING_MESSAGES);
        let (farewell, farewells) = mpsc::channel(1);
        let (groups, stop) = (self.groups.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let places = (&groups.own, &groups.tables);
            let ended = tokio::select! {
                () = stop.cancelled() => Status::unavailable("this replicator is shutting down"),
                ended = hosting::host(places, words, answers) => {
                    tracing::info!(%ended, "a member of another replicator does not attend any more");
                    status_of(&ended)
                }
            };
            drop(seat);
            // Who has left does not hear it.
            drop(farewell.send(Err(ended)).await);
        });
        let answers = ReceiverStream::new(answered).map(|answer| Ok(messages::leader_out(answer)));
        Ok(Response::new(Box::pin(
            answers.chain(ReceiverStream::new(farewells)),
        )))
    }
}

fn status_of(ended: &hosting::Ended) -> Status {
    use hosting::Ended;
    let message = ended.to_string();
    match ended {
        Ended::Left | Ended::Broke(_) => Status::cancelled(message),
        Ended::Silent => Status::deadline_exceeded(message),
        Ended::OutOfTurn(_) => Status::failed_precondition(message),
        Ended::OtherSite { .. } => Status::invalid_argument(message),
        Ended::Refused(_) => Status::already_exists(message),
    }
}

#[cfg(test)]
mod tests;

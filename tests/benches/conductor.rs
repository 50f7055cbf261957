//! The bench in the orchestrator's place: replicators attach to it, it gives them their commands and hears their
//! reports, so that what is measured is the data plane alone and every report can be seen.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use farshore_proto::v1::{
    self, command, command_result::Outcome, fleet_server, orchestrator_message, replicator_message,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// A replicator reports as often as it can be asked to.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Commands are few and are waited for one at a time.
const OUTGOING_MESSAGES: usize = 16;
const ATTACH_PATIENCE: Duration = Duration::from_secs(20);
/// A recovered VM's start is the longest command.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Takes replicators in and orders them about, until it is dropped.
pub(crate) struct Conductor {
    address: SocketAddr,
    stand: Stand,
    attached: watch::Receiver<usize>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

type Outgoing = mpsc::Sender<Result<v1::OrchestratorMessage, Status>>;

/// What streams and orders share.
#[derive(Clone)]
struct Stand {
    players: Arc<Mutex<HashMap<String, Player>>>,
    /// Orders that are not answered yet.
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Outcome>>>>,
    attached: Arc<watch::Sender<usize>>,
}

/// A replicator that attached.
#[derive(Clone)]
struct Player {
    registered: v1::Register,
    outgoing: Outgoing,
    report: watch::Receiver<v1::Report>,
}

impl Conductor {
    /// Listens on a free port of loopback.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (told, attached) = watch::channel(0);
        let stand = Stand {
            players: Arc::default(),
            waiting: Arc::default(),
            attached: Arc::new(told),
        };
        let service = fleet_server::FleetServer::new(stand.clone());
        let serving = tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok(Self {
            address,
            stand,
            attached,
            serving,
        })
    }

    /// What replicators dial.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until this replicator is attached; gives what sources dial to reach it.
    pub(crate) async fn attached(&self, name: &str) -> anyhow::Result<String> {
        let mut attached = self.attached.clone();
        let known = attached.wait_for(|_| locked(&self.stand.players).contains_key(name));
        let known = tokio::time::timeout(ATTACH_PATIENCE, known).await;
        known.with_context(|| format!("replicator {name} did not attach"))??;
        Ok(self.player(name)?.registered.replication_endpoint)
    }

    /// What the replicator reports, as it comes.
    pub(crate) fn reports(&self, name: &str) -> anyhow::Result<watch::Receiver<v1::Report>> {
        Ok(self.player(name)?.report)
    }

    /// Gives a command and waits for its outcome; a failure is an error.
    pub(crate) async fn order(&self, name: &str, body: command::Body) -> anyhow::Result<Outcome> {
        let id = uuid::Uuid::now_v7().to_string();
        let (told, outcome) = oneshot::channel();
        locked(&self.stand.waiting).insert(id.clone(), told);
        let command = v1::Command { id, body: Some(body) };
        let message = orchestrator_message::Body::Command(command);
        let outgoing = self.player(name)?.outgoing;
        outgoing.send(Ok(say(message))).await?;
        let outcome = tokio::time::timeout(ANSWER_PATIENCE, outcome).await;
        let outcome = outcome.with_context(|| format!("replicator {name} did not answer"))??;
        if let Outcome::Failure(failure) = &outcome {
            bail!("replicator {name}: {}: {}", failure.reason, failure.message);
        }
        Ok(outcome)
    }

    fn player(&self, name: &str) -> anyhow::Result<Player> {
        let player = locked(&self.stand.players).get(name).cloned();
        player.with_context(|| format!("replicator {name} is not attached"))
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tonic::async_trait]
impl fleet_server::Fleet for Stand {
    type AttachStream = ReceiverStream<Result<v1::OrchestratorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ReplicatorMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.body);
        let Some(replicator_message::Body::Register(registered)) = first else {
            return Err(Status::invalid_argument("a registration comes first"));
        };
        let (outgoing, messages) = mpsc::channel(OUTGOING_MESSAGES);
        let (reported, report) = watch::channel(v1::Report::default());
        let registration = orchestrator_message::Body::Registered(v1::Registered {
            report_interval: REPORT_EVERY.try_into().ok(),
            ..v1::Registered::default()
        });
        // The queue is new, so there is room.
        let _ = outgoing.try_send(Ok(say(registration)));
        let name = registered.name.clone();
        let player = Player {
            registered,
            outgoing,
            report,
        };
        locked(&self.players).insert(name, player);
        self.attached.send_modify(|count| *count += 1);
        let waiting = Arc::clone(&self.waiting);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                match message.body {
                    Some(replicator_message::Body::Report(report)) => {
                        reported.send_replace(report);
                    }
                    Some(replicator_message::Body::Result(result)) => {
                        let told = locked(&waiting).remove(&result.id);
                        if let (Some(told), Some(outcome)) = (told, result.outcome) {
                            // Who asked may have given up.
                            let _ = told.send(outcome);
                        }
                    }
                    Some(replicator_message::Body::Register(_)) | None => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

fn say(body: orchestrator_message::Body) -> v1::OrchestratorMessage {
    v1::OrchestratorMessage { body: Some(body) }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

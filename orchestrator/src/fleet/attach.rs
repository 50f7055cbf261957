//! One replicator's stream, from its registration to its end.
//!
//! Waiting and acting are apart: `next` waits for what happens and changes nothing, `take` changes everything and
//! waits for nothing.

use std::sync::Arc;

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{self, fleet_server, orchestrator_message, replicator_message};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Fleet, SILENT_INTERVALS,
    malformed::Malformed,
    registry::{Arrival, AttachRefused, Delivery, Session},
    wire,
};

/// How many messages may wait for a replicator that does not read; further commands wait with their callers.
const OUTBOUND_BOUND: usize = 64;

/// How long a replicator that does not read is waited for, to tell it why its stream ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The service `farshore.v1.Fleet`.
#[derive(Debug, Clone)]
pub struct FleetService {
    fleet: Fleet,
}

/// What can happen to a stream.
enum Happening {
    Message(Result<Option<Box<v1::ReplicatorMessage>>, Status>),
    AskDue,
    Silence,
    Ended,
}

/// How a stream goes on.
enum Course {
    On,
    Reported,
    End(Option<Status>),
}

impl FleetService {
    pub(super) fn of(fleet: Fleet) -> Self {
        Self { fleet }
    }
}

#[tonic::async_trait]
impl fleet_server::Fleet for FleetService {
    type AttachStream = ReceiverStream<Result<v1::OrchestratorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ReplicatorMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let fleet = &self.fleet;
        if fleet.shared.closing.is_cancelled() {
            return Err(Status::unavailable("the orchestrator is shutting down"));
        }
        let mut inbound = request.into_inner();
        let first = timeout(fleet.shared.options.register_within, inbound.message())
            .await
            .map_err(|_| refusal(&Malformed::NotRegistered))??;
        let register = wire::registration(first).map_err(|malformed| refusal(&malformed))?;
        let (outbound, messages) = mpsc::channel(OUTBOUND_BOUND);
        // The queue is new and empty, so the greeting always fits and comes before any command.
        let _ = outbound.try_send(Ok(greeting(fleet.shared.options.report_interval)));
        let session = fleet.welcome(register, outbound)?;
        let stream = Stream {
            fleet: fleet.clone(),
            session,
            heard_at: Instant::now(),
            ask_at: Instant::now() + fleet.shared.options.report_interval,
            is_silent: false,
        };
        fleet.shared.streams.spawn(stream.run(inbound));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

struct Stream {
    fleet: Fleet,
    session: Session,
    heard_at: Instant,
    ask_at: Instant,
    is_silent: bool,
}

impl Stream {
    async fn run(mut self, mut inbound: Streaming<v1::ReplicatorMessage>) {
        let farewell = loop {
            let happening = self.next(&mut inbound).await;
            match self.take(happening) {
                Course::On => {}
                Course::Reported => {
                    self.heard_at = Instant::now();
                    self.is_silent = false;
                }
                Course::End(farewell) => break farewell,
            }
        };
        self.fleet.change(|registry| registry.detach(&self.session));
        tracing::info!(replicator = %self.session.name, site = %self.session.site, "replicator detached");
        if let Some(status) = farewell {
            // One that does not read learns it from the closed stream.
            let _ = timeout(FAREWELL, self.session.outbound.send(Err(status))).await;
        }
    }

    async fn next(&self, inbound: &mut Streaming<v1::ReplicatorMessage>) -> Happening {
        let silence = self.fleet.shared.options.report_interval * SILENT_INTERVALS;
        tokio::select! {
            () = self.session.ended.cancelled() => Happening::Ended,
            message = inbound.message() => Happening::Message(message.map(|message| message.map(Box::new))),
            () = sleep_until(self.ask_at) => Happening::AskDue,
            () = sleep_until(self.heard_at + silence), if !self.is_silent => Happening::Silence,
        }
    }

    fn take(&mut self, happening: Happening) -> Course {
        match happening {
            Happening::Ended if self.fleet.shared.closing.is_cancelled() => {
                Course::End(Some(Status::unavailable("the orchestrator is shutting down")))
            }
            Happening::Ended => Course::End(Some(Status::aborted(
                "another stream of this replicator's name has taken its place",
            ))),
            Happening::AskDue => {
                self.ask_at = Instant::now() + self.fleet.shared.options.report_interval;
                // One that does not read is not asked again meanwhile: its reports then count as old.
                let _ = self.session.outbound.try_send(Ok(ask()));
                Course::On
            }
            Happening::Silence => {
                self.is_silent = true;
                self.fleet.change(|registry| registry.silent(&self.session));
                tracing::warn!(replicator = %self.session.name, "replicator is attached, but does not report");
                Course::On
            }
            Happening::Message(Ok(Some(message))) => self.take_message(*message).unwrap_or_else(|malformed| {
                tracing::warn!(replicator = %self.session.name, %malformed, "replicator's stream is refused");
                Course::End(Some(refusal(&malformed)))
            }),
            Happening::Message(Ok(None)) => Course::End(None),
            Happening::Message(Err(status)) => {
                tracing::info!(replicator = %self.session.name, %status, "replicator's stream broke");
                Course::End(None)
            }
        }
    }

    fn take_message(&self, message: v1::ReplicatorMessage) -> Result<Course, Malformed> {
        match message.body.ok_or(Malformed::NoBody)? {
            replicator_message::Body::Register(_) => Err(Malformed::RegisteredTwice),
            replicator_message::Body::Report(report) => {
                wire::check_report(&report)?;
                let now = WallTime::now();
                self.fleet
                    .change(|registry| registry.report(&self.session, report, now));
                Ok(Course::Reported)
            }
            replicator_message::Body::Result(result) => {
                let id = result.id.clone();
                let now = WallTime::now();
                match self.fleet.registry().answer(&self.session, result, now) {
                    Delivery::Delivered => Ok(Course::On),
                    Delivery::Ignored => {
                        tracing::debug!(command = %id.escape_debug(), "a result that nobody waits for");
                        Ok(Course::On)
                    }
                    Delivery::Refused(malformed) => Err(malformed),
                }
            }
        }
    }
}

impl Fleet {
    fn welcome(
        &self,
        register: v1::Register,
        outbound: mpsc::Sender<Result<v1::OrchestratorMessage, Status>>,
    ) -> Result<Session, Status> {
        let instance = register.instance.clone();
        let ended = self.shared.closing.child_token();
        let now = WallTime::now();
        let attached = self.change(|registry| registry.attach(register, outbound, ended, now));
        let (session, arrival) = attached.map_err(|refused| {
            tracing::warn!(%refused, "a replicator is refused");
            not_here(&refused)
        })?;
        let (name, site) = (&session.name, &session.site);
        match arrival {
            Arrival::Fresh => tracing::info!(%name, %site, %instance, "replicator attached"),
            Arrival::Replaced => {
                tracing::info!(%name, %site, %instance, "replicator attached in place of an earlier stream");
            }
            Arrival::Flapping => tracing::error!(
                %name, %site, %instance,
                "two replicator processes of one name push each other out; stop one of them"
            ),
        }
        Ok(session)
    }

    /// Changes the registry and publishes what became of it, in this order and under one lock.
    fn change<T>(&self, change: impl FnOnce(&mut super::Registry) -> T) -> T {
        let mut registry = self.registry();
        let changed = change(&mut registry);
        let (sessions, view) = (registry.sessions(), registry.view());
        self.shared.sessions.send_if_modified(|known| {
            let same = known.len() == sessions.len()
                && known
                    .iter()
                    .all(|(name, session)| sessions.get(name).map(|now| now.number) == Some(session.number));
            if !same {
                *known = Arc::clone(&sessions);
            }
            !same
        });
        self.shared.views.send_replace(view);
        changed
    }
}

fn greeting(report_interval: Duration) -> v1::OrchestratorMessage {
    let registered = v1::Registered {
        report_interval: prost_types::Duration::try_from(report_interval).ok(),
        asked_at: Some(wire::timestamp(WallTime::now())),
    };
    v1::OrchestratorMessage {
        body: Some(orchestrator_message::Body::Registered(registered)),
    }
}

fn ask() -> v1::OrchestratorMessage {
    let ask = v1::Ask {
        asked_at: Some(wire::timestamp(WallTime::now())),
    };
    v1::OrchestratorMessage {
        body: Some(orchestrator_message::Body::Ask(ask)),
    }
}

fn refusal(malformed: &Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

fn not_here(refused: &AttachRefused) -> Status {
    match refused {
        AttachRefused::VaultTaken { .. } | AttachRefused::NameElsewhere { .. } => {
            Status::already_exists(refused.to_string())
        }
        AttachRefused::Full => Status::resource_exhausted(refused.to_string()),
    }
}

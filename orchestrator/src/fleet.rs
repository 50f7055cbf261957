//! The fleet: which replicators are attached, what they report, and commands to them.
//!
//! Commands are at-least-once: one waits for the replicator of its site that it is for, is sent again under the same identifier to
//! whoever attaches next, and ends with the first result of that identifier or at its deadline. A command whose
//! caller went away is forgotten; a result that nobody waits for is ignored.

mod addressee;
mod attach;
mod error;
mod malformed;
mod outcome;
mod registry;
mod view;
mod wire;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use farshore_proto::v1;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use attach::FleetService;
pub use error::FleetError;
pub use malformed::Malformed;
pub use view::{FleetView, ReplicatorView};
pub use wire::{duration, timestamp, wall_time};

use crate::replicators::Duty;

use addressee::{Addressee, Found};
use registry::{Answer, Registry, Session, Sessions, Ticket};

/// A report of ten thousand VMs fits; the default of 4 MiB would not take it.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// After how many report intervals without a report a replicator counts as down.
const SILENT_INTERVALS: u32 = 3;

/// How the fleet is run.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// How often replicators are asked to report.
    pub report_interval: Duration,
    /// How long a stream may take until it has said who it is.
    pub register_within: Duration,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_secs(1),
            register_within: Duration::from_secs(10),
        }
    }
}

/// The orchestrator's side of all attached replicators; clones share one fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: FleetOptions,
    registry: Mutex<Registry>,
    sessions: watch::Sender<Sessions>,
    views: watch::Sender<Arc<FleetView>>,
    closing: CancellationToken,
    streams: TaskTracker,
}

impl Fleet {
    /// A fleet without replicators.
    #[must_use]
    pub fn new(options: FleetOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                registry: Mutex::default(),
                sessions: watch::Sender::default(),
                views: watch::Sender::default(),
                closing: CancellationToken::new(),
                streams: TaskTracker::new(),
            }),
        }
    }

    /// The service that replicators attach to.
    #[must_use]
    pub fn service(&self) -> v1::fleet_server::FleetServer<FleetService> {
        v1::fleet_server::FleetServer::new(FleetService::of(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What is known of all replicators, and every change of it.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<FleetView>> {
        self.shared.views.subscribe()
    }

    /// Has the replicator of `site` that has this duty carry out a command and answers its result, which may be a failure that the
    /// replicator tells. `id` names the command: a replicator does the same identifier once.
    ///
    /// # Errors
    /// When no such replicator is attached, several could be meant, or none answers until `deadline` has passed from now, when `id` is in
    /// flight already, when the answer makes no sense, or when the fleet closes.
    pub async fn command(
        &self,
        (site, duty): (&str, Duty),
        id: String,
        body: v1::command::Body,
        deadline: Duration,
    ) -> Result<v1::command_result::Outcome, FleetError> {
        let addressee = Addressee {
            site: site.to_owned(),
            duty,
        };
        let (ticket, answer) = self.registry().expect(addressee.clone(), &id, &body)?;
        let _waiting = Waiting {
            fleet: self,
            id: &id,
            ticket,
        };
        let command = v1::Command {
            id: id.clone(),
            body: Some(body),
        };
        let answered = tokio::select! {
            () = self.shared.closing.cancelled() => return Err(FleetError::Closing),
            answered = timeout(deadline, self.send_until_answered(&addressee, &command, answer)) => answered,
        };
        match answered {
            Ok(Ok(Ok(outcome))) => Ok(outcome),
            Ok(Err(names)) => Err(FleetError::Ambiguous {
                site: site.to_owned(),
                names,
            }),
            Ok(Ok(Err(malformed))) => Err(FleetError::WrongAnswer {
                site: site.to_owned(),
                id: id.clone(),
                malformed,
            }),
            Err(_) => Err(self.missed(addressee, &id, deadline)),
        }
    }

    /// Ends all streams and waits until they have ended. Commands in flight end with [`FleetError::Closing`].
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.streams.close();
        self.shared.streams.wait().await;
    }

    async fn send_until_answered(
        &self,
        addressee: &Addressee,
        command: &v1::Command,
        mut answer: oneshot::Receiver<Answer>,
    ) -> Result<Answer, Vec<String>> {
        let mut sessions = self.shared.sessions.subscribe();
        let mut sent_in = None;
        loop {
            let session = match addressee.among(&sessions.borrow_and_update()) {
                Found::One(session) => Some(session.clone()),
                Found::None => None,
                Found::Several(names) => return Err(names),
            };
            if let Some(session) = session.filter(|session| sent_in != Some(session.number)) {
                sent_in = Some(session.number);
                // A stream that ended meanwhile takes nothing; the next one gets it.
                tokio::select! {
                    answered = &mut answer => return Ok(answered.unwrap_or(Err(Malformed::NoOutcome))),
                    () = send(session, command.clone()) => {}
                }
            }
            tokio::select! {
                answered = &mut answer => return Ok(answered.unwrap_or(Err(Malformed::NoOutcome))),
                _ = sessions.changed() => {}
            }
        }
    }

    fn missed(&self, addressee: Addressee, id: &str, waited: Duration) -> FleetError {
        let is_there = match addressee.among(&self.shared.sessions.borrow()) {
            Found::One(_) | Found::Several(_) => true,
            Found::None => false,
        };
        let Addressee { site, duty } = addressee;
        match duty {
            _ if is_there => FleetError::NoAnswer {
                site,
                id: id.to_owned(),
                waited,
            },
            Duty::Source(Some(replicator)) => FleetError::NamedUnreachable {
                site,
                replicator,
                waited,
            },
            Duty::Source(None) | Duty::Vault => FleetError::Unreachable { site, waited },
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // The registry is changed by methods that cannot panic half-way through.
        self.shared
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(session: Session, command: v1::Command) {
    let message = v1::OrchestratorMessage {
        body: Some(v1::orchestrator_message::Body::Command(command)),
    };
    tokio::select! {
        () = session.ended.cancelled() => {}
        _ = session.outbound.send(Ok(message)) => {}
    }
}

/// Someone who waits for a command's result; when dropped, nobody does any more.
struct Waiting<'a> {
    fleet: &'a Fleet,
    id: &'a str,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.fleet.registry().forget(self.id, self.ticket);
    }
}

#[cfg(test)]
mod tests;

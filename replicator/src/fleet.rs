//! The replicator's stream to the orchestrator: registers, reports, and carries out what it is told. Without an
//! orchestrator everything else goes on.

mod commands;
mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{self, fleet_client::FleetClient, orchestrator_message, replicator_message::Body};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Endpoint;

use crate::{
    convert,
    pauses::Pauses,
    recovery::Recovery,
    source::chain,
    sources::Sources,
    target::{Dialling, Targets},
    wire,
};

/// How many messages may wait for the orchestrator's socket; reports are replaced by the next, results are few.
const OUTGOING_MESSAGES: usize = 64;
const DIAL_LIMIT: Duration = Duration::from_secs(5);
const DEFAULT_REPORT_INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What this replicator can do, and who it is.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) instance: String,
    pub(crate) orchestrator: String,
    /// What replicators of other sites dial; empty if they cannot.
    pub(crate) replication_endpoint: String,
    /// What the other replicators of the site dial; empty if they cannot.
    pub(crate) site_endpoint: String,
    pub(crate) sources: Option<Sources>,
    pub(crate) targets: Option<Targets>,
    /// With targets.
    pub(crate) dialling: Option<Dialling>,
    pub(crate) recovery: Option<Recovery>,
    /// Directories that nobody but this replicator writes to.
    pub(crate) own_directories: Vec<PathBuf>,
}

/// Why an attachment ended.
#[derive(Debug, thiserror::Error)]
enum AttachmentError {
    #[error("the orchestrator cannot be reached")]
    Unreachable(#[from] tonic::transport::Error),
    #[error("the orchestrator refused: {0}")]
    Refused(Box<tonic::Status>),
    #[error("the orchestrator ended the stream")]
    Ended,
}

/// Stays attached until it is stopped.
pub(crate) async fn stay_attached(member: Member, stop: CancellationToken) {
    let member = Arc::new(member);
    let work = TaskTracker::new();
    let under_way = commands::UnderWay::default();
    let mut pauses = Pauses::between(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        let attached_at = WallTime::now();
        let attachment = attach(&member, &work, &under_way);
        let error = tokio::select! {
            () = stop.cancelled() => break,
            error = attachment => error,
        };
        tracing::warn!(error = chain(&error), "not attached to the orchestrator");
        if WallTime::now().since(attached_at) > LONGEST_PAUSE {
            pauses.start_over();
        }
        let pause = pauses.next();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    work.close();
    work.wait().await;
}

/// One stream's life; only its end is given back.
async fn attach(member: &Arc<Member>, work: &TaskTracker, under_way: &commands::UnderWay) -> AttachmentError {
    match attached(member, work, under_way).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn attached(
    member: &Arc<Member>,
    work: &TaskTracker,
    under_way: &commands::UnderWay,
) -> Result<std::convert::Infallible, AttachmentError> {
    let endpoint = Endpoint::from_shared(member.orchestrator.clone())?;
    let channel = wire::client_endpoint(endpoint)
        .connect_timeout(DIAL_LIMIT)
        .connect()
        .await?;
    let (outgoing, receiver) = mpsc::channel(OUTGOING_MESSAGES);
    let say = |body| v1::ReplicatorMessage { body: Some(body) };
    let register = Body::Register(register(member));
    outgoing
        .send(say(register))
        .await
        .map_err(|_| AttachmentError::Ended)?;
    let mut incoming = FleetClient::new(channel)
        .attach(ReceiverStream::new(receiver))
        .await
        .map_err(|status| AttachmentError::Refused(Box::new(status)))?
        .into_inner();
    let mut interval = tokio::time::interval(DEFAULT_REPORT_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked_at = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {
                let report = Body::Report(v1::Report { asked_at, ..report::report(member).await });
                outgoing.send(say(report)).await.map_err(|_| AttachmentError::Ended)?;
            }
            message = incoming.message() => {
                let message = message
                    .map_err(|status| AttachmentError::Refused(Box::new(status)))?
                    .ok_or(AttachmentError::Ended)?;
                match message.body {
                    Some(orchestrator_message::Body::Registered(registered)) => {
                        asked_at = registered.asked_at;
                        let asked = convert::duration_in(registered.report_interval.as_ref(), "report_interval");
                        let period = asked.unwrap_or(DEFAULT_REPORT_INTERVAL);
                        interval = tokio::time::interval(period.max(SHORTEST_PAUSE));
                        tracing::info!(orchestrator = member.orchestrator, "attached");
                    }
                    Some(orchestrator_message::Body::Command(command)) => {
                        let (member, outgoing) = (Arc::clone(member), outgoing.clone());
                        let under_way = under_way.clone();
                        work.spawn(async move {
                            let result = under_way.carry_out(&member, command).await;
                            // Without the stream the orchestrator asks again.
                            let _ = outgoing.send(say(Body::Result(result))).await;
                        });
                    }
                    Some(orchestrator_message::Body::Ask(ask)) => asked_at = ask.asked_at,
                    None => tracing::warn!("an empty message came from the orchestrator"),
                }
            }
        }
    }
}

fn register(member: &Member) -> v1::Register {
    v1::Register {
        name: member.name.clone(),
        site: member.site.clone(),
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: member.instance.clone(),
        replication_endpoint: member.replication_endpoint.clone(),
        vault_incarnation: member
            .targets
            .as_ref()
            .map(|targets| targets.incarnation().as_bytes().to_vec().into())
            .unwrap_or_default(),
        sent_at: Some(convert::time_out(WallTime::now())),
        captures: Some(member.sources.is_some()),
        site_endpoint: member.site_endpoint.clone(),
    }
}

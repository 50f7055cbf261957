//! The gRPC service that sources dial: checks what comes, and hands it to the session's thread.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{
    self, RefusalReason, replication_server::Replication, source_message, target_message,
};
use farshore_transfer::{PROTOCOL_VERSIONS, Phase, Received, Versions, admit};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Targets,
    carriers::{Carriers, CarryAnswers, SessionId},
    comparing::{Comparing, Hashes},
    refusal::Refusal,
    session::{self, Incoming, SessionStart},
};
use crate::convert::{self, Malformed};

/// How many checked messages may wait for the disk: with 1 MiB each, memory stays bounded whatever the disk's speed.
const WAITING_MESSAGES: usize = 8;
/// How many answers may wait for the socket; a source that does not read them is held back.
const WAITING_ANSWERS: usize = 16;
const HELLO_LIMIT: Duration = Duration::from_secs(10);
const SEAT_LIMIT: Duration = Duration::from_secs(10);

/// Serves `Replication`.
#[derive(Debug, Clone)]
pub(crate) struct ReplicationService {
    targets: Targets,
    comparing: Comparing,
    carriers: Carriers,
    stop: CancellationToken,
}

impl ReplicationService {
    pub(crate) fn new(targets: Targets, stop: CancellationToken) -> Self {
        Self {
            targets,
            comparing: Comparing::default(),
            carriers: Carriers::default(),
            stop,
        }
    }
}

type Answers = mpsc::Sender<Result<v1::TargetMessage, Status>>;

#[tonic::async_trait]
impl Replication for ReplicationService {
    type CarryStream = CarryAnswers;
    type CompareStream = Hashes;
    type ReplicateStream = ReceiverStream<Result<v1::TargetMessage, Status>>;

    async fn compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<Response<Self::CompareStream>, Status> {
        let hashes = self.comparing.answer(&self.targets, request.get_ref())?;
        Ok(Response::new(hashes))
    }

    async fn carry(
        &self,
        request: Request<Streaming<v1::Carried>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let answers = self.carriers.carry(request.into_inner()).await?;
        Ok(Response::new(answers))
    }

    async fn replicate(
        &self,
        request: Request<Streaming<v1::SourceMessage>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let (answers, stream) = mpsc::channel(WAITING_ANSWERS);
        let serving = (self.targets.clone(), self.carriers.clone());
        let stop = self.stop.clone();
        let incoming = request.into_inner();
        tokio::spawn(async move {
            if let Err(refusal) = converse(&serving, incoming, answers.clone(), stop).await {
                tracing::warn!(
                    reason = refusal.reason.as_str_name(),
                    refusal.message,
                    "a source was refused"
                );
                let body = target_message::Body::Refused(refusal.into_message());
                // A source that is gone need not be told.
                let _ = answers.send(Ok(v1::TargetMessage { body: Some(body) })).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn converse(
    (targets, carriers): &(Targets, Carriers),
    mut incoming: Streaming<v1::SourceMessage>,
    answers: Answers,
    stop: CancellationToken,
) -> Result<(), Refusal> {
    let first = timeout(HELLO_LIMIT, incoming.message())
        .await
        .map_err(|_| Refusal::new(RefusalReason::Malformed, "no hello came in time"))?;
    let Ok(Some(v1::SourceMessage {
        body: Some(source_message::Body::Hello(hello)),
    })) = first
    else {
        return Err(Refusal::new(
            RefusalReason::Malformed,
            "the first message must be a hello",
        ));
    };
    let mut phase = admit(Phase::AwaitingHello, Received::Hello)?;
    let start = accept(targets, &hello, WallTime::now())?;
    let chain = start.chain;
    let seat = timeout(SEAT_LIMIT, targets.seats.take(chain))
        .await
        .ok()
        .flatten()
        .ok_or_else(|| {
            Refusal::new(
                RefusalReason::Busy,
                "another stream of this chain is still being served",
            )
        })?;
    let leave = seat.leave.clone();
    let (checked, waiting) = mpsc::channel(WAITING_MESSAGES);
    let carried = carriers.register(start.session, checked.clone());
    let thread = session::spawn(targets.clone(), start, seat, waiting, answers);
    let ended = loop {
        let message = tokio::select! {
            () = stop.cancelled() => break Ok(()),
            () = leave.cancelled() => break Ok(()),
            () = checked.closed() => break Ok(()),
            message = incoming.message() => message,
        };
        // A cut stream is no refusal: the cycle waits for the next one.
        let Ok(Some(message)) = message else { break Ok(()) };
        match check(&mut phase, message).await {
            Ok(incoming) => {
                carried.cycle.set(match phase {
                    Phase::InCycle(cycle) => cycle,
                    Phase::AwaitingHello | Phase::Idle => 0,
                });
                if checked.send(incoming).await.is_err() {
                    break Ok(());
                }
            }
            Err(refusal) => break Err(refusal),
        }
    };
    drop(carried);
    drop(checked);
    session::join(thread).await;
    ended
}

fn accept(targets: &Targets, hello: &v1::Hello, received: WallTime) -> Result<SessionStart, Refusal> {
    let offered = Versions::offered(hello.oldest_protocol_version, hello.protocol_version);
    let version = PROTOCOL_VERSIONS.agree(offered)?;
    let chain = convert::chain_in(&hello.chain)?;
    let epoch = convert::epoch_in(hello.epoch.as_ref())?;
    let current = targets.vault.current_epoch(chain).map_err(Refusal::from)?;
    if current.is_none_or(|current| !epoch.may_write(&current)) {
        targets.change(chain, |standing| {
            standing.refused_fenced = standing.refused_fenced.saturating_add(1);
        });
        let shown = current.map_or("none was granted".to_owned(), |epoch| epoch.to_string());
        return Err(Refusal {
            reason: RefusalReason::Fenced,
            message: format!("epoch {epoch} is refused: the chain's epoch is {shown}"),
            current: current.map(convert::epoch_out),
        });
    }
    Ok(SessionStart {
        version,
        session: SessionId::random(),
        chain,
        epoch,
        hello_received_at: received,
    })
}

/// Checks order and content of a message; what passes can be trusted to be well-formed.
async fn check(phase: &mut Phase, message: v1::SourceMessage) -> Result<Incoming, Refusal> {
    let body = message.body.ok_or(Malformed::Missing("body"))?;
    *phase = admit(*phase, received(&body))?;
    match body {
        source_message::Body::Hello(_) => Err(Refusal::new(
            RefusalReason::Malformed,
            "a second hello is refused",
        )),
        source_message::Body::Begin(begin) => Ok(Incoming::begin(&begin)?),
        source_message::Body::Changes(changes) => changes_in(changes).await,
        source_message::Body::Seal(seal) => Ok(Incoming::seal(seal)?),
        source_message::Body::Abandon(abandon) => Ok(Incoming::Abandon { cycle: abandon.cycle }),
        source_message::Body::StillValid(valid) => Ok(Incoming::still_valid(&valid)?),
    }
}

/// Decompressing takes a thread of its own; to check what came as it is takes no time.
pub(super) async fn changes_in(changes: v1::Changes) -> Result<Incoming, Refusal> {
    let is_compressed = |frame: &v1::Frame| frame.encoding() == v1::FrameEncoding::Zstd;
    if !changes.frames.iter().any(is_compressed) {
        return Ok(Incoming::changes(changes)?);
    }
    let checked = tokio::task::spawn_blocking(move || Incoming::changes(changes)).await;
    let checked = checked.map_err(|error| Refusal::new(RefusalReason::Storage, error))?;
    Ok(checked?)
}

fn received(body: &source_message::Body) -> Received {
    match body {
        source_message::Body::Hello(_) => Received::Hello,
        source_message::Body::Begin(begin) => Received::Begin(begin.cycle),
        source_message::Body::Changes(changes) => Received::Changes(changes.cycle),
        source_message::Body::Seal(seal) => Received::Seal(seal.cycle),
        source_message::Body::Abandon(abandon) => Received::Abandon(abandon.cycle),
        source_message::Body::StillValid(_) => Received::StillValid,
    }
}

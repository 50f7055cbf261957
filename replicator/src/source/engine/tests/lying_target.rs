//! A target that takes part as it should but for one answer, which is a lie.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::replication_server::{Replication, ReplicationServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::convert;

/// Its lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It picks a version of the protocol that nobody offered.
    Version,
    /// It welcomes with half an incarnation.
    Incarnation,
    /// It holds messages of a cycle that has just begun.
    HeldBeforeItWasSent,
    /// It acknowledges what was never sent.
    AcknowledgedBeforeItWasSent,
    /// It acknowledges another cycle.
    OtherCycle,
    /// It seals something else.
    OtherPoint,
    /// It answers a message by a welcome.
    OutOfTurn,
}

struct LyingTarget(Lie);

type Answers = ReceiverStream<Result<v1::TargetMessage, Status>>;

#[tonic::async_trait]
impl Replication for LyingTarget {
    type CarryStream = ReceiverStream<Result<v1::CarryAnswer, Status>>;
    type CompareStream = ReceiverStream<Result<v1::BlockHashes, Status>>;
    type ReplicateStream = Answers;

    async fn compare(&self, _: Request<v1::CompareRequest>) -> Result<Response<Self::CompareStream>, Status> {
        Err(Status::unimplemented("nothing is compared here"))
    }

    async fn carry(&self, _: Request<Streaming<v1::Carried>>) -> Result<Response<Self::CarryStream>, Status> {
        Err(Status::unimplemented("nothing is carried here"))
    }

    async fn replicate(
        &self,
        request: Request<Streaming<v1::SourceMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let (answers, stream) = mpsc::channel(16);
        let (lie, mut incoming) = (self.0, request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let Some(body) = answer(lie, message.body.unwrap()) else {
                    continue;
                };
                if answers
                    .send(Ok(v1::TargetMessage { body: Some(body) }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn answer(lie: Lie, body: Body) -> Option<target_message::Body> {
    let welcome = |lie| {
        let now = Some(convert::time_out(WallTime::now()));
        target_message::Body::Welcome(v1::Welcome {
            volumes: Vec::new(),
            newest_sizes: Vec::new(),
            seeds: Vec::new(),
            session: Vec::new().into(),
            carriers: 0,
            protocol_version: if lie == Lie::Version { 9 } else { 1 },
            vault_incarnation: vec![1; if lie == Lie::Incarnation { 8 } else { 16 }].into(),
            newest: None,
            open: None,
            hello_received_at: now,
            sent_at: now,
            window_bytes: 1 << 20,
        })
    };
    Some(match body {
        Body::Hello(_) => welcome(lie),
        Body::Begin(begin) => target_message::Body::Begun(v1::CycleBegun {
            window_bytes: 0,
            open: Some(v1::OpenCycle {
                cycle: begin.cycle,
                kind: begin.kind,
                sequence: 1,
                durable_through_message: if lie == Lie::HeldBeforeItWasSent { 3 } else { 0 },
                watermarks: Vec::new(),
                changes: Vec::new(),
            }),
        }),
        Body::Changes(_) if lie == Lie::OutOfTurn => welcome(lie),
        Body::Changes(changes) => target_message::Body::Acknowledged(v1::Acknowledged {
            window_bytes: 0,
            cycle: changes.cycle ^ u64::from(lie == Lie::OtherCycle),
            durable_through_message: changes.message
                + 1000 * u64::from(lie == Lie::AcknowledgedBeforeItWasSent),
        }),
        Body::Seal(seal) => target_message::Body::Sealed(v1::Sealed {
            point: Some(v1::PointHead {
                sequence: seal.sequence,
                digest: vec![6; 32].into(),
            }),
        }),
        Body::Abandon(_) | Body::StillValid(_) => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lies_is_told_from_a_true_one_and_replication_goes_on_with_that() {
    for (lie, reason) in [
        (Lie::Version, "version 9 of the protocol, which was not offered"),
        (Lie::Incarnation, "vault_incarnation"),
        (
            Lie::HeldBeforeItWasSent,
            "message 3 is acknowledged where 0 were sent",
        ),
        (Lie::AcknowledgedBeforeItWasSent, "is acknowledged where"),
        (Lie::OtherCycle, "another cycle's acknowledgement"),
        (Lie::OtherPoint, "the target sealed"),
        (Lie::OutOfTurn, "a welcome where an acknowledgement was due"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liar = listener.local_addr().unwrap().to_string();
        let serving = tonic::transport::Server::builder()
            .add_service(ReplicationServer::new(LyingTarget(lie)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(serving);
        let cutter = WireCutter::start(&liar, u64::MAX).await;
        let directory = tempfile::tempdir().unwrap();
        let target = Target::start(directory.path()).await;
        let vm = MemoryVm::new(DISK_BYTES);
        let mut running = Running::start(&vm, assignment(cutter.address(), target.prepare()));
        let state = running
            .until("a reason", |state| state.detail.contains(reason))
            .await;
        assert_eq!(state.phase, SourcePhase::Connecting, "{lie:?}");
        assert_eq!(state.newest, None, "{lie:?}: nothing of it is believed");
        cutter.redirect(&target.endpoint);
        serving.abort();
        running
            .until("a true point", |state| state.newest.is_some())
            .await;
        running.stop().await;
        assert_every_point_is_true(&target, &vm);
        target.stop().await;
    }
}

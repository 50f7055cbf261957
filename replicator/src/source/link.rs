//! The source's stream to its target: opened with a hello, answered by a welcome or a refusal.

use std::time::Duration;

use farshore_blocks::{ByteCount, ChangeDigest, Digest, Incarnation, Sequence, VolumeIndex, clock::WallTime};
use farshore_proto::v1::{self, replication_client::ReplicationClient, source_message, target_message};
use farshore_transfer::{HeldCycle, PROTOCOL_VERSIONS, PointHead, TargetHead, Watermark};
use futures_util::{FutureExt, future::select_all};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    carriers::Carriers,
    clock::{ClockEstimate, Exchange},
    reach::Reach,
};
use crate::{
    assignment::Assignment,
    convert::{self, Malformed},
    wire,
};

/// How many messages may wait for the socket: with 1 MiB a message this stays far below the window.
const OUTGOING_MESSAGES: usize = 4;
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the target may take to answer a hello, a begin or a seal: it may be waiting for a slow disk.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// An open stream that was welcomed.
pub(crate) struct Link {
    outgoing: mpsc::Sender<v1::SourceMessage>,
    incoming: Streaming<v1::TargetMessage>,
    pub(crate) welcome: Welcomed,
    pub(crate) carriers: Carriers,
}

/// What the target said of the chain when it welcomed us.
#[derive(Debug, Clone)]
pub(crate) struct Welcomed {
    pub(crate) vault: Incarnation,
    pub(crate) newest: Option<PointHead>,
    pub(crate) open: Option<OpenCycle>,
    pub(crate) clock: ClockEstimate,
    pub(crate) window: ByteCount,
    /// The chain's, by index, as the point that comes next has them; none from a target that does not say.
    pub(crate) volumes: Vec<v1::Volume>,
    /// In the newest point, by index.
    pub(crate) newest_sizes: Vec<ByteCount>,
    /// Of which volumes it has an older copy, and how much.
    pub(crate) seeds: Vec<(VolumeIndex, ByteCount)>,
}

/// The cycle that the target holds open.
#[derive(Debug, Clone)]
pub(crate) struct OpenCycle {
    pub(crate) cycle: u64,
    pub(crate) is_scan: bool,
    pub(crate) sequence: Sequence,
    pub(crate) durable_through: u64,
    pub(crate) watermarks: Vec<Watermark>,
    pub(crate) changes: Vec<ChangeDigest>,
}

impl OpenCycle {
    /// How much of which cycle it is.
    pub(crate) fn held(&self) -> HeldCycle {
        HeldCycle {
            cycle: self.cycle,
            durable_through: self.durable_through,
        }
    }
}

impl Welcomed {
    /// What plans need of it.
    pub(crate) fn head(&self) -> TargetHead {
        TargetHead {
            newest: self.newest,
            open: self.open.as_ref().map(OpenCycle::held),
        }
    }
}

/// Why there is no stream, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the target {endpoint} cannot be reached")]
    Unreachable {
        endpoint: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the target did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the stream to the target ended")]
    Ended,
    #[error("the stream to the target failed: {0}")]
    Failed(Box<tonic::Status>),
    #[error("the target refused: {message}")]
    Refused {
        reason: v1::RefusalReason,
        message: String,
    },
    #[error("the target's answer cannot be understood")]
    Malformed(#[from] Malformed),
    #[error(
        "the target picked version {0} of the protocol, which was not offered; offered: {PROTOCOL_VERSIONS}"
    )]
    Version(u32),
    #[error("the target answered {got} where {expected} was due")]
    Unexpected {
        got: &'static str,
        expected: &'static str,
    },
    #[error(transparent)]
    Acknowledgement(#[from] farshore_transfer::AcknowledgementError),
}

impl Link {
    /// Reaches the target of `assignment` and says hello.
    pub(crate) async fn open(assignment: &Assignment, reach: &Reach) -> Result<Self, LinkError> {
        let unreachable = |source: tonic::transport::Error| LinkError::Unreachable {
            endpoint: reach.to_string(),
            source: Box::new(source),
        };
        let channel = reach.connect().await.map_err(unreachable)?;
        let mut client = ReplicationClient::new(channel).max_decoding_message_size(wire::MAX_MESSAGE_BYTES);
        let (outgoing, receiver) = mpsc::channel(OUTGOING_MESSAGES);
        let sent = WallTime::now();
        let hello = hello(assignment, sent);
        outgoing
            .send(message(source_message::Body::Hello(hello)))
            .await
            .map_err(|_| LinkError::Ended)?;
        let mut incoming = timeout(ANSWER_LIMIT, client.replicate(ReceiverStream::new(receiver)))
            .await
            .map_err(|_| LinkError::TimedOut(ANSWER_LIMIT))?
            .map_err(|status| LinkError::Failed(Box::new(status)))?
            .into_inner();
        let answer = timeout(ANSWER_LIMIT, next(&mut incoming))
            .await
            .map_err(|_| LinkError::TimedOut(ANSWER_LIMIT))??;
        let target_message::Body::Welcome(welcome) = answer else {
            return Err(unexpected(&answer, "a welcome"));
        };
        let carriers = Carriers::of(welcome.session.clone(), welcome.carriers);
        let welcome = welcomed(welcome, sent, WallTime::now())?;
        Ok(Self {
            outgoing,
            incoming,
            welcome,
            carriers,
        })
    }

    /// Sends; waits while the socket cannot take more.
    pub(crate) async fn send(&self, body: source_message::Body) -> Result<(), LinkError> {
        self.outgoing
            .send(message(body))
            .await
            .map_err(|_| LinkError::Ended)
    }

    /// Sends changes on whichever connection takes them first; waits while none does.
    pub(crate) async fn carry(&self, changes: v1::Changes) -> Result<(), LinkError> {
        if self.carriers.count() == 0 {
            return self.send(source_message::Body::Changes(changes)).await;
        }
        let own = async {
            let place = self.outgoing.reserve().await.map_err(|_| LinkError::Ended)?;
            let put = |changes| place.send(message(source_message::Body::Changes(changes)));
            Ok(Box::new(put) as Box<dyn FnOnce(v1::Changes) + Send + '_>)
        };
        // More waits in the stream's own queue, which therefore comes last.
        let places = self.carriers.places().map(FutureExt::boxed);
        let (place, ..) = select_all(places.chain(std::iter::once(own.boxed()))).await;
        place?(changes);
        Ok(())
    }

    /// The target's next message. May be dropped and called again without losing one.
    pub(crate) async fn receive(&mut self) -> Result<target_message::Body, LinkError> {
        tokio::select! {
            biased;
            message = next(&mut self.incoming) => message,
            error = self.carriers.broken() => Err(error),
        }
    }

    /// What the stream says, whatever became of other connections.
    pub(crate) async fn last_word(&mut self) -> Result<target_message::Body, LinkError> {
        next(&mut self.incoming).await
    }

    /// The target's next message, within the limit of an answer.
    pub(crate) async fn answer(&mut self) -> Result<target_message::Body, LinkError> {
        timeout(ANSWER_LIMIT, self.receive())
            .await
            .map_err(|_| LinkError::TimedOut(ANSWER_LIMIT))?
    }
}

async fn next(incoming: &mut Streaming<v1::TargetMessage>) -> Result<target_message::Body, LinkError> {
    let message = incoming
        .message()
        .await
        .map_err(|status| LinkError::Failed(Box::new(status)))?
        .ok_or(LinkError::Ended)?;
    match message.body {
        Some(target_message::Body::Refused(refused)) => Err(LinkError::Refused {
            reason: refused.reason(),
            message: refused.message,
        }),
        Some(body) => Ok(body),
        None => Err(Malformed::Missing("body").into()),
    }
}

fn message(body: source_message::Body) -> v1::SourceMessage {
    v1::SourceMessage { body: Some(body) }
}

fn hello(assignment: &Assignment, sent: WallTime) -> v1::Hello {
    let volumes = assignment
        .volumes
        .iter()
        .map(|volume| v1::Volume {
            name: volume.name.clone(),
            size_bytes: volume.size.0,
        })
        .collect();
    v1::Hello {
        protocol_version: PROTOCOL_VERSIONS.newest(),
        oldest_protocol_version: PROTOCOL_VERSIONS.oldest(),
        chain: assignment.chain.as_bytes().to_vec().into(),
        epoch: Some(convert::epoch_out(assignment.epoch)),
        vm: assignment.machine.vm.clone(),
        volumes,
        sent_at: Some(convert::time_out(sent)),
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn welcomed(welcome: v1::Welcome, sent: WallTime, received: WallTime) -> Result<Welcomed, LinkError> {
    if !PROTOCOL_VERSIONS.range().contains(&welcome.protocol_version) {
        return Err(LinkError::Version(welcome.protocol_version));
    }
    let exchange = Exchange {
        sent,
        received_there: convert::time_in(welcome.hello_received_at.as_ref(), "hello_received_at")?,
        answered_there: convert::time_in(welcome.sent_at.as_ref(), "sent_at")?,
        received,
    };
    Ok(Welcomed {
        vault: convert::incarnation_in(&welcome.vault_incarnation)?,
        newest: welcome.newest.as_ref().map(convert::point_head_in).transpose()?,
        open: welcome.open.as_ref().map(open_cycle).transpose()?,
        clock: ClockEstimate::from_exchange(&exchange),
        window: ByteCount(welcome.window_bytes.max(1)),
        volumes: welcome.volumes,
        newest_sizes: welcome.newest_sizes.into_iter().map(ByteCount).collect(),
        seeds: welcome
            .seeds
            .iter()
            .map(|seed| (VolumeIndex(seed.volume), ByteCount(seed.size_bytes)))
            .collect(),
    })
}

fn open_cycle(open: &v1::OpenCycle) -> Result<OpenCycle, Malformed> {
    let is_scan = match open.kind() {
        v1::CycleKind::Base | v1::CycleKind::Resync => true,
        v1::CycleKind::Delta => false,
        v1::CycleKind::Unspecified => return Err(Malformed::Missing("kind")),
    };
    Ok(OpenCycle {
        cycle: open.cycle,
        is_scan,
        sequence: Sequence(open.sequence),
        durable_through: open.durable_through_message,
        watermarks: open.watermarks.iter().map(convert::watermark_in).collect(),
        changes: open
            .changes
            .iter()
            .map(convert::change_in)
            .collect::<Result<_, _>>()?,
    })
}

/// The error for an answer that was not due.
pub(crate) fn unexpected(body: &target_message::Body, expected: &'static str) -> LinkError {
    let got = match body {
        target_message::Body::Welcome(_) => "a welcome",
        target_message::Body::Begun(_) => "a begun cycle",
        target_message::Body::Acknowledged(_) => "an acknowledgement",
        target_message::Body::Sealed(_) => "a sealed point",
        target_message::Body::Refused(_) => "a refusal",
        target_message::Body::Abandoned(_) => "an abandoned cycle",
    };
    LinkError::Unexpected { got, expected }
}

/// The point that a seal made.
pub(crate) fn sealed_point(sealed: &v1::Sealed) -> Result<PointHead, LinkError> {
    let head = sealed.point.as_ref().ok_or(Malformed::Missing("point"))?;
    Ok(convert::point_head_in(head)?)
}

/// The head that a begin names as its base.
pub(crate) fn base_out(base: Option<PointHead>) -> Option<v1::PointHead> {
    base.map(convert::point_head_out)
}

/// The parent digest of the point on top of `base`.
pub(crate) fn parent_digest(base: Option<PointHead>) -> Digest {
    base.map_or_else(Digest::default, |point| point.digest)
}

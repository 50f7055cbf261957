//! Connections on which changes travel beside the session's stream. The stream alone says what became of them; a connection that
//! breaks ends the session, which resumes as after any cut.

use bytes::Bytes;
use farshore_proto::v1::{self, carried, replication_client::ReplicationClient};
use futures_util::FutureExt;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;

use super::{
    link::{ANSWER_LIMIT, LinkError},
    reach::Reach,
};

/// How many messages may wait for a connection's socket: a slow one must not hold many up that others could have taken.
const WAITING_MESSAGES: usize = 1;
/// How many of those that broke are told; one is enough.
const BROKEN: usize = 1;

/// Those of one session.
#[derive(Debug)]
pub(crate) struct Carriers {
    /// By what the target knows the session; empty if nobody may carry for it.
    session: Bytes,
    most: usize,
    open: Vec<Carrier>,
    /// Not used any more, but what they carried may not have arrived yet.
    retired: Vec<Carrier>,
    opening: Option<JoinHandle<Result<Carrier, LinkError>>>,
    broke: mpsc::Sender<LinkError>,
    broken: mpsc::Receiver<LinkError>,
}

#[derive(Debug)]
struct Carrier {
    outgoing: mpsc::Sender<v1::Carried>,
    _ends_with_this: DropGuard,
}

/// What came of opening one.
pub(crate) type Opened = Result<(), LinkError>;

/// Takes a message.
type Place<'a> = Box<dyn FnOnce(v1::Changes) + Send + 'a>;

impl Carriers {
    /// None yet, of a session that the target calls so and for which so many may carry.
    pub(crate) fn of(session: Bytes, most: u32) -> Self {
        let (broke, broken) = mpsc::channel(BROKEN);
        let most = if session.is_empty() { 0 } else { most };
        Self {
            session,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            open: Vec::new(),
            retired: Vec::new(),
            opening: None,
            broke,
            broken,
        }
    }

    /// How many may be open.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// How many are.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    /// Begins to open one more.
    pub(crate) fn widen(&mut self, reach: Reach) {
        let (session, broke) = (self.session.clone(), self.broke.clone());
        self.opening = Some(tokio::spawn(open(session, reach, broke)));
    }

    /// What came of it, once something did.
    pub(crate) fn opened(&mut self) -> Option<Opened> {
        let opened = self.opening.as_mut()?.now_or_never()?;
        self.opening = None;
        Some(
            opened
                .unwrap_or(Err(LinkError::Ended))
                .map(|carrier| self.open.push(carrier)),
        )
    }

    /// Nothing more is given to the one that was opened last.
    pub(crate) fn narrow(&mut self) {
        self.retired.extend(self.open.pop());
    }

    /// Everything that was carried has arrived.
    pub(crate) fn drained(&mut self) {
        self.retired.clear();
    }

    /// Waits for one that breaks.
    pub(crate) async fn broken(&mut self) -> LinkError {
        match self.broken.recv().await {
            Some(error) => error,
            // A sender is kept here.
            None => std::future::pending().await,
        }
    }

    /// For each, a place in it as soon as it has one.
    pub(crate) fn places(&self) -> impl Iterator<Item = impl Future<Output = Result<Place<'_>, LinkError>>> {
        self.open.iter().map(|carrier| async {
            let place = carrier.outgoing.reserve().await.map_err(|_| LinkError::Ended)?;
            Ok(Box::new(move |changes| place.send(message(carried::Body::Changes(changes)))) as Place<'_>)
        })
    }
}

async fn open(session: Bytes, reach: Reach, broke: mpsc::Sender<LinkError>) -> Result<Carrier, LinkError> {
    let unreachable = |source: tonic::transport::Error| LinkError::Unreachable {
        endpoint: reach.to_string(),
        source: Box::new(source),
    };
    let channel = reach.connect().await.map_err(unreachable)?;
    let mut client = ReplicationClient::new(channel);
    let (outgoing, receiver) = mpsc::channel(WAITING_MESSAGES);
    let join = message(carried::Body::Join(v1::Join { session }));
    outgoing.send(join).await.map_err(|_| LinkError::Ended)?;
    let joined = async {
        let failed = |status| LinkError::Failed(Box::new(status));
        let answers = client.carry(ReceiverStream::new(receiver)).await;
        let mut answers = answers.map_err(failed)?.into_inner();
        let joined = answers.message().await.map_err(failed)?;
        joined.map(|_| answers).ok_or(LinkError::Ended)
    };
    let limited = timeout(ANSWER_LIMIT, joined).await;
    let answers = limited.map_err(|_| LinkError::TimedOut(ANSWER_LIMIT))??;
    let stop = CancellationToken::new();
    tokio::spawn(watch(answers, broke, stop.clone()));
    Ok(Carrier {
        outgoing,
        _ends_with_this: stop.drop_guard(),
    })
}

/// Tells when the target ends it, unless it is let go before.
async fn watch(
    mut answers: Streaming<v1::CarryAnswer>,
    broke: mpsc::Sender<LinkError>,
    stop: CancellationToken,
) {
    let ended = async {
        loop {
            match answers.message().await {
                Ok(Some(v1::CarryAnswer {})) => {}
                Ok(None) => return "it ended".to_owned(),
                Err(status) => return status.to_string(),
            }
        }
    };
    if let Some(why) = stop.run_until_cancelled(ended).await {
        tracing::info!(why, "a connection that carried changes broke");
        // Another one that broke was told of already. The stream says why, if there is more to say.
        let _ = broke.try_send(LinkError::Ended);
    }
}

fn message(body: carried::Body) -> v1::Carried {
    v1::Carried { body: Some(body) }
}

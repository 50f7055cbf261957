//! Connections that carry changes beside a session's stream: who may, and what they bring.
//!
//! They bring checked messages to where the session's own go; the session's thread puts them in order. Nothing is decided here
//! that the session's stream decides: a carrier that breaks its word ends, and what it did not bring is missing there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use farshore_proto::v1::{self, carried};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{service::changes_in, session::Incoming};

/// How many may carry for one session, beside its stream.
pub(super) const MOST: u32 = 7;
const JOIN_LIMIT: Duration = Duration::from_secs(10);

pub(crate) type CarryAnswers = ReceiverStream<Result<v1::CarryAnswer, Status>>;

/// What whoever wants to carry must know of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId([u8; 16]);

/// Of all sessions; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Carriers {
    sessions: Arc<Mutex<BTreeMap<SessionId, Session>>>,
}

#[derive(Debug, Clone)]
struct Session {
    checked: mpsc::Sender<Incoming>,
    cycle: OpenCycle,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The cycle that a session is in; 0 is none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenCycle(Arc<AtomicU64>);

/// While it lives, others may carry for the session.
#[derive(Debug)]
pub(super) struct Registration {
    carriers: Carriers,
    id: SessionId,
    pub(super) cycle: OpenCycle,
    stop: CancellationToken,
}

impl SessionId {
    /// One that nobody can guess.
    pub(super) fn random() -> Self {
        Self(*uuid::Uuid::new_v4().as_bytes())
    }

    /// As it is told.
    pub(super) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl OpenCycle {
    pub(super) fn set(&self, cycle: u64) {
        self.0.store(cycle, Ordering::Release);
    }

    fn is(&self, cycle: u64) -> bool {
        cycle != 0 && self.0.load(Ordering::Acquire) == cycle
    }
}

impl Carriers {
    /// Lets others carry for a session whose messages go there.
    pub(super) fn register(&self, id: SessionId, checked: mpsc::Sender<Incoming>) -> Registration {
        let session = Session {
            checked,
            cycle: OpenCycle::default(),
            room: Arc::new(Semaphore::new(usize::try_from(MOST).unwrap_or(usize::MAX))),
            stop: CancellationToken::new(),
        };
        let registration = Registration {
            carriers: self.clone(),
            id,
            cycle: session.cycle.clone(),
            stop: session.stop.clone(),
        };
        self.sessions().insert(id, session);
        registration
    }

    /// Joins a stream to the session that it names, and takes what it carries.
    ///
    /// # Errors
    /// When it does not name one that may be joined.
    pub(super) async fn carry(&self, mut incoming: Streaming<v1::Carried>) -> Result<CarryAnswers, Status> {
        let first = timeout(JOIN_LIMIT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("nothing was joined in time"))??;
        let Some(carried::Body::Join(join)) = first.and_then(|message| message.body) else {
            return Err(Status::invalid_argument("the first message must join a session"));
        };
        let session = self.session(&join.session)?;
        let room = Arc::clone(&session.room).try_acquire_owned();
        let room =
            room.map_err(|_| Status::resource_exhausted("no more connections may carry for this session"))?;
        // In the order of messages: from here on some may come early.
        let ended = || Status::aborted("the session has ended");
        let joined = session.checked.send(Incoming::CarrierJoined).await;
        joined.map_err(|_| ended())?;
        let (answers, stream) = mpsc::channel(1);
        answers.send(Ok(v1::CarryAnswer {})).await.map_err(|_| ended())?;
        tokio::spawn(async move {
            let carried = session
                .stop
                .run_until_cancelled(take(&session, incoming, room))
                .await;
            let Some(Ok(())) = carried else {
                let status = carried.and_then(Result::err).unwrap_or_else(ended);
                // Nobody may be listening any more.
                let _ = answers.send(Err(status)).await;
                return;
            };
        });
        Ok(ReceiverStream::new(stream))
    }

    fn session(&self, id: &[u8]) -> Result<Session, Status> {
        let id = id.try_into().map(SessionId);
        let id = id.map_err(|_| Status::invalid_argument("a session is named by 16 bytes"))?;
        let session = self.sessions().get(&id).cloned();
        session.ok_or_else(|| Status::not_found("there is no such session"))
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what comes, until it ends in order.
async fn take(
    session: &Session,
    mut incoming: Streaming<v1::Carried>,
    _room: OwnedSemaphorePermit,
) -> Result<(), Status> {
    while let Some(message) = incoming.message().await? {
        let Some(carried::Body::Changes(changes)) = message.body else {
            return Err(Status::invalid_argument("only changes are carried"));
        };
        if !session.cycle.is(changes.cycle) {
            return Err(Status::failed_precondition("changes of a cycle that is not open"));
        }
        let checked = changes_in(changes).await;
        let checked = checked.map_err(|refusal| Status::invalid_argument(refusal.message))?;
        let taken = session.checked.send(checked).await;
        taken.map_err(|_| Status::aborted("the session has ended"))?;
    }
    Ok(())
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.carriers.sessions().remove(&self.id);
        self.stop.cancel();
    }
}

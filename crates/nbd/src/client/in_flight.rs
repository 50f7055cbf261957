//! The requests that wait for their replies, until the connection is lost for all of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::assembly::{ReadAssembly, Refusal, StatusAssembly, Violation};
use crate::bounds::Share;
use crate::wire::WireError;
use crate::wire::reply::WireDescriptor;

/// Why a connection is gone.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionLoss {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// A request was not answered in time.
    #[error("the server left a request unanswered for {limit:?}")]
    Silent {
        /// How long it had.
        limit: Duration,
    },
    /// The stream failed.
    #[error("the connection failed")]
    Stream(#[from] io::Error),
    /// What came is not NBD.
    #[error("the server does not speak NBD")]
    Wire(#[from] WireError),
    /// What came is NBD, but not what may come.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// This side closed it.
    #[error("the connection was closed on this side")]
    Dropped,
}

/// A request that waits, with its part of the bounds and whom to tell.
pub(super) struct Waiting {
    pub(super) request: WaitingFor,
    pub(super) _share: Share,
}

/// What is waited for.
pub(super) enum WaitingFor {
    Read(ReadAssembly, oneshot::Sender<Result<Bytes, Refusal>>),
    Status(
        StatusAssembly,
        oneshot::Sender<Result<Vec<WireDescriptor>, Refusal>>,
    ),
}

/// All requests that wait.
pub(super) struct InFlight {
    table: Mutex<Table>,
}

enum Table {
    Open {
        entries: HashMap<u64, Entry>,
        next_cookie: u64,
    },
    Lost(Arc<ConnectionLoss>),
}

struct Entry {
    asked_at: Instant,
    /// Nothing while a reply to it is being received.
    waiting: Option<Waiting>,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            table: Mutex::new(Table::Open {
                entries: HashMap::new(),
                next_cookie: 1,
            }),
        }
    }

    /// Adds a request and returns its cookie.
    pub(super) fn add(&self, waiting: Waiting) -> Result<u64, Arc<ConnectionLoss>> {
        match &mut *self.table() {
            Table::Lost(loss) => Err(Arc::clone(loss)),
            Table::Open { entries, next_cookie } => {
                let cookie = *next_cookie;
                *next_cookie = next_cookie.wrapping_add(1);
                entries.insert(
                    cookie,
                    Entry {
                        asked_at: Instant::now(),
                        waiting: Some(waiting),
                    },
                );
                Ok(cookie)
            }
        }
    }

    /// Takes a request out to work on its reply. It goes on counting as unanswered until it is removed.
    pub(super) fn take(&self, cookie: u64) -> Result<Waiting, Violation> {
        match &mut *self.table() {
            Table::Lost(_) => None,
            Table::Open { entries, .. } => entries.get_mut(&cookie).and_then(|entry| entry.waiting.take()),
        }
        .ok_or(Violation::UnknownCookie { cookie })
    }

    /// Puts a request back whose reply goes on.
    pub(super) fn put_back(&self, cookie: u64, waiting: Waiting) {
        if let Table::Open { entries, .. } = &mut *self.table()
            && let Some(entry) = entries.get_mut(&cookie)
        {
            entry.waiting = Some(waiting);
        }
    }

    /// Forgets a request that is answered.
    pub(super) fn remove(&self, cookie: u64) {
        if let Table::Open { entries, .. } = &mut *self.table() {
            entries.remove(&cookie);
        }
    }

    /// When the oldest unanswered request was asked.
    pub(super) fn oldest(&self) -> Option<Instant> {
        match &*self.table() {
            Table::Lost(_) => None,
            Table::Open { entries, .. } => entries.values().map(|entry| entry.asked_at).min(),
        }
    }

    /// The connection is gone: everyone who waits is let go, and nobody is added any more.
    pub(super) fn lose(&self, loss: ConnectionLoss) {
        *self.table() = Table::Lost(Arc::new(loss));
    }

    pub(super) fn loss(&self) -> Option<Arc<ConnectionLoss>> {
        match &*self.table() {
            Table::Lost(loss) => Some(Arc::clone(loss)),
            Table::Open { .. } => None,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while the lock is held, and each change is complete in itself.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

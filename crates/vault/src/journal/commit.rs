//! Group commit: those who commit at the same time, for whichever chains, share one write and one sync.
//!
//! Whoever finds nobody committing commits for all who wait; the others wait for their outcome.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use super::{CommitError, Journal};
use crate::{edit::Edit, state::VaultState, storage::StorageError};

/// The journal and its state, shared by all chains' writers.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    settled: Condvar,
    journal: Mutex<Journal>,
    state: RwLock<VaultState>,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    waiting: Vec<(u64, Vec<Edit>)>,
    committing: bool,
    outcomes: BTreeMap<u64, Result<(), Failure>>,
}

/// A failure that many share.
#[derive(Debug, Clone)]
struct Failure {
    happened: bool,
    operation: &'static str,
    path: PathBuf,
    kind: io::ErrorKind,
    number: Option<i32>,
    message: String,
}

impl Committer {
    pub(crate) fn new(journal: Journal, state: VaultState) -> Self {
        Self {
            queue: Mutex::default(),
            settled: Condvar::new(),
            journal: Mutex::new(journal),
            state: RwLock::new(state),
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, VaultState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the edits happen, all or none; when this returns they are durable and in the state.
    ///
    /// # Errors
    /// When the file system fails.
    pub(crate) fn commit(&self, edits: Vec<Edit>) -> Result<(), CommitError> {
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket = ticket.saturating_add(1);
        queue.waiting.push((ticket, edits));
        loop {
            if let Some(outcome) = queue.outcomes.remove(&ticket) {
                return outcome.map_err(Failure::into_error);
            }
            if !queue.committing {
                break;
            }
            queue = self.settled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.committing = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        let (tickets, batches): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let outcome = self.commit_all(batches);
        let mut queue = self.lock();
        queue.committing = false;
        for other in tickets.into_iter().filter(|other| *other != ticket) {
            queue.outcomes.insert(other, outcome.clone());
        }
        drop(queue);
        self.settled.notify_all();
        outcome.map_err(Failure::into_error)
    }

    /// Makes sure that readers see everything that happened.
    ///
    /// # Errors
    /// When the file system fails.
    pub(crate) fn confirm(&self) -> Result<(), StorageError> {
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .confirm()
    }

    fn commit_all(&self, batches: Vec<Vec<Edit>>) -> Result<(), Failure> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = journal.append(&batches);
        if let Err(error) = &outcome
            && !error.happened()
        {
            return outcome.map_err(Failure::from);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for edit in batches.into_iter().flatten() {
            if let Err(error) = state.apply(edit) {
                tracing::error!(error = %error, "a committed edit does not fit the vault's state");
            }
        }
        drop(state);
        if journal.wants_rotation()
            && let Err(error) = journal.rotate(&self.state())
        {
            tracing::warn!(error = %error, "the journal goes on growing: no new one could be begun");
        }
        outcome.map_err(Failure::from)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        let happened = error.happened();
        let error = StorageError::from(error);
        Self {
            happened,
            operation: error.operation,
            path: error.path,
            kind: error.source.kind(),
            number: error.source.raw_os_error(),
            message: error.source.to_string(),
        }
    }
}

impl Failure {
    fn into_error(self) -> CommitError {
        let source = match self.number {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(self.kind, self.message),
        };
        let error = StorageError {
            operation: self.operation,
            path: self.path,
            source,
        };
        if self.happened {
            CommitError::Unconfirmed(error)
        } else {
            CommitError::NotCommitted(error)
        }
    }
}

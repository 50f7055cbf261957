//! A store in memory for tests, that can die after so many writes.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::{CommitError, Committing, Content, Key, Revision, Store, StoreError, Stored, Transaction};

pub(crate) struct MemoryStore {
    content: Mutex<Content>,
    commits_left: Mutex<Option<usize>>,
    revisions: watch::Sender<Revision>,
}

impl MemoryStore {
    /// One that never dies.
    pub(crate) fn over(content: Content) -> Self {
        Self {
            revisions: watch::Sender::new(content.revision()),
            content: Mutex::new(content),
            commits_left: Mutex::new(None),
        }
    }

    /// One that makes so many commits and refuses all later ones, as if the process had been killed.
    pub(crate) fn dying_after(content: Content, commits: usize) -> Self {
        let store = Self::over(content);
        *store.commits_left.lock().unwrap() = Some(commits);
        store
    }

    pub(crate) fn content(&self) -> Content {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    fn make(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        let mut content = self.lock();
        let delta = content
            .decide(transaction)
            .map_err(|key| CommitError::Conflict { key })?;
        if let Some(left) = self.commits_left.lock().unwrap().as_mut() {
            *left = left
                .checked_sub(1)
                .ok_or(CommitError::Broken(StoreError::Closed))?;
        }
        content.apply(&delta);
        self.revisions.send_replace(delta.revision);
        Ok(delta.revision)
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &Key) -> Option<Stored> {
        self.lock().read(key)
    }

    fn list(&self, prefix: &str) -> Vec<(Key, Stored)> {
        self.lock().list(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Committing<'_> {
        Box::pin(async move { self.make(&transaction) })
    }

    fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }
}

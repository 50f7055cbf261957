//! Owns the embedded store: sled, made durable, behind one thread that commits in groups.
//!
//! sled's own flush does not reach the disk (it leaves the file's metadata and the drive's cache unsynced), so
//! each group is one atomic batch, a flush, and then an `fdatasync` of sled's file; only then do readers see
//! it and are its writers answered. After a failed write nobody knows what is durable: the store stays
//! broken until it is opened again. So that a full disk does not make such a failure, nothing is written without some room to spare.
//!
//! Crash story: a kill before the `fdatasync` leaves the group there or not, as a whole, and nobody was told
//! that it is; after it, it is there.

mod records;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    thread,
};

use rustix::fs::statvfs;
use tokio::sync::{mpsc, oneshot, watch};

use super::{CommitError, Committing, Content, Key, Revision, Store, StoreError, Stored, Transaction};
use records::Records;

/// How many commits may wait for the group before theirs: as many callers as there can be at once.
const QUEUED_COMMITS: usize = 256;
/// How many commits one group takes at most, so that nobody waits for an endless one.
const GROUP_COMMITS: usize = 64;
/// Without so much room nothing is written: sled's file grows by half a MiB at a time, and by more for a large group.
const LEAST_ROOM_BYTES: u64 = 8 << 20;

/// sled in a directory.
pub struct EmbeddedStore {
    published: Arc<RwLock<Content>>,
    revisions: watch::Receiver<Revision>,
    requests: Option<mpsc::Sender<Request>>,
    owner: Option<thread::JoinHandle<()>>,
}

struct Request {
    transaction: Transaction,
    answer: oneshot::Sender<Result<Revision, CommitError>>,
}

/// All that the owning thread works with.
struct Owner {
    directory: PathBuf,
    least_room_bytes: u64,
    records: Records,
    file: File,
    /// Ahead of `published` only within a group.
    working: Content,
    published: Arc<RwLock<Content>>,
    revisions: watch::Sender<Revision>,
    broken: Option<StoreError>,
}

impl EmbeddedStore {
    /// Opens the store in this directory, or makes one.
    ///
    /// # Errors
    /// When it is damaged, of another version, or opened by another process; the directory is then left as it
    /// is.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with_room(directory, LEAST_ROOM_BYTES)
    }

    fn open_with_room(directory: &Path, least_room_bytes: u64) -> Result<Self, StoreError> {
        let refused = |message: String| StoreError::Open {
            path: directory.to_owned(),
            message,
        };
        let records = Records::open(directory)?;
        let working = records.load().map_err(refused)?;
        let file = File::open(records.file()).map_err(|error| refused(error.to_string()))?;
        let published = Arc::new(RwLock::new(working.clone()));
        let (requests, queue) = mpsc::channel(QUEUED_COMMITS);
        let (revisions, watched) = watch::channel(working.revision());
        let owner = Owner {
            directory: directory.to_owned(),
            least_room_bytes,
            records,
            file,
            working,
            published: published.clone(),
            revisions,
            broken: None,
        };
        let owner = thread::Builder::new()
            .name("state-store".to_owned())
            .spawn(move || owner.serve(queue))
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            published,
            revisions: watched,
            requests: Some(requests),
            owner: Some(owner),
        })
    }
}

impl Store for EmbeddedStore {
    fn read(&self, key: &Key) -> Option<Stored> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .read(key)
    }

    fn list(&self, prefix: &str) -> Vec<(Key, Stored)> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .list(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Committing<'_> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let closed = || CommitError::Broken(StoreError::Closed);
            let requests = self.requests.as_ref().ok_or_else(closed)?;
            requests
                .send(Request { transaction, answer })
                .await
                .map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        })
    }

    fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.clone()
    }
}

impl Drop for EmbeddedStore {
    /// Waits for the owner, so that the directory can be opened again afterwards.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(owner) = self.owner.take()
            && owner.join().is_err()
        {
            tracing::error!("the thread that owned the state store had panicked");
        }
    }
}

impl Owner {
    fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP_COMMITS);
        while queue.blocking_recv_many(&mut group, GROUP_COMMITS) > 0 {
            self.commit_group(&mut group);
        }
    }

    fn commit_group(&mut self, group: &mut Vec<Request>) {
        let mut batch = sled::Batch::default();
        let mut deltas = Vec::new();
        let mut answers = Vec::new();
        let room = self.room();
        for request in group.drain(..) {
            let decided = match (&self.broken, &room) {
                (Some(error), _) => Err(CommitError::Broken(error.clone())),
                (None, Err(error)) => Err(CommitError::NoRoom(error.clone())),
                (None, Ok(())) => self
                    .working
                    .decide(&request.transaction)
                    .map_err(|key| CommitError::Conflict { key }),
            };
            let answer = decided.map(|delta| {
                self.working.apply(&delta);
                Records::add(&mut batch, &delta);
                let revision = delta.revision;
                deltas.push(delta);
                revision
            });
            answers.push((request.answer, answer));
        }
        if !deltas.is_empty() {
            self.make_durable(batch, &deltas);
        }
        for (sender, answer) in answers {
            let answer = match (&self.broken, answer) {
                (Some(error), Ok(_)) => Err(CommitError::Broken(error.clone())),
                (_, answer) => answer,
            };
            // Whoever asked may be gone; what was committed stays committed.
            let _ = sender.send(answer);
        }
    }

    /// A file system that does not say how much it has left has enough.
    fn room(&self) -> Result<(), StoreError> {
        let left = statvfs(&self.directory).map(|told| told.f_bavail.saturating_mul(told.f_frsize));
        if left.is_ok_and(|left| left < self.least_room_bytes) {
            return Err(StoreError::NoRoom {
                path: self.directory.clone(),
            });
        }
        Ok(())
    }

    fn make_durable(&mut self, batch: sled::Batch, deltas: &[super::content::Delta]) {
        let written = self
            .records
            .write(batch)
            .and_then(|()| self.file.sync_data().map_err(|error| error.to_string()));
        if let Err(message) = written {
            tracing::error!(%message, "the state store cannot be written any more");
            self.broken = Some(StoreError::Write { message });
            return;
        }
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        for delta in deltas {
            published.apply(delta);
        }
        drop(published);
        self.revisions.send_replace(self.working.revision());
    }
}

#[cfg(test)]
mod tests;

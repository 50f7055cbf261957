//! Owns what the control plane must not forget: small versioned records, changed by compare-and-swap.
//!
//! A full disk changes nothing and is no end: whoever writes is refused until there is room again.
//!
//! Readers see only what is durable. A reader may be late, which a compare-and-swap then refuses; nothing
//! outside this module knows which store it talks to.

mod content;
mod embedded;
mod key;
#[cfg(test)]
pub(crate) mod memory;
mod transaction;

use std::{future::Future, path::PathBuf, pin::Pin};

use tokio::sync::watch;

pub use embedded::EmbeddedStore;
pub use key::Key;
pub use transaction::{Change, Expected, Transaction, Write};

pub(crate) use content::Content;

/// The number of a change of the store. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// A record as it is stored: its content, and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The revision that wrote it: what a compare-and-swap compares.
    pub version: Revision,
    /// The document.
    pub document: Vec<u8>,
}

/// A commit under way.
pub type Committing<'a> = Pin<Box<dyn Future<Output = Result<Revision, CommitError>> + Send + 'a>>;

/// The state store.
pub trait Store: Send + Sync + 'static {
    /// The record of this key.
    fn read(&self, key: &Key) -> Option<Stored>;

    /// All records whose key begins so, in order of their keys.
    fn list(&self, prefix: &str) -> Vec<(Key, Stored)>;

    /// Makes all of the transaction durable, or nothing of it.
    fn commit(&self, transaction: Transaction) -> Committing<'_>;

    /// The newest revision that readers can see; it changes with every commit.
    fn revisions(&self) -> watch::Receiver<Revision>;
}

/// A transaction that was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else changed a record that it depends on. It may be decided anew.
    #[error("`{key}` was changed by someone else")]
    Conflict {
        /// The first such record.
        key: Key,
    },
    /// There is too little room to write anything. Nothing was changed; when there is room, it can be tried again.
    #[error(transparent)]
    NoRoom(StoreError),
    /// The store cannot tell any more what is durable. Only opening it again can.
    #[error(transparent)]
    Broken(StoreError),
}

/// A store that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened.
    #[error("the state store in {} cannot be opened: {message}. The directory was left as it is", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// What the engine said.
        message: String,
    },
    /// It could not be written; what is durable is known only after it was opened again.
    #[error("the state store cannot be written: {message}")]
    Write {
        /// What the engine or the file system said.
        message: String,
    },
    /// Its file system is as good as full.
    #[error("the file system of the state store in {} has no room left; nothing was changed: make room and try again", path.display())]
    NoRoom {
        /// Its directory.
        path: PathBuf,
    },
    /// A record in it is not what this version writes.
    #[error("the record `{key}` cannot be read: {message}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// Others changed the same records all the time.
    #[error("too many others changed the same records at the same time; try again")]
    Contended,
    /// It was closed.
    #[error("the state store was closed")]
    Closed,
}

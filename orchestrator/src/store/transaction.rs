//! A change of several records that is made as a whole or not at all.

use super::{Key, Revision};

/// What a record must be like for a transaction to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// It was written by this revision and not changed since.
    Version(Revision),
}

/// One record of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which.
    pub key: Key,
    /// What it must be like before.
    pub expected: Expected,
    /// What becomes of it.
    pub change: Change,
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the transaction only depends on it.
    Keep,
    /// This document.
    Put(Vec<u8>),
    /// It goes.
    Remove,
}

/// Several writes and entries of the store's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub(super) writes: Vec<Write>,
    pub(super) log: Vec<Vec<u8>>,
}

impl Transaction {
    /// One that changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record.
    pub fn put(&mut self, key: Key, expected: Expected, document: Vec<u8>) {
        self.set(key, expected, Change::Put(document));
    }

    /// Removes a record.
    pub fn remove(&mut self, key: Key, expected: Expected) {
        self.set(key, expected, Change::Remove);
    }

    /// Depends on a record without changing it, unless the transaction changes it anyway.
    pub fn depend(&mut self, key: Key, expected: Expected) {
        if !self.writes.iter().any(|write| write.key == key) {
            self.set(key, expected, Change::Keep);
        }
    }

    /// Appends to the log, of which only the newest entries are kept.
    pub fn log(&mut self, document: Vec<u8>) {
        self.log.push(document);
    }

    /// Whether it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let changes = self.writes.iter().any(|write| write.change != Change::Keep);
        !changes && self.log.is_empty()
    }

    fn set(&mut self, key: Key, expected: Expected, change: Change) {
        match self.writes.iter_mut().find(|write| write.key == key) {
            Some(write) => write.change = change,
            None => self.writes.push(Write {
                key,
                expected,
                change,
            }),
        }
    }
}

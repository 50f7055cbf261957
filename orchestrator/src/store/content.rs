//! Decides what a transaction makes of the records: all of them in memory, in order.
//!
//! The log is kept under its own keys, numbered by revision, so that its numbers only grow; the revision
//! itself is a record, so that it goes on growing after a restart.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    Key, Revision, Stored,
    transaction::{Change, Expected, Transaction},
};

/// The kind of the log's entries.
pub(crate) const LOG: &str = "event";
/// How many entries the log keeps: enough for weeks of a fleet, and a small part of what memory holds.
pub(crate) const LOG_ENTRIES: usize = 10_000;

/// The records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    records: BTreeMap<Key, Stored>,
    revision: Revision,
    log_entries: usize,
}

/// What a transaction changes, record by record: what a durable store has to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) revision: Revision,
    /// In this order; a removal is `None`.
    pub(crate) changes: Vec<(Key, Option<Stored>)>,
}

impl Content {
    pub(crate) fn of(records: BTreeMap<Key, Stored>, revision: Revision) -> Self {
        let mut content = Self {
            records,
            revision,
            log_entries: 0,
        };
        content.log_entries = content.list(&format!("{LOG}/")).len();
        content
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn read(&self, key: &Key) -> Option<Stored> {
        self.records.get(key).cloned()
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<(Key, Stored)> {
        self.range(prefix)
            .map(|(key, stored)| (key.clone(), stored.clone()))
            .collect()
    }

    fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, &'a Stored)> {
        let from = Bound::Included(Key::from_stored(prefix.to_owned()));
        self.records
            .range((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// What the transaction would change, or the first record that is not as it expects.
    pub(crate) fn decide(&self, transaction: &Transaction) -> Result<Delta, Key> {
        for write in &transaction.writes {
            let found = self.records.get(&write.key).map(|stored| stored.version);
            let fits = match write.expected {
                Expected::Absent => found.is_none(),
                Expected::Version(version) => found == Some(version),
            };
            if !fits {
                return Err(write.key.clone());
            }
        }
        let mut revision = Revision(self.revision.0.saturating_add(1));
        let mut changes = Vec::new();
        for write in &transaction.writes {
            match &write.change {
                Change::Keep => {}
                Change::Put(document) => changes.push((write.key.clone(), Some(stored(revision, document)))),
                Change::Remove => changes.push((write.key.clone(), None)),
            }
        }
        for document in &transaction.log {
            changes.push((log_key(revision), Some(stored(revision, document))));
            revision = Revision(revision.0.saturating_add(1));
        }
        changes.extend(self.outdated(transaction.log.len()).map(|key| (key, None)));
        Ok(Delta { revision, changes })
    }

    /// The log's oldest entries, as far as so many new ones push them out.
    fn outdated(&self, fresh: usize) -> impl Iterator<Item = Key> {
        let surplus = match fresh {
            0 => 0,
            _ => self.log_entries.saturating_add(fresh).saturating_sub(LOG_ENTRIES),
        };
        self.range("event/").take(surplus).map(|(key, _)| key.clone())
    }

    pub(crate) fn apply(&mut self, delta: &Delta) {
        let prefix = format!("{LOG}/");
        for (key, change) in &delta.changes {
            let replaced = match change {
                Some(stored) => self.records.insert(key.clone(), stored.clone()).is_some(),
                None => self.records.remove(key).is_some(),
            };
            if key.as_str().starts_with(&prefix) {
                match (change, replaced) {
                    (Some(_), false) => self.log_entries = self.log_entries.saturating_add(1),
                    (None, true) => self.log_entries = self.log_entries.saturating_sub(1),
                    (Some(_), true) | (None, false) => {}
                }
            }
        }
        self.revision = delta.revision;
    }
}

fn stored(version: Revision, document: &[u8]) -> Stored {
    Stored {
        version,
        document: document.to_vec(),
    }
}

fn log_key(revision: Revision) -> Key {
    Key::new(LOG, &format!("{:020}", revision.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, expected: Expected) -> Transaction {
        let mut transaction = Transaction::new();
        transaction.put(Key::new("vm", key), expected, b"{}".to_vec());
        transaction
    }

    #[test]
    fn a_transaction_that_expects_something_else_changes_nothing() {
        let mut content = Content::default();
        let delta = content.decide(&put("a", Expected::Absent)).unwrap();
        content.apply(&delta);
        assert_eq!(
            content.decide(&put("a", Expected::Absent)),
            Err(Key::new("vm", "a"))
        );
        assert!(
            content
                .decide(&put("a", Expected::Version(Revision(99))))
                .is_err()
        );
        let mut mixed = put("b", Expected::Absent);
        mixed.depend(Key::new("vm", "a"), Expected::Absent);
        assert_eq!(content.decide(&mixed), Err(Key::new("vm", "a")));
        assert!(content.decide(&put("a", Expected::Version(Revision(1)))).is_ok());
    }

    #[test]
    fn a_kind_is_listed_without_its_neighbours() {
        let mut content = Content::default();
        for key in [Key::new("v", "x"), Key::new("vm", "a"), Key::new("vms", "b")] {
            let mut transaction = Transaction::new();
            transaction.put(key, Expected::Absent, Vec::new());
            let delta = content.decide(&transaction).unwrap();
            content.apply(&delta);
        }
        let names: Vec<_> = content.list("vm/").into_iter().map(|(key, _)| key).collect();
        assert_eq!(names, [Key::new("vm", "a")]);
    }

    #[test]
    fn the_log_keeps_its_newest_entries_and_its_order() {
        let mut content = Content::default();
        for number in 0..LOG_ENTRIES + 5 {
            let mut transaction = Transaction::new();
            transaction.log(number.to_string().into_bytes());
            let delta = content.decide(&transaction).unwrap();
            content.apply(&delta);
        }
        let entries = content.list("event/");
        assert_eq!(entries.len(), LOG_ENTRIES);
        assert_eq!(entries[0].1.document, b"5");
        assert_eq!(
            entries[LOG_ENTRIES - 1].1.document,
            (LOG_ENTRIES + 4).to_string().into_bytes()
        );
    }
}

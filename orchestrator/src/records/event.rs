//! The log of what happened: entries of the store's own log, numbered by it.

use farshore_blocks::clock::WallTime;
use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When.
    pub at: WallTime,
    /// How bad.
    pub severity: Severity,
    /// To what, like `vm/shop-db`.
    pub subject: String,
    /// A stable code in kebab case.
    pub code: String,
    /// For people.
    pub message: String,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// Good to know.
    Information,
    /// Needs attention soon.
    Warning,
    /// Needs a person now.
    Critical,
}

pub(super) fn seal(event: &EventRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(event).map_err(|error| StoreError::Record {
        key: "event".to_owned(),
        message: error.to_string(),
    })
}

/// The log with its numbers, newest first.
///
/// # Errors
/// When an entry cannot be read.
pub fn events_newest_first(store: &dyn Store) -> Result<Vec<(u64, EventRecord)>, StoreError> {
    let entries = store.list("event/");
    entries
        .into_iter()
        .rev()
        .map(|(key, stored)| {
            let refused = |message: String| StoreError::Record {
                key: key.to_string(),
                message,
            };
            let number = key.as_str().trim_start_matches("event/").parse();
            let number = number.map_err(|_| refused("its number is damaged".to_owned()))?;
            let event =
                serde_json::from_slice(&stored.document).map_err(|error| refused(error.to_string()))?;
            Ok((number, event))
        })
        .collect()
}

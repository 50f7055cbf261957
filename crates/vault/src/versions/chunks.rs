//! A sorted stream of entries, chunk by chunk.

use std::iter::Peekable;

use crate::{damage::FileError, entry::Entry};

/// All entries of one chunk after the other. After an error there is nothing more.
pub(crate) struct Chunks<Entries: Iterator> {
    entries: Peekable<Entries>,
    failed: bool,
}

impl<Entries: Iterator<Item = Result<Entry, FileError>>> Chunks<Entries> {
    /// The entries come in key order.
    pub(crate) fn new(entries: Entries) -> Self {
        Self {
            entries: entries.peekable(),
            failed: false,
        }
    }

    fn next_chunk(&mut self) -> Result<Vec<Entry>, FileError> {
        let mut chunk: Vec<Entry> = Vec::new();
        let first = |chunk: &[Entry]| chunk.first().map(Entry::version);
        while let Some(next) = self.entries.next_if(|next| match (next, first(&chunk)) {
            (Ok(entry), Some(first)) => entry.version().same_chunk(first),
            // An error is taken as well: half a chunk is not a chunk.
            (Ok(_), None) | (Err(_), _) => true,
        }) {
            chunk.push(next?);
        }
        Ok(chunk)
    }
}

impl<Entries: Iterator<Item = Result<Entry, FileError>>> Iterator for Chunks<Entries> {
    type Item = Result<Vec<Entry>, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let chunk = self.next_chunk();
        self.failed = chunk.is_err();
        match chunk {
            Ok(chunk) if chunk.is_empty() => None,
            chunk => Some(chunk),
        }
    }
}

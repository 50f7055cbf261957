//! The entries that are in no run yet, kept in memory and rebuilt from the segments.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Bound};

use farshore_blocks::{Sequence, VolumeIndex};

use crate::entry::{Entry, EntryKey, VersionKey};

/// Entries in key order; within a version they never overlap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memtable {
    entries: BTreeMap<EntryKey, Entry>,
}

impl Memtable {
    /// Lets the entry show over whatever its own sequence has put there before. Other sequences are not touched.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let version = entry.version();
        let (from, to) = (entry.start_in_chunk(), entry.end_in_chunk());
        if let Some(before) = self.last_before(entry.key())
            && before.end_in_chunk() > from
        {
            self.replace(&before, [before.part(0, from), before.part(to, u32::MAX)]);
        }
        let end = entry.start.saturating_add(u64::from(entry.length));
        while let Some(within) = self.first_in(version, entry.start, end) {
            self.replace(&within, [None, within.part(to, u32::MAX)]);
        }
        self.put(entry);
    }

    /// Lets go of the entries up to a sequence.
    pub(crate) fn forget_through(&mut self, last: Sequence) {
        self.entries.retain(|_, entry| entry.sequence > last);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All entries, in key order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.values().copied()
    }

    /// All entries from this version on, in key order, over the borders of chunks and volumes.
    pub(crate) fn seek(&self, version: VersionKey) -> impl Iterator<Item = Entry> {
        let from = EntryKey { version, start: 0 };
        self.entries.range(from..).map(|(_, entry)| *entry)
    }

    /// The entries of one chunk up to a sequence, the newest first.
    pub(crate) fn chunk(
        &self,
        volume: VolumeIndex,
        chunk: u64,
        at_most: Sequence,
    ) -> impl Iterator<Item = Entry> {
        let version = VersionKey::new(volume, chunk, at_most);
        self.seek(version)
            .take_while(move |entry| entry.version().same_chunk(version))
    }

    fn replace(&mut self, old: &Entry, parts: [Option<Entry>; 2]) {
        self.entries.remove(&old.key());
        for part in parts.into_iter().flatten() {
            self.put(part);
        }
    }

    fn put(&mut self, entry: Entry) {
        self.entries.insert(entry.key(), entry);
    }

    /// The entry of the same version that begins last before this key.
    fn last_before(&self, key: EntryKey) -> Option<Entry> {
        let first = EntryKey { start: 0, ..key };
        self.entries
            .range(first..key)
            .next_back()
            .map(|(_, entry)| *entry)
    }

    /// The first entry of the version that begins in this range.
    fn first_in(&self, version: VersionKey, start: u64, end: u64) -> Option<Entry> {
        let key = |start| EntryKey { version, start };
        self.entries
            .range((Bound::Included(key(start)), Bound::Excluded(key(end))))
            .next()
            .map(|(_, entry)| *entry)
    }
}

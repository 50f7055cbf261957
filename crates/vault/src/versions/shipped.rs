//! What one sequence leaves of its own frames in one chunk.

use super::coverage::Coverage;
use crate::entry::Entry;

/// The entries of one version, the last that was shipped first, trimmed to the bytes that show, in key order.
pub(crate) fn latest_shipped(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut coverage = Coverage::default();
    let mut shown = Vec::new();
    for entry in entries {
        coverage.add(entry.start_in_chunk()..entry.end_in_chunk(), |part| {
            shown.extend(entry.part(part.start, part.end));
        });
    }
    shown.sort_unstable_by_key(|entry: &Entry| entry.start);
    shown
}

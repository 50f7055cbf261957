//! Which versions of a chunk are still needed.
//!
//! Let r be the first retained sequence that is not before an entry's own. The entry shows at some retained point
//! if and only if it shows at r: whatever hides it there also hides it later. So the entries that have the same r
//! compete only with one another, the newest wins byte by byte, and one walk over the chunk decides all, however
//! many versions and points there are.

use farshore_blocks::{Encoding, Sequence};

use super::coverage::Coverage;
use crate::entry::Entry;

/// What lies under the entries that are thinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beneath {
    /// Perhaps older entries, in layers that take no part.
    #[cfg_attr(not(test), expect(dead_code, reason = "only whole merges thin so far"))]
    OlderLayers,
    /// Nothing: a byte without an entry reads as zero.
    Nothing,
}

/// What of one chunk's entries (in key order) shows at one of the `retained` sequences at least (ascending), trimmed
/// to the bytes that show, in key order. An entry behind the last retained sequence is of the open cycle and is
/// kept as it is. With nothing beneath, zeros are kept only where they hide data.
pub(crate) fn thin(entries: &[Entry], retained: &[Sequence], beneath: Beneath) -> Vec<Entry> {
    let shown = shown_at_retained(entries, retained);
    match beneath {
        Beneath::OlderLayers => shown,
        Beneath::Nothing => without_idle_zeros(&shown, retained.last().copied()),
    }
}

fn shown_at_retained(entries: &[Entry], retained: &[Sequence]) -> Vec<Entry> {
    let mut kept = Vec::new();
    let mut coverage = Coverage::default();
    let mut shows_at: Option<Sequence> = None;
    for entry in entries {
        let index = retained.partition_point(|point| *point < entry.sequence);
        let Some(point) = retained.get(index) else {
            kept.push(*entry);
            continue;
        };
        if shows_at != Some(*point) {
            shows_at = Some(*point);
            coverage.clear();
        }
        coverage.add(entry.start_in_chunk()..entry.end_in_chunk(), |part| {
            kept.extend(entry.part(part.start, part.end));
        });
    }
    kept
}

/// Walks from the oldest to the newest, and knows where data is on top.
fn without_idle_zeros(shown: &[Entry], last_retained: Option<Sequence>) -> Vec<Entry> {
    let mut kept = Vec::with_capacity(shown.len());
    let mut data = Coverage::default();
    for entry in shown.iter().rev() {
        let span = entry.start_in_chunk()..entry.end_in_chunk();
        let is_open = Some(entry.sequence) > last_retained;
        match entry.place.encoding {
            Encoding::Zero if !is_open => {
                let from = kept.len();
                data.remove(&span, |part| kept.extend(entry.part(part.start, part.end)));
                // The whole walk is turned round at the end, so the parts have to lie in it backwards.
                kept.get_mut(from..).unwrap_or_default().reverse();
            }
            Encoding::Zero => kept.push(*entry),
            Encoding::Raw | Encoding::Zstd => {
                data.add(span, |_| ());
                kept.push(*entry);
            }
        }
    }
    kept.reverse();
    kept
}

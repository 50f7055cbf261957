//! Which versions of a chunk are still needed.
//!
//! Let r be the first retained sequence that is not before an entry's own. The entry shows at some retained point
//! if and only if it shows at r: whatever hides it there also hides it later. So the entries that have the same r
//! compete only with one another, the newest wins byte by byte, and one walk over the chunk decides all, however
//! many versions and points there are.

//!
//! Zeroes are kept wherever they show, also where the index alone would read as zero without them: a frame is kept whole
//! by its file, and what of it must no longer show is known to those zeroes when the index is made again.

use farshore_blocks::Sequence;

use super::coverage::Coverage;
use crate::entry::Entry;

/// What of one chunk's entries (in key order) shows at one of the `retained` sequences at least (ascending), trimmed
/// to the bytes that show, in key order. An entry behind the last retained sequence is of the open cycle and is
/// kept as it is.
pub(crate) fn thin(entries: &[Entry], retained: &[Sequence]) -> Vec<Entry> {
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

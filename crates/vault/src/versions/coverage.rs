//! A set of bytes of one chunk.

use std::{iter, ops::Range};

/// Sorted spans of bytes, counted from the chunk's start; they neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    spans: Vec<Range<u32>>,
}

impl Coverage {
    pub(super) fn clear(&mut self) {
        self.spans.clear();
    }

    /// Whether all of this span is in the set.
    pub(super) fn covers(&self, span: &Range<u32>) -> bool {
        let index = self.spans.partition_point(|known| known.end < span.end);
        self.spans
            .get(index)
            .is_some_and(|known| known.start <= span.start)
    }

    /// Adds a span, and shows those parts of it that were not in the set, in order.
    pub(super) fn add(&mut self, span: Range<u32>, mut missing: impl FnMut(Range<u32>)) {
        let from = self.spans.partition_point(|known| known.end < span.start);
        let to = self.spans.partition_point(|known| known.start <= span.end);
        let touched = self.spans.get(from..to).unwrap_or_default();
        let mut at = span.start;
        for known in touched {
            if at < known.start {
                missing(at..known.start);
            }
            at = at.max(known.end);
        }
        if at < span.end {
            missing(at..span.end);
        }
        let start = touched
            .first()
            .map_or(span.start, |first| first.start.min(span.start));
        let end = touched.last().map_or(span.end, |last| last.end.max(span.end));
        match self.spans.get_mut(from) {
            // Mostly a span grows by its neighbour, or holds the new one already.
            Some(only) if to == from.saturating_add(1) => *only = start..end,
            Some(_) | None => drop(self.spans.splice(from..to, iter::once(start..end))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(steps in prop::collection::vec((0_u32..64, 1_u32..32), 0..60)) {
            let mut coverage = Coverage::default();
            let mut oracle = [false; 96];
            for (start, length) in steps {
                let span = start..start + length;
                let mut shown = Vec::new();
                let before = oracle;
                coverage.add(span.clone(), |part| shown.extend(part));
                let expected: Vec<u32> = span.clone().filter(|byte| !before[*byte as usize]).collect();
                prop_assert_eq!(shown, expected);
                oracle[span.start as usize..span.end as usize].fill(true);
                let held: Vec<u32> = coverage.spans.iter().cloned().flatten().collect();
                let expected: Vec<u32> = (0..96).filter(|byte| oracle[*byte as usize]).collect();
                prop_assert_eq!(held, expected);
                prop_assert!(coverage.spans.windows(2).all(|pair| pair[0].end < pair[1].start));
                for (from, to) in [(0, 96), (start, start + 3), (start + length - 1, start + length)] {
                    let all = (from..to).all(|byte| oracle.get(byte as usize) == Some(&true));
                    prop_assert_eq!(coverage.covers(&(from..to)), all);
                }
            }
        }
    }
}

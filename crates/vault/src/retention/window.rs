//! Where the window begins in which every point stays: age measured along the chain, so that no clock can thin it.

use std::time::Duration;

use super::PointFacts;

/// A step that is not like the one after it counts as at most the window's length divided by this.
const ODD_STEPS_IN_WINDOW: u128 = 24;
/// A step that is at most so many times as long as the one after it is the chain's own pace, and counts in full.
const SAME_PACE: u128 = 2;

/// The place of the oldest point in the window; the number of points if the window has no length. `points` are in order of
/// sequence.
///
/// Everything in the window stays, so a later call sees the same steps: how often it is asked changes nothing.
pub(super) fn first_inside(points: &[PointFacts], length: Duration) -> usize {
    let length = length.as_nanos();
    // Rounded up, or a window of a few nanoseconds would have steps of no length, and nothing would ever leave it.
    let longest_odd_step = length.div_ceil(ODD_STEPS_IN_WINDOW);
    let mut age = 0u128;
    let mut first = points.len();
    let mut newer: Option<(&PointFacts, u128)> = None;
    for (place, point) in points.iter().enumerate().rev() {
        let mut step = 0;
        if let Some((newer, step_after)) = newer {
            step = elapsed(point, newer);
            let longest = longest_odd_step.max(step_after.saturating_mul(SAME_PACE));
            age = age.saturating_add(step.min(longest));
        }
        if age >= length {
            break;
        }
        first = place;
        newer = Some((point, step));
    }
    first
}

/// How much time passed between two neighbours, in nanoseconds: as little as the two clocks let it be.
fn elapsed(older: &PointFacts, newer: &PointFacts) -> u128 {
    let captured = newer.captured_at.since(older.captured_at);
    let sealed = newer.sealed_at.since(older.sealed_at);
    captured.min(sealed).as_nanos()
}

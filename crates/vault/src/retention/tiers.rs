//! Which points the tiers keep: the best one of each of the last slots before the window.
//!
//! A slot is a run of neighbours, in order of sequence, that the calendar puts into the same hour, day, week, month or year.
//! Its best point is the newest that is app-consistent, else the newest. A slot that a later slot has followed gets no more
//! points, so its choice is final; while it is the last, its best point so far stays, and a better one may take its
//! place. Finer tiers do no harm to coarser ones: the best of a week is the best of the best of its days.
//!
//! A slot that reaches into the window is not counted: a tier of 7 days means 7 whole days before it, and
//! the day that the window's begin is moving through comes on top. So what is counted depends on the window alone, in which
//! everything stays, and not on what earlier plans took away.
//!
//! A clock that goes back cuts a slot in two, and one that went there and back leaves a slot that never was. Each step back
//! therefore lets two more slots stay, so that it pushes none out, up to twice the tier's slots, so that a
//! clock gone mad fills no disk. A clock that goes forward for good looks like an outage: it cuts one slot in two, and the
//! tier's oldest slot goes early by less than one slot.

use std::ops::Range;

use farshore_blocks::Sequence;

use super::{PointFacts, calendar::Tier};
use crate::records::PointKind;

const SLOTS_PER_STEP_BACK: usize = 2;

/// The places of the points that `tier` keeps. `points` are in order of sequence; the window begins at `window`.
pub(super) fn keepers(tier: Tier, slots: usize, points: &[PointFacts], window: usize) -> Vec<usize> {
    if slots == 0 {
        return Vec::new();
    }
    let mut kept = Vec::new();
    let mut counted = 0usize;
    let mut steps_back = 0usize;
    let mut newer: Option<u64> = None;
    for slot in runs(tier, points).into_iter().rev() {
        if newer.is_some_and(|newer| newer < slot.number) {
            steps_back = steps_back.saturating_add(1);
        }
        newer = Some(slot.number);
        if slot.places.end <= window {
            counted = counted.saturating_add(1);
        }
        let more = steps_back.saturating_mul(SLOTS_PER_STEP_BACK).min(slots);
        if counted > slots.saturating_add(more) {
            break;
        }
        kept.extend(best(points, slot.places));
    }
    kept
}

struct Slot {
    number: u64,
    places: Range<usize>,
}

fn runs(tier: Tier, points: &[PointFacts]) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let number = tier.slot(point.captured_at);
        let end = place.saturating_add(1);
        match slots.last_mut() {
            Some(last) if last.number == number => last.places.end = end,
            Some(_) | None => slots.push(Slot {
                number,
                places: place..end,
            }),
        }
    }
    slots
}

fn best(points: &[PointFacts], places: Range<usize>) -> Option<usize> {
    places.max_by_key(|place| points.get(*place).map(rank))
}

fn rank(point: &PointFacts) -> (u8, Sequence) {
    let kind = match point.kind {
        PointKind::CrashConsistent => 0,
        PointKind::AppConsistent => 1,
    };
    (kind, point.sequence)
}

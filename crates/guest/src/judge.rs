//! Decides whether a copy of the guest's regions is an exact prefix of its stream of writes, and how much of what was
//! acknowledged it lacks.
//!
//! Record k goes to slot `k mod slots`, first of region A, then (when that write is complete) of region B. So at any
//! instant, and in any copy of an instant:
//!
//! - the highest number found in a region says what each of its slots must hold: `k, k-1, … k-slots+1`, and nothing
//!   where that is below 1;
//! - `last_b ≤ last_a ≤ last_b + 1`;
//! - whatever the witness saw acknowledged before the instant is there.
//!
//! Pure: it judges scans ([`crate::region`]) and trusts nothing that the copy says about itself except its records.

use crate::{
    record::{Content, Record, Stream},
    region::RegionScan,
    witness::Acknowledged,
};

/// What is wrong with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It holds no whole record.
    Torn,
    /// It is empty, and a record should be there.
    Missing,
    /// It holds an older record than it should: a later write is lost though a still later one is not.
    Stale {
        /// The number found.
        found: u64,
    },
    /// It holds a record that can never belong to this slot.
    Misplaced {
        /// The number found.
        found: u64,
    },
    /// It holds a record of another stream or of another guest.
    Foreign,
}

/// A slot that is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultySlot {
    /// Which slot, from 0.
    pub slot: u64,
    /// The number of the record that should be there; none if the slot should be empty.
    pub expected: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

/// The verdict on one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionVerdict {
    /// The highest record number in its right slot; 0 if there is none.
    pub last: u64,
    /// The guest that wrote it.
    pub guest: Option<u64>,
    /// Slots that hold no whole record.
    pub torn: u64,
    /// Slots that hold nothing or the wrong record.
    pub gaps: u64,
    /// The first slot at fault.
    pub first_fault: Option<FaultySlot>,
}

impl RegionVerdict {
    /// True if every slot holds exactly what the highest number implies.
    #[must_use]
    pub fn is_exact_prefix(&self) -> bool {
        self.first_fault.is_none()
    }
}

/// How the two regions stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `last_b ≤ last_a ≤ last_b + 1`, and both are of one guest.
    Kept,
    /// Region B has a record that region A lacks: the copy of A is older than that of B.
    BAhead,
    /// Region A is further ahead than one record: the copy of B is older than that of A.
    BBehind,
    /// The two regions are of different guests.
    DifferentGuests,
}

/// The verdict on a copy of both regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Region A, of the data disk.
    pub region_a: RegionVerdict,
    /// Region B, of the root disk.
    pub region_b: RegionVerdict,
    /// Both, compared.
    pub order: Order,
    /// Records of region A that were acknowledged and are not in the copy.
    pub acknowledged_lost_a: u64,
    /// Records of region B that were acknowledged and are not in the copy.
    pub acknowledged_lost_b: u64,
}

impl Judgement {
    /// True if this copy is an instant of the guest's life; what was written after that instant may be absent.
    #[must_use]
    pub fn is_exact_instant(&self) -> bool {
        self.region_a.is_exact_prefix() && self.region_b.is_exact_prefix() && self.order == Order::Kept
    }

    /// True if, besides, nothing is absent that was acknowledged.
    #[must_use]
    pub fn lost_nothing(&self) -> bool {
        self.is_exact_instant() && self.acknowledged_lost_a == 0 && self.acknowledged_lost_b == 0
    }

    /// One sentence for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let fault = |name: &str, region: &RegionVerdict| {
            region.first_fault.map_or_else(String::new, |fault| {
                format!(
                    "; region {name}: {} torn, {} gaps, first {fault:?}",
                    region.torn, region.gaps
                )
            })
        };
        format!(
            "records to {} (A) and {} (B), order {:?}, acknowledged but absent {} (A) and {} (B){}{}",
            self.region_a.last,
            self.region_b.last,
            self.order,
            self.acknowledged_lost_a,
            self.acknowledged_lost_b,
            fault("A", &self.region_a),
            fault("B", &self.region_b),
        )
    }
}

/// Judges a copy of both regions against what the witness saw acknowledged.
#[must_use]
pub fn judge(scan_a: &RegionScan, scan_b: &RegionScan, acknowledged: Acknowledged) -> Judgement {
    let (region_a, region_b) = (judge_region(scan_a), judge_region(scan_b));
    let order = order(&region_a, &region_b);
    Judgement {
        acknowledged_lost_a: acknowledged.region_a.saturating_sub(region_a.last),
        acknowledged_lost_b: acknowledged.region_b.saturating_sub(region_b.last),
        order,
        region_a,
        region_b,
    }
}

fn order(a: &RegionVerdict, b: &RegionVerdict) -> Order {
    match (a.guest, b.guest) {
        (Some(first), Some(second)) if first != second => Order::DifferentGuests,
        _ if b.last > a.last => Order::BAhead,
        _ if a.last - b.last > 1 => Order::BBehind,
        _ => Order::Kept,
    }
}

/// Judges one region by itself.
#[must_use]
pub fn judge_region(scan: &RegionScan) -> RegionVerdict {
    let slots = u64::try_from(scan.slots.len()).unwrap_or(u64::MAX);
    let newest = (0..)
        .zip(&scan.slots)
        .filter_map(|(slot, content)| match content {
            Content::Record(record) if record.stream == scan.stream && record.number % slots == slot => {
                Some(*record)
            }
            Content::Record(_) | Content::Empty | Content::Damaged => None,
        })
        .max_by_key(|record| record.number);
    let mut verdict = RegionVerdict {
        last: newest.map_or(0, |record| record.number),
        guest: newest.map(|record| record.guest),
        torn: 0,
        gaps: 0,
        first_fault: None,
    };
    for (slot, content) in (0..).zip(&scan.slots) {
        let expected = expected_number(slot, verdict.last, slots);
        let Some(fault) = fault(*content, expected, scan.stream, newest) else {
            continue;
        };
        match fault {
            Fault::Torn => verdict.torn += 1,
            Fault::Missing | Fault::Stale { .. } | Fault::Misplaced { .. } | Fault::Foreign => {
                verdict.gaps += 1
            }
        }
        verdict.first_fault.get_or_insert(FaultySlot {
            slot,
            expected,
            fault,
        });
    }
    verdict
}

/// The greatest number not above `last` that belongs to `slot`; none before the slot was first used.
fn expected_number(slot: u64, last: u64, slots: u64) -> Option<u64> {
    let back = (last + slots - slot) % slots;
    last.checked_sub(back).filter(|number| *number > 0)
}

fn fault(content: Content, expected: Option<u64>, stream: Stream, newest: Option<Record>) -> Option<Fault> {
    match (content, expected) {
        (Content::Damaged, _) => Some(Fault::Torn),
        (Content::Empty, None) => None,
        (Content::Empty, Some(_)) => Some(Fault::Missing),
        (Content::Record(record), _) if record.stream != stream => Some(Fault::Foreign),
        (Content::Record(record), _) if newest.is_some_and(|newest| newest.guest != record.guest) => {
            Some(Fault::Foreign)
        }
        (Content::Record(record), Some(number)) if record.number == number => None,
        (Content::Record(record), Some(number)) if record.number < number => {
            Some(Fault::Stale { found: record.number })
        }
        (Content::Record(record), _) => Some(Fault::Misplaced { found: record.number }),
    }
}

#[cfg(test)]
mod tests;

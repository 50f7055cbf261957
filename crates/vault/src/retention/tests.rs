//! Scenarios as tables, the promises as properties, and months of points planned step by step.

mod properties;
mod scenarios;
mod steps;

use std::collections::BTreeSet;

use super::*;

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// 2024-01-01T00:00Z, a Monday.
const MONDAY: u64 = 19_723 * DAY;

fn point(sequence: u64, at: u64) -> PointFacts {
    PointFacts {
        sequence: Sequence(sequence),
        captured_at: WallTime(at),
        sealed_at: WallTime(at),
        kind: PointKind::CrashConsistent,
        stored_bytes: ByteCount(1),
        hold: Hold::None,
    }
}

fn at_newest(points: &[PointFacts]) -> WallTime {
    points.last().map_or(WallTime(0), |newest| newest.sealed_at)
}

/// What is left of the points once the plan is carried out.
fn carried_out(points: &[PointFacts], plan: &RetentionPlan) -> Vec<PointFacts> {
    let drop: BTreeSet<_> = plan.drop.iter().collect();
    let stays = |point: &&PointFacts| !drop.contains(&point.sequence);
    points.iter().filter(stays).copied().collect()
}

fn sequences(points: &[PointFacts]) -> BTreeSet<u64> {
    points.iter().map(|point| point.sequence.0).collect()
}

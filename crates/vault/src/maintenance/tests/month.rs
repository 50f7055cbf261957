//! A month of a busy little VM: what the bounds that the module states come to.

#![expect(clippy::cast_precision_loss, reason = "ratios are told to three digits")]

use std::time::Duration;

use farshore_blocks::clock::WallTime;

use super::*;
use crate::{
    retention::{Hold, PointFacts, RetentionPolicy, plan},
    writer::FlushLimits,
};

const BLOCK: usize = 4096;
const EVERY: Duration = Duration::from_secs(20 * 60);
const CYCLES: u64 = 30 * 24 * 3;
const LIMITS: Limits = Limits {
    segment_bytes: 256 << 10,
    journal_bytes: 1 << 20,
    flush: FlushLimits {
        entries: 256,
        groups: 16,
        window_entries: 40,
    },
};

fn at(cycle: u64) -> WallTime {
    let nanoseconds = EVERY.as_nanos() * u128::from(cycle);
    WallTime(1_700_000_000_000_000_000 + nanoseconds as u64)
}

/// What the policy says of the retained points, by a clock that the test owns.
fn thin(life: &mut Life, policy: &RetentionPolicy) {
    let facts = life.source.points.iter().map(|(point, _)| PointFacts {
        sequence: point.sequence,
        captured_at: at(point.cycle),
        sealed_at: at(point.cycle),
        kind: point.kind,
        stored_bytes: point.stored_bytes,
        hold: Hold::None,
    });
    let facts: Vec<_> = facts.collect();
    let dropped: BTreeSet<_> = plan(policy, at(life.nonce), &facts).drop.into_iter().collect();
    life.drop_points(|point| dropped.contains(&point.sequence));
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a guest writes in a cycle.
#[derive(Debug, Clone, Copy)]
struct Guest {
    blocks: u64,
    /// Three of four writes go to that many blocks at the front.
    hot_blocks: u64,
    writes: u64,
}

impl Guest {
    fn writes(self, dice: &mut Dice) -> Vec<Write> {
        let blocks = (0..self.writes).map(|_| match dice.below(4) {
            0 => dice.below(self.blocks),
            _ => dice.below(self.hot_blocks),
        });
        let blocks: BTreeSet<u64> = blocks.collect();
        blocks.into_iter().map(|block| write_block(block, dice)).collect()
    }
}

fn write_block(block: u64, dice: &mut Dice) -> Write {
    Write {
        volume: 0,
        offset: block * BLOCK as u64,
        bytes: vec![1 + dice.below(250) as u8; BLOCK],
    }
}

/// What a life came to.
struct Outcome {
    /// What the chain's files took of what is live, at worst.
    space: f64,
    /// What maintenance wrote for each byte ingested.
    writing: f64,
    life: Life,
}

/// Lives through so many cycles under a policy, with maintenance behind every eighth.
fn live(cycles: u64, policy: &RetentionPolicy, guest: Guest) -> Outcome {
    let mut life = Life::new(&[BLOCK * guest.blocks as usize], LIMITS);
    let mut dice = Dice(1);
    let (mut written, mut ingested, mut space) = (0u64, 0u64, 0f64);
    let first: Vec<_> = (0..guest.blocks)
        .map(|block| write_block(block, &mut dice))
        .collect();
    life.seal(&[first]);
    for cycle in 1..=cycles {
        let messages = [guest.writes(&mut dice)];
        life.seal(&messages);
        ingested += life.source.points.last().unwrap().0.stored_bytes.0;
        if cycle % 8 == 0 {
            thin(&mut life, policy);
            written += life.maintain().written_bytes().0;
        }
        // Once the policy lets points go.
        if cycle > cycles / 2 && cycle % 72 == 0 {
            space = space.max(life.chain_bytes() as f64 / life.live_bytes() as f64);
        }
    }
    let writing = written as f64 / ingested as f64;
    println!("{guest:?}: {space:.3} of live, {writing:.3} written per byte, {ingested} ingested");
    Outcome { space, writing, life }
}

#[test]
fn a_month_of_points_stays_within_the_bounds_of_space_and_of_writing() {
    let policy = RetentionPolicy {
        keep_all: Duration::from_secs(24 * 3600),
        daily: 7,
        weekly: 4,
        ..RetentionPolicy::default()
    };
    let guest = Guest {
        blocks: 96,
        hot_blocks: 24,
        writes: 6,
    };
    let Outcome {
        space,
        writing,
        mut life,
    } = live(CYCLES, &policy, guest);
    assert!(life.source.points.len() < 120, "{}", life.source.points.len());
    assert!(space <= 1.3, "{space}");
    assert!(writing <= 3.0, "{writing}");
    life.assert_whole();
    life.reopen();
    life.assert_provable();
}

#[test]
fn writes_that_are_spread_evenly_stay_within_the_same_bounds() {
    // What is dead is then spread evenly, too, and a few points keep little of what comes.
    let policy = RetentionPolicy {
        keep_all: Duration::from_secs(3 * 3600),
        daily: 0,
        weekly: 0,
        ..RetentionPolicy::default()
    };
    let guest = Guest {
        blocks: 1024,
        hot_blocks: 1024,
        writes: 16,
    };
    let Outcome {
        space,
        writing,
        mut life,
    } = live(CYCLES / 4, &policy, guest);
    assert!(space <= 1.3, "{space}");
    assert!(writing <= 3.0, "{writing}");
    life.reopen();
    life.assert_whole();
}

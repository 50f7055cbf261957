//! Decides which recovery points of a chain stay and which go. Pure: facts and the time go in, a plan comes out.
//!
//! # What counts as old
//!
//! Age is never measured from the clock: a clock that jumps would expire points. It is measured along the chain, from the
//! newest point backwards ([`window`]), so time passes for a chain only while it gets points. Whatever `now` says, a
//! vault whose source stopped a month ago keeps what it had. Each step between two neighbours counts as the shorter of what
//! the source's clock (`captured_at`) and the vault's (`sealed_at`) say, and is never negative: a jump of one clock counts
//! as nothing. A jump of both cannot be told from an outage. A step that is much longer than the one after it may be
//! either, and counts as at most a 24th of the window: when replication goes on after a month, or after both clocks
//! jumped, the points from before are still in the window, and leave it as new ones come.
//!
//! The slots of the tiers are calendar slots (UTC) of `captured_at`. They are counted, not dated: a slot goes when there are
//! enough newer ones, by sequence, and not when its date is long past ([`tiers`]).
//!
//! A lock ends only when `now` and both clocks of the newest point have passed its end. A single clock that runs ahead cannot
//! release it.
//!
//! # What stays
//!
//! The newest point, whatever its age and the limit. What is pinned, locked or in use. Every point in the window. The
//! best point of the slots of each tier. When that takes more than the limit, the oldest of it that is not held
//! goes first.

mod calendar;
mod tiers;
mod window;

use std::{collections::BTreeSet, time::Duration};

use farshore_blocks::{ByteCount, Sequence, clock::WallTime};
use serde::{Deserialize, Serialize};

use crate::records::PointKind;
pub use calendar::Tier;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Which points of a chain stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// The window before the newest point in which every point stays.
    pub keep_all: Duration,
    /// Of how many hours before the window one point stays.
    pub hourly: u32,
    /// Of how many days before the window one point stays.
    pub daily: u32,
    /// Of how many weeks, from Monday, before the window one point stays.
    pub weekly: u32,
    /// Of how many months before the window one point stays.
    pub monthly: u32,
    /// Of how many years before the window one point stays.
    pub yearly: u32,
    /// How much the chain's points may take on disk; without one, age alone decides.
    pub limit: Option<ByteCount>,
}

/// A day of every point, for going back to just before something went wrong; a week of days and a month of weeks, for what
/// is noticed late, as damage by an intruder is. No hours: the day before the window is rarely wanted to the hour.
/// No limit: what fits is known only to whoever has bought the disk.
impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            keep_all: DAY,
            hourly: 0,
            daily: 7,
            weekly: 4,
            monthly: 0,
            yearly: 0,
            limit: None,
        }
    }
}

impl RetentionPolicy {
    fn slots(&self, tier: Tier) -> usize {
        let slots = match tier {
            Tier::Hourly => self.hourly,
            Tier::Daily => self.daily,
            Tier::Weekly => self.weekly,
            Tier::Monthly => self.monthly,
            Tier::Yearly => self.yearly,
        };
        usize::try_from(slots).unwrap_or(usize::MAX)
    }
}

/// Why a point may not go, whatever the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It may.
    None,
    /// A user pinned it.
    Pinned,
    /// It is locked until then.
    LockedUntil(WallTime),
    /// An export or a recovered VM reads it.
    InUse,
}

/// What the planner has to know of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointFacts {
    /// Its place in the chain: the only order that counts.
    pub sequence: Sequence,
    /// When it was captured, by the source's clock.
    pub captured_at: WallTime,
    /// When it was sealed, by the vault's clock.
    pub sealed_at: WallTime,
    /// What the guest knew of the instant.
    pub kind: PointKind,
    /// What it takes on disk. Dropping a point rarely gives all of it back, since later points read on from it: the rest is
    /// then a later point's, and the next plan counts it there.
    pub stored_bytes: ByteCount,
    /// Whether something holds it.
    pub hold: Hold,
}

/// Why a point stays; there may be more than one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StayReason {
    /// It is the newest.
    Newest,
    /// A user pinned it.
    Pinned,
    /// It is locked until then.
    LockedUntil(WallTime),
    /// An export or a recovered VM reads it.
    InUse,
    /// It is in the window in which all points stay.
    InWindow,
    /// It is the best point of a slot of this tier.
    BestOf(Tier),
}

impl StayReason {
    /// Whether the limit of bytes yields to it.
    fn is_absolute(self) -> bool {
        match self {
            Self::Newest | Self::Pinned | Self::LockedUntil(_) | Self::InUse => true,
            Self::InWindow | Self::BestOf(_) => false,
        }
    }
}

/// Why a point goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoReason {
    /// It is before the window, and no tier keeps it.
    Thinned,
    /// It would have stayed, but the chain takes more than its limit.
    OverLimit,
}

/// What becomes of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays; at least one reason.
    Stays(Vec<StayReason>),
    /// It goes.
    Goes(GoReason),
}

/// Whether what stays is within the policy's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitStanding {
    /// The policy has none.
    Unlimited,
    /// It is.
    Met,
    /// The newest point and those that are held alone take more than the limit.
    CannotBeMet {
        /// By how much.
        excess: ByteCount,
    },
}

/// Which points go and why each other stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPlan {
    /// The points that go, oldest first.
    pub drop: Vec<Sequence>,
    /// What becomes of each point, oldest first.
    pub verdicts: Vec<(Sequence, Verdict)>,
    /// What the points that stay take on disk.
    pub stays_bytes: ByteCount,
    /// Whether that is within the limit.
    pub limit: LimitStanding,
}

/// Decides what becomes of a chain's points, which may come in any order.
///
/// Carried out, a plan leaves nothing to drop: planning again gives an empty one.
#[must_use]
pub fn plan(policy: &RetentionPolicy, now: WallTime, points: &[PointFacts]) -> RetentionPlan {
    let mut all = points.to_vec();
    all.sort_by_key(|point| point.sequence);
    all.dedup_by_key(|point| point.sequence);
    let mut left = all.clone();
    let mut gone: Vec<(Sequence, GoReason)> = Vec::new();
    // Where clocks went back, slots that were apart can meet once what lay between them is gone. So it is decided again
    // until nothing more goes; each further round drops something, and with sane clocks there is none that does.
    let (stays, limit) = loop {
        let round = Round::decide(policy, now, &left);
        if round.goes.is_empty() {
            break (round.stays, round.limit);
        }
        let going: BTreeSet<Sequence> = round.goes.iter().map(|(sequence, _)| *sequence).collect();
        left.retain(|point| !going.contains(&point.sequence));
        gone.extend(round.goes);
    };
    gone.sort_by_key(|(sequence, _)| *sequence);
    let drop = gone.iter().map(|(sequence, _)| *sequence).collect();
    let mut verdicts: Vec<_> = left
        .iter()
        .zip(stays)
        .map(|(point, reasons)| (point.sequence, Verdict::Stays(reasons)))
        .chain(
            gone.into_iter()
                .map(|(sequence, reason)| (sequence, Verdict::Goes(reason))),
        )
        .collect();
    verdicts.sort_by_key(|(sequence, _)| *sequence);
    RetentionPlan {
        drop,
        verdicts,
        stays_bytes: total(&left),
        limit,
    }
}

struct Round {
    /// Of each point given, in order; empty for those that go.
    stays: Vec<Vec<StayReason>>,
    goes: Vec<(Sequence, GoReason)>,
    limit: LimitStanding,
}

impl Round {
    /// `points` are in order of sequence.
    fn decide(policy: &RetentionPolicy, now: WallTime, points: &[PointFacts]) -> Self {
        let window = window::first_inside(points, policy.keep_all);
        let mut stays: Vec<Vec<StayReason>> = points.iter().map(|_| Vec::new()).collect();
        if let (Some(reasons), Some(newest)) = (stays.last_mut(), points.last()) {
            reasons.push(StayReason::Newest);
            let latest_end = now.min(newest.captured_at).min(newest.sealed_at);
            for (reasons, point) in stays.iter_mut().zip(points) {
                reasons.extend(held(point.hold, latest_end));
            }
        }
        for reasons in stays.iter_mut().skip(window) {
            reasons.push(StayReason::InWindow);
        }
        for tier in Tier::ALL {
            for keeper in tiers::keepers(tier, policy.slots(tier), points, window) {
                if let Some(reasons) = stays.get_mut(keeper) {
                    reasons.push(StayReason::BestOf(tier));
                }
            }
        }
        let mut goes: Vec<_> = points
            .iter()
            .zip(&stays)
            .filter(|(_, reasons)| reasons.is_empty())
            .map(|(point, _)| (point.sequence, GoReason::Thinned))
            .collect();
        let limit = meet(policy.limit, points, &stays, &mut goes);
        Self { stays, goes, limit }
    }
}

fn held(hold: Hold, latest_end: WallTime) -> Option<StayReason> {
    match hold {
        Hold::None => None,
        Hold::Pinned => Some(StayReason::Pinned),
        Hold::LockedUntil(end) => (end > latest_end).then_some(StayReason::LockedUntil(end)),
        Hold::InUse => Some(StayReason::InUse),
    }
}

/// Lets the oldest go that may, until what stays is within the limit.
fn meet(
    limit: Option<ByteCount>,
    points: &[PointFacts],
    stays: &[Vec<StayReason>],
    goes: &mut Vec<(Sequence, GoReason)>,
) -> LimitStanding {
    let Some(limit) = limit else {
        return LimitStanding::Unlimited;
    };
    let staying = || {
        points
            .iter()
            .zip(stays)
            .filter(|(_, reasons)| !reasons.is_empty())
    };
    let mut taken = staying().fold(0u64, |sum, (point, _)| sum.saturating_add(point.stored_bytes.0));
    for (point, reasons) in staying() {
        if taken <= limit.0 {
            break;
        }
        // One that takes nothing gives nothing back.
        if point.stored_bytes.0 > 0 && !reasons.iter().any(|reason| reason.is_absolute()) {
            taken = taken.saturating_sub(point.stored_bytes.0);
            goes.push((point.sequence, GoReason::OverLimit));
        }
    }
    match taken.checked_sub(limit.0) {
        None | Some(0) => LimitStanding::Met,
        Some(excess) => LimitStanding::CannotBeMet {
            excess: ByteCount(excess),
        },
    }
}

fn total(points: &[PointFacts]) -> ByteCount {
    let sum = points
        .iter()
        .fold(0u64, |sum, point| sum.saturating_add(point.stored_bytes.0));
    ByteCount(sum)
}

#[cfg(test)]
mod tests;

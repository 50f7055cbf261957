//! The planner's promises over chains of any shape, by clocks that jump as they like.

use proptest::{collection::vec, prelude::*};

use super::*;

const NOW: u64 = MONDAY + 1000 * DAY;

fn step() -> impl Strategy<Value = i64> {
    let day = i64::try_from(DAY).unwrap();
    prop_oneof![
        6 => 0..day / 24,
        2 => 0..2 * day,
        1 => -40 * day..0,
        1 => 0..400 * day,
    ]
}

fn hold() -> impl Strategy<Value = Hold> {
    prop_oneof![
        8 => Just(Hold::None),
        1 => Just(Hold::Pinned),
        1 => Just(Hold::InUse),
        1 => (0..2 * NOW).prop_map(|end| Hold::LockedUntil(WallTime(end))),
    ]
}

/// Points whose clocks go by steps of their own; the vault's never past [`NOW`].
fn chain() -> impl Strategy<Value = Vec<PointFacts>> {
    vec((step(), step(), any::<bool>(), 0..100u64, hold()), 0..120).prop_map(|steps| {
        let (mut captured, mut sealed) = (MONDAY + 100 * DAY, MONDAY + 100 * DAY);
        let mut points = Vec::new();
        for ((captured_step, sealed_step, app, bytes, hold), sequence) in steps.into_iter().zip(1..) {
            captured = captured.saturating_add_signed(captured_step);
            sealed = sealed.saturating_add_signed(sealed_step).min(NOW);
            let mut point = point(sequence, captured);
            point.sealed_at = WallTime(sealed);
            point.stored_bytes = ByteCount(bytes);
            point.hold = hold;
            if app {
                point.kind = PointKind::AppConsistent;
            }
            points.push(point);
        }
        points
    })
}

fn policy() -> impl Strategy<Value = RetentionPolicy> {
    let slots = || prop_oneof![Just(0u32), 1..8u32, Just(u32::MAX)];
    let limit = proptest::option::of(0..4000u64);
    (0..48 * HOUR, slots(), slots(), slots(), slots(), limit).prop_map(
        |(keep_all, hourly, daily, weekly, monthly, limit)| RetentionPolicy {
            keep_all: Duration::from_nanos(keep_all),
            hourly,
            daily,
            weekly,
            monthly,
            yearly: hourly % 3,
            limit: limit.map(ByteCount),
        },
    )
}

fn is_held(point: &PointFacts) -> bool {
    match point.hold {
        Hold::None => false,
        Hold::Pinned | Hold::InUse => true,
        Hold::LockedUntil(end) => end.0 > NOW,
    }
}

proptest! {
    #[test]
    fn what_is_held_and_the_newest_never_go(policy in policy(), points in chain()) {
        let plan = plan(&policy, WallTime(NOW), &points);
        for (point, place) in points.iter().zip(1..) {
            if is_held(point) || place == points.len() {
                prop_assert!(!plan.drop.contains(&point.sequence), "{:?}", point);
            }
        }
    }

    #[test]
    fn every_point_has_one_verdict_and_the_order_of_the_facts_is_nothing(
        policy in policy(), points in chain().prop_shuffle()
    ) {
        let made = plan(&policy, WallTime(NOW), &points);
        let mut in_order = points;
        in_order.sort_by_key(|point| point.sequence);
        prop_assert_eq!(&made, &plan(&policy, WallTime(NOW), &in_order));
        let told: Vec<_> = made.verdicts.iter().map(|(sequence, _)| *sequence).collect();
        let given: Vec<_> = in_order.iter().map(|point| point.sequence).collect();
        prop_assert_eq!(told, given);
        let goes = |verdict: &Verdict| matches!(verdict, Verdict::Goes(_));
        let gone: Vec<_> = made.verdicts.iter().filter(|(_, verdict)| goes(verdict)).map(|(gone, _)| *gone).collect();
        prop_assert_eq!(&made.drop, &gone);
        let reasoned = |verdict: &Verdict| !matches!(verdict, Verdict::Stays(reasons) if reasons.is_empty());
        prop_assert!(made.verdicts.iter().all(|(_, verdict)| reasoned(verdict)));
    }

    #[test]
    fn a_plan_carried_out_leaves_nothing_to_drop(policy in policy(), points in chain()) {
        let first = plan(&policy, WallTime(NOW), &points);
        let left = carried_out(&points, &first);
        let second = plan(&policy, WallTime(NOW), &left);
        prop_assert_eq!(&second.drop, &vec![]);
        prop_assert_eq!(second.limit, first.limit);
        prop_assert_eq!(second.stays_bytes, first.stays_bytes);
    }

    #[test]
    fn a_jump_of_now_drops_nothing_more(policy in policy(), points in chain(), jump in 0..400 * DAY) {
        let without = plan(&policy, WallTime(NOW), &points).drop;
        let forward = plan(&policy, WallTime(NOW + jump), &points).drop;
        prop_assert_eq!(&forward, &without);
        let unlimited = RetentionPolicy { limit: None, ..policy };
        let without: BTreeSet<_> = plan(&unlimited, WallTime(NOW), &points).drop.into_iter().collect();
        let back: BTreeSet<_> = plan(&unlimited, WallTime(NOW - jump), &points).drop.into_iter().collect();
        prop_assert!(back.is_subset(&without));
    }

    #[test]
    fn a_jump_of_one_clock_at_the_newest_point_thins_no_window(
        points in chain(), keep_all in 1..48 * HOUR, jump in 0..400 * DAY, of_source in any::<bool>()
    ) {
        prop_assume!(!points.is_empty());
        let policy = RetentionPolicy { keep_all: Duration::from_nanos(keep_all), ..RetentionPolicy::default() };
        let mut jumped = points.clone();
        let newest = jumped.last_mut().unwrap();
        let before = points.iter().rev().nth(1).map_or(*newest, |before| *before);
        // Without the jump, a minute later by both clocks.
        newest.captured_at = WallTime(before.captured_at.0 + MINUTE);
        newest.sealed_at = WallTime(before.sealed_at.0 + MINUTE);
        let without = window::first_inside(&jumped, policy.keep_all);
        let newest = jumped.last_mut().unwrap();
        let clock = if of_source { &mut newest.captured_at } else { &mut newest.sealed_at };
        *clock = WallTime(clock.0 + jump);
        prop_assert!(window::first_inside(&jumped, policy.keep_all) <= without);
    }

    #[test]
    fn the_limit_is_met_when_what_may_go_suffices(policy in policy(), points in chain(), limit in 0..4000u64) {
        let policy = RetentionPolicy { limit: Some(ByteCount(limit)), ..policy };
        let plan = plan(&policy, WallTime(NOW), &points);
        let must_stay = |(point, (_, verdict)): &(&PointFacts, &(Sequence, Verdict))| match verdict {
            Verdict::Stays(reasons) => reasons.iter().any(|reason| reason.is_absolute()) && point.stored_bytes.0 > 0,
            Verdict::Goes(_) => false,
        };
        let least: u64 = points.iter().zip(&plan.verdicts).filter(must_stay).map(|(point, _)| point.stored_bytes.0).sum();
        if least <= limit {
            prop_assert_eq!(plan.limit, LimitStanding::Met);
            prop_assert!(plan.stays_bytes.0 <= limit);
        } else {
            prop_assert_eq!(plan.limit, LimitStanding::CannotBeMet { excess: ByteCount(least - limit) });
        }
    }

    #[test]
    fn the_limit_takes_the_oldest_that_may_go(policy in policy(), points in chain()) {
        let plan = plan(&policy, WallTime(NOW), &points);
        let over = |verdict: &Verdict| *verdict == Verdict::Goes(GoReason::OverLimit);
        let last_over = plan.verdicts.iter().rposition(|(_, verdict)| over(verdict)).unwrap_or(0);
        for (point, (_, verdict)) in points.iter().zip(&plan.verdicts).take(last_over) {
            if let Verdict::Stays(reasons) = verdict {
                let absolute = reasons.iter().any(|reason| reason.is_absolute());
                prop_assert!(absolute || point.stored_bytes.0 == 0, "{:?} stays: {:?}", point, reasons);
            }
        }
    }

    #[test]
    fn any_facts_have_a_plan(at in vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..20), now in any::<u64>()) {
        let points: Vec<_> = at.iter().map(|(sequence, captured, sealed, bytes)| PointFacts {
            captured_at: WallTime(*captured),
            sealed_at: WallTime(*sealed),
            stored_bytes: ByteCount(*bytes),
            ..point(*sequence, 0)
        }).collect();
        let policy = RetentionPolicy { keep_all: Duration::MAX, limit: Some(ByteCount(1)), ..RetentionPolicy::default() };
        let _ = plan(&policy, WallTime(now), &points);
    }
}

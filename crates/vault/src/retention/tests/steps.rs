//! Months of points, planned after each of them: what is left must not depend on how often it was planned.

use super::*;

const POLICY: RetentionPolicy = RetentionPolicy {
    keep_all: Duration::from_secs(6 * 3600),
    hourly: 12,
    daily: 7,
    weekly: 4,
    monthly: 3,
    yearly: 1,
    limit: None,
};
/// No divisor of an hour, so that slots are not all alike.
const INTERVAL: u64 = 29 * MINUTE;
const DAYS: u64 = 130;

/// A point every 29 minutes from 1 January on, an app-consistent one among 50; nothing in a stretch of 9 days.
fn months() -> Vec<PointFacts> {
    (1..=DAYS * DAY / INTERVAL)
        .filter(|number| !(60 * DAY..69 * DAY).contains(&(number * INTERVAL)))
        .map(|number| {
            let mut point = point(number, MONDAY + number * INTERVAL);
            if number % 50 == 7 {
                point.kind = PointKind::AppConsistent;
            }
            point
        })
        .collect()
}

/// What is left when a plan is carried out after every `every` points, and what each plan said of the keepers.
fn step_by_step(
    all: &[PointFacts],
    every: usize,
    mut look: impl FnMut(&[PointFacts], &RetentionPlan),
) -> BTreeSet<u64> {
    let mut left: Vec<PointFacts> = Vec::new();
    for (point, number) in all.iter().zip(1..) {
        left.push(*point);
        if number % every == 0 || number == all.len() {
            let plan = plan(&POLICY, at_newest(&left), &left);
            look(&left, &plan);
            left = carried_out(&left, &plan);
        }
    }
    sequences(&left)
}

/// By another way than the planner's: of every slot of the whole chain the best, then the last so many before the window.
fn expected(all: &[PointFacts]) -> BTreeSet<u64> {
    let newest = all.last().unwrap();
    let in_window = |point: &PointFacts| newest.captured_at.since(point.captured_at) < POLICY.keep_all;
    let window: BTreeSet<u64> = all
        .iter()
        .filter(|point| in_window(point))
        .map(|point| point.sequence.0)
        .collect();
    let mut kept = window.clone();
    for tier in Tier::ALL {
        let slot = |point: &PointFacts| tier.slot(point.captured_at);
        let in_window: BTreeSet<u64> = all.iter().filter(|point| in_window(point)).map(slot).collect();
        let mut slots: Vec<u64> = all.iter().map(slot).collect();
        slots.dedup();
        let before = slots.iter().rev().filter(|slot| !in_window.contains(*slot));
        for kept_slot in in_window.iter().chain(before.take(POLICY.slots(tier))) {
            let of_slot: Vec<_> = all.iter().filter(|point| slot(point) == *kept_slot).collect();
            let app = of_slot
                .iter()
                .rev()
                .find(|point| point.kind == PointKind::AppConsistent);
            kept.insert(app.or(of_slot.last()).unwrap().sequence.0);
        }
    }
    kept
}

#[test]
fn how_often_it_is_planned_changes_nothing() {
    let all = months();
    let expected = expected(&all);
    for every in [1, 7, 500, all.len()] {
        assert_eq!(
            step_by_step(&all, every, |_, _| {}),
            expected,
            "planned every {every} points"
        );
    }
}

#[test]
fn a_slot_that_is_over_keeps_its_choice_until_it_leaves_the_tier() {
    let mut chosen: std::collections::BTreeMap<(Tier, u64), u64> = Default::default();
    let mut left_its_tier = BTreeSet::new();
    step_by_step(&months(), 1, |points, plan| {
        let mut keeps = BTreeSet::new();
        for (point, (sequence, verdict)) in points.iter().zip(&plan.verdicts) {
            assert_eq!(point.sequence, *sequence);
            let Verdict::Stays(reasons) = verdict else {
                continue;
            };
            for reason in reasons {
                let StayReason::BestOf(tier) = reason else {
                    continue;
                };
                let slot = (*tier, tier.slot(point.captured_at));
                keeps.insert(slot);
                let is_over = slot.1 < tier.slot(points.last().unwrap().captured_at);
                let before = is_over.then(|| chosen.insert(slot, sequence.0)).flatten();
                assert!(
                    before.is_none_or(|before| before == sequence.0),
                    "{slot:?} had chosen {before:?}"
                );
                assert!(!left_its_tier.contains(&slot), "{slot:?} came back");
            }
        }
        left_its_tier.extend(chosen.keys().filter(|slot| !keeps.contains(slot)).copied());
    });
    assert!(
        left_its_tier.len() > 1000,
        "slots did leave: {}",
        left_its_tier.len()
    );
}

//! Chains as tables: a line is a point — day of January 2024, time, what it is — and what becomes of it.

use super::*;

struct Scenario {
    promise: &'static str,
    policy: RetentionPolicy,
    chain: &'static str,
}

fn days(daily: u32) -> RetentionPolicy {
    RetentionPolicy {
        daily,
        ..only_window(24)
    }
}

fn only_window(hours: u64) -> RetentionPolicy {
    RetentionPolicy {
        keep_all: Duration::from_secs(hours * 3600),
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        limit: None,
    }
}

fn limited(limit: u64, policy: RetentionPolicy) -> RetentionPolicy {
    RetentionPolicy {
        limit: Some(ByteCount(limit)),
        ..policy
    }
}

/// `05 12:30 app 40B pinned` and the like; days past 31 go on counting, a year later is day 367.
fn read(sequence: u64, text: &str) -> PointFacts {
    let mut words = text.split_whitespace();
    let day: u64 = words.next().unwrap().parse().unwrap();
    let (hours, minutes) = words.next().unwrap().split_once(':').unwrap();
    let time = hours.parse::<u64>().unwrap() * HOUR + minutes.parse::<u64>().unwrap() * MINUTE;
    let mut read = point(sequence, MONDAY + (day - 1) * DAY + time);
    for word in words {
        match word {
            "app" => read.kind = PointKind::AppConsistent,
            "pinned" => read.hold = Hold::Pinned,
            "in-use" => read.hold = Hold::InUse,
            word if word.starts_with("until-") => {
                let day: u64 = word["until-".len()..].parse().unwrap();
                read.hold = Hold::LockedUntil(WallTime(MONDAY + (day - 1) * DAY));
            }
            word if word.starts_with("sealed-") => {
                let day: u64 = word["sealed-".len()..].parse().unwrap();
                read.sealed_at = WallTime(MONDAY + (day - 1) * DAY + time);
            }
            word => read.stored_bytes = ByteCount(word.strip_suffix('B').unwrap().parse().unwrap()),
        }
    }
    read
}

fn say(verdict: &Verdict) -> String {
    let say_reason = |reason: &StayReason| match reason {
        StayReason::Newest => "newest",
        StayReason::Pinned => "pinned",
        StayReason::LockedUntil(_) => "locked",
        StayReason::InUse => "in-use",
        StayReason::InWindow => "window",
        StayReason::BestOf(tier) => tier.as_str(),
    };
    match verdict {
        Verdict::Stays(reasons) => reasons.iter().map(say_reason).collect::<Vec<_>>().join(" "),
        Verdict::Goes(GoReason::Thinned) => "THINNED".to_owned(),
        Verdict::Goes(GoReason::OverLimit) => "OVER-LIMIT".to_owned(),
    }
}

fn check(scenario: &Scenario) {
    let lines: Vec<_> = scenario
        .chain
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let mut points = Vec::new();
    let mut expected = Vec::new();
    for (line, sequence) in lines.iter().zip(1..) {
        let (facts, verdict) = line.split_once("->").unwrap();
        points.push(read(sequence, facts));
        expected.push(format!("{}-> {}", facts, verdict.trim()));
    }
    let plan = plan(&scenario.policy, at_newest(&points), &points);
    let found: Vec<_> = lines
        .iter()
        .zip(&plan.verdicts)
        .map(|(line, (_, verdict))| format!("{}-> {}", line.split_once("->").unwrap().0, say(verdict)))
        .collect();
    assert_eq!(found.join("\n"), expected.join("\n"), "{}", scenario.promise);
}

#[test]
fn tiers_keep_the_best_of_their_slots() {
    let scenarios = [
        Scenario {
            promise: "all of the window stays, and before it the newest of a day, for as many days as there are points",
            policy: days(2),
            chain: "
                02 10:00 -> THINNED
                02 22:00 -> THINNED
                05 10:00 -> THINNED
                05 22:00 -> daily
                07 09:00 -> THINNED
                07 23:00 -> daily
                08 10:00 -> THINNED
                08 23:00 -> window daily
                09 10:00 -> window
                09 22:30 -> newest window daily",
        },
        Scenario {
            promise: "an app-consistent point is preferred to newer ones of its day, and the newest of these is taken",
            policy: days(7),
            chain: "
                04 08:00 app -> THINNED
                04 09:00 app -> daily
                04 22:00     -> THINNED
                05 08:00     -> THINNED
                05 22:00     -> daily
                07 08:00     -> daily
                08 07:00     -> window
                08 23:00     -> newest window daily",
        },
        Scenario {
            promise: "tiers count by themselves: a point can be the best of its hour, day and week",
            policy: RetentionPolicy {
                hourly: 2,
                daily: 2,
                weekly: 2,
                ..only_window(1)
            },
            chain: "
                01 12:00 -> THINNED
                07 12:00 -> weekly
                09 12:00 -> THINNED
                10 12:00 -> daily
                13 08:00 -> THINNED
                13 08:40 -> THINNED
                13 09:10 -> hourly daily
                14 11:40 -> hourly
                14 12:00 -> window
                14 12:20 -> window hourly daily weekly
                15 12:40 -> window
                15 12:50 -> window hourly
                15 13:30 -> newest window hourly daily weekly",
        },
        Scenario {
            promise: "a policy of nothing keeps the newest",
            policy: only_window(0),
            chain: "
                01 10:00 -> THINNED
                01 11:00 -> newest",
        },
    ];
    scenarios.iter().for_each(check);
}

#[test]
fn neither_a_clock_nor_an_outage_expires_points() {
    let scenarios = [
        Scenario {
            promise: "after a month without replication the points from before are in the window still",
            policy: days(1),
            chain: "
                01 10:00 -> window
                01 11:00 -> window daily
                31 11:10 -> window
                31 11:20 -> newest window daily",
        },
        Scenario {
            promise: "a source whose clock is a year ahead ages nothing",
            policy: only_window(24),
            chain: "
                01 10:00            -> window
                367 10:10 sealed-01 -> newest window",
        },
        Scenario {
            promise: "a source whose clock was a year ahead for a while pushes no day out",
            policy: RetentionPolicy {
                daily: 3,
                ..only_window(1)
            },
            chain: "
                01 10:00            -> THINNED
                02 10:00            -> THINNED
                03 10:00            -> daily
                04 10:00            -> daily
                370 11:00 sealed-04 -> daily
                04 12:00            -> daily
                05 11:00            -> THINNED
                05 12:00            -> daily
                06 11:30            -> window
                06 12:00            -> newest window daily",
        },
        Scenario {
            promise: "days that a clock put back lives twice are two days each",
            policy: RetentionPolicy {
                daily: 5,
                ..only_window(1)
            },
            chain: "
                03 10:00 -> daily
                04 10:00 -> daily
                03 11:00 -> daily
                04 11:00 -> daily
                05 11:00 -> THINNED
                05 12:00 -> daily
                06 11:30 -> window
                06 12:00 -> newest window daily",
        },
    ];
    scenarios.iter().for_each(check);
}

#[test]
fn what_is_held_stays() {
    let scenarios = [
        Scenario {
            promise: "pinned, in use and locked",
            policy: only_window(0),
            chain: "
                01 10:00 pinned   -> pinned
                01 11:00          -> THINNED
                01 12:00 in-use   -> in-use
                01 13:00 until-09 -> locked
                01 14:00 until-02 -> THINNED
                03 10:00          -> newest",
        },
        Scenario {
            promise: "a lock outlives the clock of a source that runs ahead",
            policy: only_window(0),
            chain: "
                01 13:00 until-09   -> locked
                367 10:00 sealed-02 -> newest",
        },
    ];
    scenarios.iter().for_each(check);
}

#[test]
fn the_oldest_goes_when_the_limit_is_passed() {
    let scenarios = [
        Scenario {
            promise: "the oldest that may, and no more than needed",
            policy: limited(70, days(7)),
            chain: "
                01 10:00 40B        -> OVER-LIMIT
                02 10:00 40B pinned -> pinned daily
                03 10:00 40B        -> OVER-LIMIT
                04 10:00 20B        -> window daily
                05 10:00 10B        -> newest window daily",
        },
        Scenario {
            promise: "the newest stays though it alone is too much",
            policy: limited(70, days(7)),
            chain: "
                01 10:00 40B -> OVER-LIMIT
                02 10:00 90B -> newest window daily",
        },
    ];
    scenarios.iter().for_each(check);
}

#[test]
fn a_limit_that_cannot_be_met_is_told() {
    let mut points = vec![point(1, MONDAY), point(2, MONDAY + HOUR)];
    points[0].hold = Hold::Pinned;
    let told = |limit| plan(&limited(limit, days(7)), at_newest(&points), &points).limit;
    assert_eq!(told(2), LimitStanding::Met);
    assert_eq!(told(1), LimitStanding::CannotBeMet { excess: ByteCount(1) });
    let unlimited = plan(&days(7), at_newest(&points), &points);
    assert_eq!(
        (unlimited.limit, unlimited.stays_bytes),
        (LimitStanding::Unlimited, ByteCount(2))
    );
}

#[test]
fn an_empty_chain_has_an_empty_plan() {
    let plan = plan(&RetentionPolicy::default(), WallTime(5), &[]);
    assert_eq!(
        (plan.drop, plan.verdicts, plan.stays_bytes),
        (vec![], vec![], ByteCount(0))
    );
}

//! Points as dense as cycles of a fraction of a second make them: each is an exact instant, and a time picks the right one.
//!
//! A minute of them in a test; for longer, `FARSHORE_TEST_POINTS` says how many, and `FARSHORE_TEST_INTERVAL` how far apart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{env, time::Duration};

use farshore_tests::{
    Lab,
    guests::GuestOrder,
    lab::{LabOptions, SYNC},
    replica::judge_point,
};

const POINTS: u64 = 30;
const PATIENCE_A_POINT: Duration = Duration::from_secs(4);

struct Point {
    sequence: u64,
    captured_at: String,
}

fn wanted_points() -> u64 {
    env::var("FARSHORE_TEST_POINTS").map_or(POINTS, |count| count.parse().unwrap())
}

fn points(lab: &Lab) -> Vec<Point> {
    let points = lab.cli.run(&["get", "points", "db", "-o", "json"]).done().json();
    let mut points: Vec<Point> = points["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| Point {
            sequence: point["sequence"].as_u64().unwrap(),
            captured_at: point["capturedAt"].as_str().unwrap().to_owned(),
        })
        .collect();
    points.sort_by_key(|point| point.sequence);
    points
}

#[test]
fn each_of_many_dense_points_is_an_exact_instant_and_a_time_picks_the_newest_before_it() {
    let mut lab = Lab::start(LabOptions {
        interval: env::var("FARSHORE_TEST_INTERVAL").unwrap_or_else(|_| "200ms".to_owned()),
        policy: Some("fastMode: {guestCostLimit: 20%}".to_owned()),
        ..LabOptions::default()
    });
    lab.start_guest(GuestOrder::small("db", 11));
    let _ = lab.protect(&["db"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    let wanted = lab.cli.points("db") + wanted_points();
    let patience = PATIENCE_A_POINT * u32::try_from(wanted).unwrap();
    lab.cli.points_at_least("db", wanted, patience);
    let acknowledged = lab.guest("db").1.testimony().unwrap().acknowledged;
    let after = lab.cli.point_after_now("db", PATIENCE_A_POINT * 10);
    let judgement = judge_point(&lab.vault(), "db", &after, &lab.path(""), acknowledged);
    assert!(judgement.lost_nothing(), "{}", judgement.describe());
    // Every point comes later than the one before, and holds no less.
    let points = points(&lab);
    let mut held = 0;
    for pair in points.windows(2) {
        assert_eq!(pair[0].sequence + 1, pair[1].sequence);
        assert!(pair[0].captured_at < pair[1].captured_at);
    }
    for point in &points {
        let sequence = point.sequence.to_string();
        let judgement = judge_point(&lab.vault(), "db", &sequence, &lab.path(""), acknowledged);
        assert!(
            judgement.is_exact_instant(),
            "point {sequence}: {}",
            judgement.describe()
        );
        let records = judgement.region_a.last;
        assert!(
            records >= held,
            "point {sequence} holds {records} records after {held}"
        );
        held = records;
    }
    a_time_picks_the_newest_not_after_it(&lab, &points);
    let testimony = lab.guest("db").1.testimony().unwrap();
    assert!(testimony.errors.is_empty(), "{:?}", testimony.errors);
}

fn a_time_picks_the_newest_not_after_it(lab: &Lab, points: &[Point]) {
    let middle = points.len() / 2;
    let (before, at) = (&points[middle - 1], &points[middle]);
    for (time, meant) in [
        (at.captured_at.clone(), at),
        (just_before(&at.captured_at), before),
    ] {
        let order = ["failover", "test", "db", "--point", &time, "--wait", "-o", "json"];
        let test = lab.cli.run(&order).done().json();
        assert_eq!(test["point"], meant.sequence, "{time}: {test:#}");
        let name = test["name"].as_str().unwrap();
        let _ = lab.cli.run(&["failover", "cleanup", name, "--wait"]).done();
    }
}

/// The same time, a nanosecond earlier.
fn just_before(time: &str) -> String {
    let time: jiff::Timestamp = time.parse().unwrap();
    (time - jiff::SignedDuration::from_nanos(1)).to_string()
}

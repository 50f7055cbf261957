//! The RPO against reports that were long under way and clocks that differ.

use super::*;
use crate::fleet::timestamp;

const SECOND: u64 = 1_000_000_000;

fn seconds(count: u64) -> WallTime {
    WallTime(count * SECOND)
}

fn reported(at: WallTime, asked_at: Option<WallTime>, received_at: WallTime) -> ReplicatorView {
    ReplicatorView {
        register: v1::Register::default(),
        up: true,
        last_seen: received_at,
        report: Some(v1::Report {
            at: Some(timestamp(at)),
            asked_at: asked_at.map(timestamp),
            ..v1::Report::default()
        }),
        reported_at: Some(received_at),
    }
}

fn target(valid_through: WallTime) -> v1::TargetStatus {
    v1::TargetStatus {
        newest: Some(v1::RecoveryPoint::default()),
        valid_through: Some(timestamp(valid_through)),
        ..v1::TargetStatus::default()
    }
}

#[test]
fn a_report_that_was_long_under_way_does_not_better_the_rpo() {
    // Asked at 100, made at 101, received at 109; the instant was at 98; it is 110.
    let view = reported(seconds(101), Some(seconds(100)), seconds(109));
    let shown = rpo(&view, &target(seconds(98)), seconds(110)).unwrap();
    assert_eq!(
        shown,
        Duration::from_secs(13),
        "12 s is the truth, and the second before it was made is not known"
    );
}

#[test]
fn a_replicator_whose_clock_is_wrong_does_not_better_the_rpo() {
    for skew in [0, 500] {
        let view = reported(seconds(1_101 - skew), Some(seconds(100)), seconds(102));
        let shown = rpo(&view, &target(seconds(1_098 - skew)), seconds(110)).unwrap();
        assert_eq!(shown, Duration::from_secs(13));
    }
}

#[test]
fn an_echo_from_the_future_counts_as_received() {
    let view = reported(seconds(101), Some(seconds(500)), seconds(102));
    let shown = rpo(&view, &target(seconds(98)), seconds(110)).unwrap();
    assert_eq!(shown, Duration::from_secs(11));
}

#[test]
fn a_report_that_answers_no_question_tells_no_rpo() {
    let view = reported(seconds(101), None, seconds(102));
    assert_eq!(rpo(&view, &target(seconds(98)), seconds(110)), None);
}

//! Who comes to a gathering, and what they are told.

use std::time::Duration;

use super::{
    dialling::{Dial, Dialling},
    *,
};

const SOON: Duration = Duration::from_millis(200);

fn membership(members: &[&str]) -> Membership {
    Membership {
        group: "shop".to_owned(),
        members: members.iter().map(|member| (*member).to_owned()).collect(),
        hold_limit: Duration::from_secs(1),
        watchdog_monitor: None,
        leader: None,
    }
}

/// Nobody is elsewhere.
#[derive(Debug)]
struct Nowhere;

impl Dial for Nowhere {
    fn dial<'a>(&'a self, _endpoint: &'a str) -> Dialling<'a> {
        Box::pin(std::future::ready(Err("nobody answers".to_owned())))
    }
}

fn groups() -> Groups {
    let own = Own {
        name: "east-1".to_owned(),
        site: "east".to_owned(),
    };
    Groups::dialling_by(own, Nowhere)
}

fn sit(groups: &Groups, vm: &str, members: &[&str]) -> Seat {
    groups.place(&membership(members), vm).sit()
}

fn soon() -> Instant {
    Instant::now() + SOON
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn why(meeting: &Meeting) -> &str {
    match meeting {
        Meeting::Alone { why } => why,
        Meeting::Together(_) | Meeting::Idle => panic!("{meeting:?}"),
    }
}

#[tokio::test]
async fn all_members_take_one_instant_if_any_has_something_to_capture() {
    let groups = groups();
    let (mut a, mut b) = (sit(&groups, "a", &["a", "b"]), sit(&groups, "b", &["a", "b"]));
    for wants in [[Wants::Instant, Wants::Nothing], [Wants::Nothing, Wants::Instant]] {
        let met = tokio::join!(a.meet(wants[0], far()), b.meet(wants[1], far()));
        let (Meeting::Together(a), Meeting::Together(b)) = met else {
            panic!("{met:?}");
        };
        assert_eq!(a.id(), b.id());
    }
    let met = tokio::join!(a.meet(Wants::Nothing, far()), b.meet(Wants::Nothing, far()));
    assert!(matches!(met, (Meeting::Idle, Meeting::Idle)), "{met:?}");
}

#[tokio::test]
async fn a_member_that_does_not_replicate_is_not_waited_for_and_named() {
    let groups = groups();
    let members = ["a", "b", "c"];
    let (mut a, mut b) = (sit(&groups, "a", &members), sit(&groups, "b", &members));
    let met = tokio::join!(a.meet(Wants::Instant, far()), b.meet(Wants::Nothing, far()));
    assert_eq!(
        why(&met.0),
        "c does not replicate now, or its replicator does not reach where the group gathers"
    );
    assert_eq!(why(&met.1), why(&met.0));
}

#[tokio::test]
async fn a_member_that_is_late_is_waited_for_until_the_deadline_and_meets_the_others_the_next_time() {
    let groups = groups();
    let (mut a, mut b) = (sit(&groups, "a", &["a", "b"]), sit(&groups, "b", &["a", "b"]));
    let alone = a.meet(Wants::Instant, soon()).await;
    assert_eq!(why(&alone), "b is still at its last cycle");
    let met = tokio::join!(b.meet(Wants::Instant, far()), a.meet(Wants::Instant, far()));
    assert!(
        matches!(met, (Meeting::Together(_), Meeting::Together(_))),
        "{met:?}"
    );
}

#[tokio::test]
async fn a_member_that_leaves_while_the_others_wait_sets_them_free() {
    let groups = groups();
    let (mut a, b) = (sit(&groups, "a", &["a", "b"]), sit(&groups, "b", &["a", "b"]));
    let (alone, ()) = tokio::join!(a.meet(Wants::Instant, far()), async { drop(b) });
    assert_eq!(
        why(&alone),
        "b does not replicate now, or its replicator does not reach where the group gathers"
    );
}

#[tokio::test]
async fn who_stopped_waiting_is_not_counted() {
    let groups = groups();
    let (mut a, mut b) = (sit(&groups, "a", &["a", "b"]), sit(&groups, "b", &["a", "b"]));
    drop(tokio::time::timeout(SOON, b.meet(Wants::Instant, far())).await);
    let alone = a.meet(Wants::Instant, soon()).await;
    assert_eq!(why(&alone), "b is still at its last cycle");
}

#[tokio::test]
async fn members_who_were_told_different_things_of_the_group_are_alone() {
    let groups = groups();
    let (mut a, mut b) = (
        sit(&groups, "a", &["a", "b"]),
        sit(&groups, "b", &["a", "b", "c"]),
    );
    let met = tokio::join!(a.meet(Wants::Instant, far()), b.meet(Wants::Instant, far()));
    assert_eq!(why(&met.0), "the group is being changed");
    assert_eq!(why(&met.1), why(&met.0));
}

#[tokio::test]
async fn the_newest_instant_is_one_that_all_members_have_sealed() {
    let groups = groups();
    let (a, b) = (sit(&groups, "a", &["a", "b"]), sit(&groups, "b", &["a", "b"]));
    let instant = |number: u64| GroupInstant {
        id: InstantId(number),
        at: WallTime(number),
    };
    a.sealed(instant(1));
    a.sealed(instant(2));
    assert_eq!(b.newest(), None);
    b.sealed(instant(2));
    assert_eq!((a.newest(), b.newest()), (Some(instant(2)), Some(instant(2))));
    b.sealed(instant(1));
    assert_eq!(a.newest(), Some(instant(2)));
    b.sealed(instant(3));
    assert_eq!(a.newest(), Some(instant(2)));
}

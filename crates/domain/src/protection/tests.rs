//! Every state of protection against every event, by the documented table.

use super::*;
use crate::transition_table;

fn states() -> Vec<(&'static str, Protection)> {
    [
        Protection::Pending,
        Protection::CheckingPrerequisites,
        Protection::InstallingMobility,
        Protection::PreparingTarget,
        Protection::EnablingReplication,
        Protection::InitialSync,
        Protection::AwaitingRecoveryPoint,
        Protection::Protected,
        Protection::Resynchronizing { why: "lost".into() },
        Protection::Paused,
        Protection::Disabling,
        Protection::Failed {
            at: Stage::InitialSync,
            reason: "no room".into(),
        },
    ]
    .into_iter()
    .map(|state| (state.name(), state))
    .collect()
}

fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("begin-checking", Event::BeginChecking),
        ("begin-installing", Event::BeginInstalling),
        ("begin-preparing", Event::BeginPreparing),
        ("begin-enabling", Event::BeginEnabling),
        ("fail", Event::Fail { reason: "why".into() }),
        ("disable", Event::Disable),
        ("see-nothing", Event::See(Sight::Nothing)),
        ("see-sync", Event::See(Sight::InitialSync)),
        ("see-no-point", Event::See(Sight::NoPointYet)),
        ("see-point", Event::See(Sight::Replicating)),
        (
            "see-resync",
            Event::See(Sight::Resynchronizing { why: "lost".into() }),
        ),
        ("see-paused", Event::See(Sight::Paused)),
    ]
}

#[test]
fn every_state_takes_every_event_as_the_table_says() {
    transition_table::check(
        include_str!("../protection.rs"),
        &states(),
        &events(),
        |state| state.name().to_owned(),
        |state, event| step(state, event).ok().map(|(next, _)| next),
    );
}

#[test]
fn a_failure_names_the_stage_that_it_happened_at() {
    let (next, effects) = step(
        &Protection::CheckingPrerequisites,
        Event::Fail {
            reason: "tracking".into(),
        },
    )
    .unwrap();
    assert_eq!(
        next,
        Protection::Failed {
            at: Stage::CheckingPrerequisites,
            reason: "tracking".into()
        }
    );
    assert_eq!(effects.len(), 1);
}

#[test]
fn becoming_protected_is_announced_once() {
    let (next, effects) = step(&Protection::InitialSync, Event::See(Sight::Replicating)).unwrap();
    assert_eq!(effects, vec![Effect::AnnounceProtected]);
    let (_, again) = step(&next, Event::See(Sight::Replicating)).unwrap();
    assert_eq!(again, vec![]);
}

#[test]
fn a_user_can_order_a_way_out_of_every_state() {
    for (name, state) in states() {
        assert!(step(&state, Event::Disable).is_ok(), "{name}");
    }
}

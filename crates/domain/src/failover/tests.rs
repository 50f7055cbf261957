//! Every state of a failover against every event, by the documented table.

use super::*;
use crate::transition_table;

#[test]
fn every_state_takes_every_event_as_the_table_says() {
    let states = [
        Failover::None,
        Failover::FailingOver,
        Failover::FailedOver,
        Failover::Failed { reason: "why".into() },
    ]
    .map(|state| (state.name(), state));
    let events = [
        ("order", Event::Order),
        ("fail", Event::Fail { reason: "why".into() }),
        ("cancel", Event::Cancel),
        ("recovered", Event::Recovered),
    ];
    transition_table::check(
        include_str!("../failover.rs"),
        &states,
        &events,
        |state| state.name().to_owned(),
        |state, event| step(state, event).ok().map(|(next, _)| next),
    );
}

#[test]
fn a_failed_failover_can_be_ordered_again() {
    let failed = Failover::Failed { reason: "why".into() };
    assert_eq!(step(&failed, Event::Order).unwrap().0, Failover::FailingOver);
}

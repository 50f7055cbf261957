//! Every state of a test failover against every event, by the documented table.

use super::*;
use crate::transition_table;

#[test]
fn every_state_takes_every_event_as_the_table_says() {
    let states = [
        TestFailover::Starting,
        TestFailover::Running,
        TestFailover::CleaningUp,
        TestFailover::Cleaned,
        TestFailover::Failed { reason: "why".into() },
    ]
    .map(|state| (state.name(), state));
    let events = [
        ("start", Event::Start),
        ("started", Event::Started),
        ("fail", Event::Fail { reason: "why".into() }),
        ("clean-up", Event::CleanUp),
        ("cleaned", Event::Cleaned),
    ];
    transition_table::check(
        include_str!("../test_failover.rs"),
        &states,
        &events,
        |state| state.name().to_owned(),
        |state, event| step(state, event).ok().map(|(next, _)| next),
    );
}

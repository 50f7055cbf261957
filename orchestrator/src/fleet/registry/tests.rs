//! The registry of replicators without a network: places, waiters and results.

use super::*;

fn register(name: &str, site: &str, instance: &str) -> v1::Register {
    v1::Register {
        name: name.to_owned(),
        site: site.to_owned(),
        instance: instance.to_owned(),
        ..v1::Register::default()
    }
}

fn attach(
    registry: &mut Registry,
    name: &str,
    site: &str,
    instance: &str,
) -> Result<(Session, Arrival), AttachRefused> {
    let (outbound, _) = mpsc::channel(1);
    let ended = CancellationToken::new();
    registry.attach(register(name, site, instance), outbound, ended, WallTime(1))
}

fn arrival(registry: &mut Registry, instance: &str) -> Arrival {
    attach(registry, "r", "east", instance).unwrap().1
}

const ENABLE: v1::command::Body = v1::command::Body::EnableSource(v1::EnableSource {
    chain: tonic::codegen::Bytes::new(),
});

fn enabled(id: &str) -> v1::CommandResult {
    v1::CommandResult {
        id: id.to_owned(),
        outcome: Some(v1::command_result::Outcome::SourceEnabled(v1::SourceEnabled {})),
    }
}

#[test]
fn two_processes_of_one_name_are_noticed_when_the_first_comes_back() {
    let mut registry = Registry::default();
    assert_eq!(arrival(&mut registry, "a"), Arrival::Fresh);
    assert_eq!(arrival(&mut registry, "a"), Arrival::Replaced);
    assert_eq!(arrival(&mut registry, "b"), Arrival::Replaced);
    assert_eq!(arrival(&mut registry, "c"), Arrival::Replaced);
    assert_eq!(arrival(&mut registry, "a"), Arrival::Flapping);
    assert_eq!(arrival(&mut registry, "b"), Arrival::Flapping);
}

#[test]
fn a_replaced_session_is_told_to_end_and_changes_nothing_any_more() {
    let mut registry = Registry::default();
    let (first, _) = attach(&mut registry, "r", "east", "a").unwrap();
    let (second, _) = attach(&mut registry, "r", "east", "b").unwrap();
    assert!(first.ended.is_cancelled() && !second.ended.is_cancelled());
    registry.report(&first, v1::Report::default(), WallTime(9));
    registry.silent(&first);
    registry.detach(&first);
    let view = registry.view();
    let replicator = view.replicators.get("r").unwrap();
    assert!(replicator.up && replicator.report.is_none());
    assert_eq!(registry.sessions().get("east").unwrap().number, second.number);
}

#[test]
fn a_site_has_one_replicator_and_a_name_one_site() {
    let mut registry = Registry::default();
    let (first, _) = attach(&mut registry, "r", "east", "a").unwrap();
    assert!(matches!(
        attach(&mut registry, "other", "east", "b"),
        Err(AttachRefused::SiteTaken { holder, .. }) if holder == "r"
    ));
    assert!(matches!(
        attach(&mut registry, "r", "west", "b"),
        Err(AttachRefused::NameElsewhere { site, .. }) if site == "east"
    ));
    registry.detach(&first);
    attach(&mut registry, "other", "east", "b").unwrap();
    let view = registry.view();
    assert_eq!(view.replicators.len(), 2);
    assert_eq!(view.of_site("east").unwrap().register.name, "other");
}

#[test]
fn made_up_names_do_not_fill_the_memory() {
    let mut registry = Registry::default();
    let (kept, _) = attach(&mut registry, "kept", "east", "a").unwrap();
    for number in 0..MAX_KNOWN {
        let name = format!("r{number}");
        let (session, _) = attach(&mut registry, &name, "west", "a").unwrap();
        registry.detach(&session);
    }
    assert_eq!(registry.view().replicators.len(), MAX_KNOWN);
    registry.report(&kept, v1::Report::default(), WallTime(9));
    assert!(registry.view().replicators["kept"].report.is_some());
}

#[test]
fn a_result_reaches_only_who_waits_for_it_at_its_site() {
    let mut registry = Registry::default();
    let (east, _) = attach(&mut registry, "e", "east", "a").unwrap();
    let (west, _) = attach(&mut registry, "w", "west", "a").unwrap();
    let (_, mut answer) = registry.expect("east", "job/1", &ENABLE).unwrap();
    let now = WallTime(2);
    assert_eq!(registry.answer(&west, enabled("job/1"), now), Delivery::Ignored);
    assert_eq!(registry.answer(&east, enabled("job/2"), now), Delivery::Ignored);
    assert!(answer.try_recv().is_err());
    assert_eq!(registry.answer(&east, enabled("job/1"), now), Delivery::Delivered);
    assert_eq!(answer.try_recv().unwrap(), Ok(enabled("job/1").outcome.unwrap()));
    assert_eq!(registry.answer(&east, enabled("job/1"), now), Delivery::Ignored);
}

#[test]
fn a_waiter_that_goes_leaves_a_later_one_of_the_same_identifier_alone() {
    let mut registry = Registry::default();
    let (first, _answer) = registry.expect("east", "job/1", &ENABLE).unwrap();
    assert!(matches!(
        registry.expect("east", "job/1", &ENABLE),
        Err(FleetError::InFlight { .. })
    ));
    registry.forget("job/1", first);
    let (second, _answer) = registry.expect("east", "job/1", &ENABLE).unwrap();
    registry.forget("job/1", first);
    assert!(registry.expect("east", "job/1", &ENABLE).is_err());
    registry.forget("job/1", second);
    assert!(registry.expect("east", "job/1", &ENABLE).is_ok());
}

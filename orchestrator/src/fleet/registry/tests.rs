//! The registry of replicators without a network: places, waiters and results.

use super::{super::addressee::Found, *};
use crate::replicators::Duty;

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

fn anyone_in_the_east() -> Addressee {
    addressed("east", Duty::Source(None))
}

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
    assert_eq!(registry.sessions().get("r").unwrap().number, second.number);
}

#[test]
fn a_site_has_several_replicators_but_one_vault_and_a_name_one_site() {
    let mut registry = Registry::default();
    let (first, _) = attach(&mut registry, "r", "east", "a").unwrap();
    let (other, _) = attach(&mut registry, "other", "east", "b").unwrap();
    assert!(!first.ended.is_cancelled());
    assert!(matches!(
        attach(&mut registry, "r", "west", "b"),
        Err(AttachRefused::NameElsewhere { site, .. }) if site == "east"
    ));
    let with_vault = |name: &str| v1::Register {
        vault_incarnation: vec![9; 16].into(),
        ..register(name, "east", "a")
    };
    let mut keep = |name| {
        let (outbound, _) = mpsc::channel(1);
        registry.attach(with_vault(name), outbound, CancellationToken::new(), WallTime(1))
    };
    let (vault, _) = keep("vault").unwrap();
    keep("vault").unwrap();
    assert!(matches!(
        keep("another"),
        Err(AttachRefused::VaultTaken { holder, .. }) if holder == "vault"
    ));
    registry.detach(&other);
    registry.report(&first, v1::Report::default(), WallTime(9));
    let view = registry.view();
    assert_eq!(view.replicators.len(), 3);
    assert!(view.replicators["r"].up && view.replicators["vault"].up && !view.replicators["other"].up);
    assert!(vault.ended.is_cancelled());
}

fn addressed(site: &str, duty: Duty) -> Addressee {
    Addressee {
        site: site.to_owned(),
        duty,
    }
}

#[test]
fn a_command_is_for_the_one_that_is_named_or_for_the_only_one_that_can_do_it() {
    let mut registry = Registry::default();
    let mut add = |name: &str, captures: Option<bool>, vault: &[u8]| {
        let register = v1::Register {
            captures,
            vault_incarnation: vault.to_vec().into(),
            // Sources can be dialled as well as vaults.
            replication_endpoint: "http://10.0.0.2:7201".to_owned(),
            ..register(name, "east", "a")
        };
        let (outbound, _) = mpsc::channel(1);
        registry
            .attach(register, outbound, CancellationToken::new(), WallTime(1))
            .unwrap();
        registry.sessions()
    };
    let found = |sessions: &Sessions, duty: Duty| match addressed("east", duty).among(sessions) {
        Found::None => Vec::new(),
        Found::One(session) => vec![session.name.clone()],
        Found::Several(names) => names,
    };
    let sessions = add("vault", Some(false), &[9; 16]);
    assert_eq!(found(&sessions, Duty::Source(None)), [""; 0]);
    let sessions = add("e1", Some(true), &[]);
    assert_eq!(found(&sessions, Duty::Source(None)), ["e1"]);
    // One of an older version does not say what it can.
    let sessions = add("e2", None, &[]);
    assert_eq!(found(&sessions, Duty::Source(None)), ["e1", "e2"]);
    assert_eq!(found(&sessions, Duty::Source(Some("e2".to_owned()))), ["e2"]);
    assert_eq!(found(&sessions, Duty::Source(Some("e3".to_owned()))), [""; 0]);
    assert_eq!(found(&sessions, Duty::Vault), ["vault"]);
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
    let (_, mut answer) = registry.expect(anyone_in_the_east(), "job/1", &ENABLE).unwrap();
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
    let (first, _answer) = registry.expect(anyone_in_the_east(), "job/1", &ENABLE).unwrap();
    assert!(matches!(
        registry.expect(anyone_in_the_east(), "job/1", &ENABLE),
        Err(FleetError::InFlight { .. })
    ));
    registry.forget("job/1", first);
    let (second, _answer) = registry.expect(anyone_in_the_east(), "job/1", &ENABLE).unwrap();
    registry.forget("job/1", first);
    assert!(registry.expect(anyone_in_the_east(), "job/1", &ENABLE).is_err());
    registry.forget("job/1", second);
    assert!(registry.expect(anyone_in_the_east(), "job/1", &ENABLE).is_ok());
}

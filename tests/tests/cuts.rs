//! The initial sync goes on where it was, whoever is killed and wherever the wire is cut.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::time::Duration;

use farshore_tests::{
    Lab,
    guests::GuestOrder,
    lab::{LabOptions, SYNC},
    replica::judge_point,
};
use serde_json::Value;

const BALLAST: u64 = 48 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// A lab whose sync takes some ten seconds, halfway through it.
fn halfway() -> Lab {
    let mut lab = Lab::start(LabOptions {
        bandwidth: Some("8MiB".to_owned()),
        ..LabOptions::default()
    });
    lab.start_guest(GuestOrder {
        ballast_bytes: BALLAST,
        ..GuestOrder::small("db", 11)
    });
    let _ = lab.protect(&["db"]).done();
    lab.cli.vm_when("db", "the middle of the sync", SYNC, |vm| {
        vm["state"] == "InitialSync" && done(vm) > 20 * MIB
    });
    lab
}

fn done(vm: &Value) -> u64 {
    vm["syncDoneBytes"].as_u64().unwrap_or(0)
}

fn ends_well(lab: &Lab, kept_at_least: u64) {
    let resumed = lab.cli.vm_when("db", "the sync goes on", SYNC, |vm| {
        vm["state"] != "InitialSync" || done(vm) > 0
    });
    if resumed["state"] == "InitialSync" {
        assert!(
            done(&resumed) >= kept_at_least,
            "only {} bytes were kept",
            done(&resumed)
        );
    }
    lab.cli.vm_in("db", "Protected", SYNC);
    let guest = &lab.guest("db").1;
    let acknowledged = guest.testimony().unwrap().acknowledged;
    let point = lab.cli.point_after_now("db", Duration::from_secs(90));
    let judgement = judge_point(&lab.vault(), "db", &point, &lab.path(""), acknowledged);
    assert!(
        judgement.is_exact_instant() && judgement.lost_nothing(),
        "{}",
        judgement.describe()
    );
    let testimony = guest.testimony().unwrap();
    assert!(testimony.errors.is_empty(), "{:?}", testimony.errors);
}

#[test]
fn a_killed_source_replicator_goes_on_with_the_sync() {
    let mut lab = halfway();
    lab.east.kill9();
    lab.east.restart();
    ends_well(&lab, 8 * MIB);
}

#[test]
fn a_killed_target_replicator_goes_on_with_the_sync() {
    let mut lab = halfway();
    lab.west.kill9();
    lab.west.restart();
    ends_well(&lab, 8 * MIB);
}

#[test]
fn a_killed_orchestrator_is_not_missed_by_the_sync() {
    let mut lab = halfway();
    lab.orchestrator.kill9();
    std::thread::sleep(Duration::from_secs(2));
    lab.orchestrator.restart();
    ends_well(&lab, 8 * MIB);
}

#[test]
fn a_partition_that_heals_is_survived() {
    let lab = halfway();
    let link = |state: &str| {
        farshore_tests::namespace::ip(&["-n", lab.east_network(), "link", "set", "wan", state]);
    };
    link("down");
    std::thread::sleep(Duration::from_secs(6));
    link("up");
    ends_well(&lab, 8 * MIB);
}

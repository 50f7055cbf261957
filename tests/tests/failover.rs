//! Test failover in a bubble, unplanned failover after a disaster, and the return of those who should have died.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, net::SocketAddr, time::Duration};

use farshore_guest::machine::SourceVm;
use farshore_tests::{
    Lab, eventually,
    guests::{BOOT, GuestOrder, reaches, status_from},
    lab::{LabOptions, SYNC},
};
use rustix::process::{Pid, Signal, kill_process};

/// Gives the bubble's bridge an address from which the harness can talk to the recovered VM.
fn enter(bubble: &str) {
    farshore_tests::namespace::ip(&["-n", bubble, "addr", "add", "10.77.0.253/24", "dev", "br0"]);
}

fn two_protected() -> Lab {
    let mut lab = Lab::start(LabOptions::default());
    lab.start_guest(GuestOrder::small("db", 11));
    lab.start_guest(GuestOrder::small("web", 12));
    let _ = lab.protect(&["db"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    lab
}

#[test]
fn a_test_failover_is_isolated_and_leaves_nothing_behind() {
    let lab = two_protected();
    let (db, web): (SocketAddr, SocketAddr) = (lab.guest("db").0.address(), lab.guest("web").0.address());
    let before = lab.guest("db").1.testimony().unwrap().acknowledged;
    let _ = lab.cli.point_after_now("db", Duration::from_secs(60));

    let test = lab
        .cli
        .run(&["failover", "test", "db", "--wait", "-o", "json"])
        .done()
        .json();
    let name = test["name"].as_str().unwrap().to_owned();
    assert_eq!(test["state"], "Running", "{test:#}");
    let bubble = test["recovered"]["namespace"].as_str().unwrap().to_owned();
    assert_eq!(lab.bubbles(), std::slice::from_ref(&bubble));
    enter(&bubble);
    let status = eventually(BOOT, "the recovered guest answers", || status_from(&bubble, db));
    assert!(status.boot_verdict.is_clean(), "{:?}", status.boot_verdict);
    assert!(
        status.boot_verdict.region_b_last >= before.region_b,
        "what was acknowledged is there"
    );

    assert!(
        reaches(lab.east_network(), db, web),
        "the positive control: production reaches production"
    );
    assert!(!reaches(&bubble, db, web), "the bubble must not reach production");
    let in_production = lab.guest("db").1.testimony().unwrap().acknowledged;
    let during = lab.cli.points("db");
    lab.cli.points_at_least("db", during + 2, Duration::from_secs(60));

    let _ = lab
        .cli
        .run(&["failover", "cleanup", &name, "--notes", "it booted", "--wait"])
        .done();
    eventually(Duration::from_secs(60), "the test is cleaned", || {
        let test = lab
            .cli
            .run(&["get", "test-failovers", &name, "-o", "json"])
            .done()
            .json();
        assert_ne!(test["state"], "Failed", "{test:#}");
        (test["state"] == "Cleaned" && test["notes"] == "it booted").then_some(())
    });
    assert!(lab.bubbles().is_empty(), "{:?}", lab.bubbles());
    assert!(lab.strangers().is_empty(), "{:?}", lab.strangers());
    let production = lab.guest("db").1.testimony().unwrap();
    assert!(production.errors.is_empty() && production.acknowledged.region_a > in_production.region_a);
}

#[test]
fn after_a_disaster_the_vm_runs_at_the_far_shore_and_the_old_site_is_fenced() {
    let mut lab = two_protected();
    let db = lab.guest("db").0.address();
    let points = lab.cli.points("db");
    lab.cli.points_at_least("db", points + 2, Duration::from_secs(60));
    let acknowledged = lab.guest("db").1.testimony().unwrap().acknowledged;
    let vm = lab.cli.vm("db").unwrap();
    let rpo = vm["rpoSeconds"].as_f64().unwrap();

    lab.guest("db").1.kill9(Duration::from_secs(10)).unwrap();
    lab.east.kill9();
    let failed_over = lab.cli.run(&["failover", "unplanned", "db", "--wait"]);
    let _ = failed_over.done();
    let vm = lab.cli.vm("db").unwrap();
    assert_eq!(vm["failover"], "FailedOver", "{vm:#}");
    let west = lab.west_network().to_owned();
    let status = eventually(BOOT, "the VM answers at the far shore", || status_from(&west, db));
    assert!(status.boot_verdict.is_clean(), "{:?}", status.boot_verdict);
    let lost = acknowledged
        .region_b
        .saturating_sub(status.boot_verdict.region_b_last);
    // 200 records a second; the RPO that was shown, one more cycle, and the time that asking took.
    let at_stake = Duration::try_from_secs_f64(rpo).unwrap() + Duration::from_secs(4);
    let allowed = at_stake.as_millis() * 200 / 1000;
    assert!(
        u128::from(lost) <= allowed,
        "{lost} records lost with an RPO of {rpo} s"
    );

    the_old_site_returns_and_is_fenced(&mut lab);
    the_target_replicator_dies_under_the_recovered_vm(&mut lab, &west, db);
}

fn the_old_site_returns_and_is_fenced(lab: &mut Lab) {
    let points = lab.cli.points("db");
    let returned = SourceVm::start(lab.guest("db").1.request().clone()).unwrap();
    lab.east.restart();
    let vm = lab
        .cli
        .vm_when("db", "the old source is fenced", Duration::from_secs(60), |vm| {
            vm["sourcePhase"] == "Fenced"
        });
    assert!(vm["sourceDetail"].as_str().unwrap().contains("epoch"), "{vm:#}");
    assert_eq!(lab.cli.points("db"), points, "nothing of the old source landed");
    assert!(lab.east.log().contains("fenced"));
    returned.kill9(Duration::from_secs(10)).unwrap();
}

fn the_target_replicator_dies_under_the_recovered_vm(lab: &mut Lab, west: &str, db: SocketAddr) {
    let before = status_from(west, db).unwrap();
    lab.west.kill9();
    let later = eventually(Duration::from_secs(30), "the VM writes on", || {
        status_from(west, db).filter(|status| status.last_b > before.last_b + 100)
    });
    assert_eq!(later.io_errors, 0);
    lab.west.restart();
    let vm = lab.cli.vm_when(
        "db",
        "the recovered VM is adopted",
        Duration::from_secs(60),
        |vm| vm["recovered"]["condition"] == "Running",
    );
    let adopted = eventually(Duration::from_secs(30), "the VM writes on", || {
        status_from(west, db).filter(|status| status.last_b > later.last_b + 100)
    });
    assert_eq!(adopted.io_errors, 0, "{vm:#}");
    the_export_dies_and_hangs_under_the_recovered_vm(lab, west, db);
}

/// The first write to each piece of its disks reads the rest of it from the export, so that a VM that writes on has one.
fn the_export_dies_and_hangs_under_the_recovered_vm(lab: &Lab, west: &str, db: SocketAddr) {
    let process = || -> Option<i32> {
        let files = fs::read_dir(lab.path("west/r/exports")).unwrap().flatten();
        let mut pid_files = files.filter(|file| file.path().extension().is_some_and(|end| end == "pid"));
        fs::read_to_string(pid_files.next()?.path())
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    for signal in [Signal::KILL, Signal::STOP] {
        let struck = process().unwrap();
        let before = status_from(west, db).unwrap();
        kill_process(Pid::from_raw(struck).unwrap(), signal).unwrap();
        eventually(
            Duration::from_secs(40),
            "another process exports the point",
            || process().filter(|pid| *pid != struck),
        );
        let later = eventually(Duration::from_secs(40), "the VM writes on", || {
            status_from(west, db).filter(|status| status.last_b > before.last_b + 200)
        });
        assert_eq!(later.io_errors, 0, "{signal:?}");
    }
}

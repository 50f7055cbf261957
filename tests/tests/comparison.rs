//! Source and replica are compared by hashes: for ever, to find what tracking missed, and once after tracking was lost, so that
//! only what differs travels.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, os::unix::fs::FileExt, path::Path, time::Duration};

use farshore_tests::{
    Lab,
    bare_vm::{BareVm, virtio_disk},
    lab::{LabOptions, SYNC},
    replica::export,
};
use serde_json::Value;

const MIB: u64 = 1024 * 1024;
const ROOT_MIB: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(120);

fn root_of_newest(lab: &Lab, name: &str) -> Vec<u8> {
    let directory = lab.path("exported");
    fs::create_dir_all(&directory).unwrap();
    let (root, _) = export(&lab.vault(), name, "latest", &directory);
    let bytes = fs::read(&root).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    bytes
}

fn audit(vm: &Value, field: &str) -> u64 {
    vm["audit"][field].as_u64().unwrap_or(0)
}

#[test]
fn an_edit_behind_the_bitmaps_back_is_found_told_and_sent_again() {
    let mut lab = Lab::start(LabOptions {
        policy: Some("auditRate: 64MiB".to_owned()),
        ..LabOptions::default()
    });
    // So small that it is compared at once.
    lab.start_bare("db", 24);
    lab.bare("db").write("vdroot", 7, 0, 16 * MIB);
    let _ = lab.protect_bare(&["db"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    lab.cli
        .vm_when("db", "a whole comparison", PATIENCE, |vm| audit(vm, "passes") > 0);
    let file = fs::File::options()
        .write(true)
        .open(lab.bare("db").root())
        .unwrap();
    file.write_all_at(&[9; 4096], 10 * MIB).unwrap();
    file.sync_all().unwrap();
    let told = lab.cli.vm_when("db", "the difference", PATIENCE, |vm| {
        audit(vm, "mismatches") > 0 && vm["health"] == "Critical"
    });
    assert_eq!(told["audit"]["lastMismatch"]["volume"], "root");
    assert_eq!(told["audit"]["lastMismatch"]["offsetBytes"], 10 * MIB);
    assert_eq!(told["healthReasons"][0]["code"], "audit-mismatch");
    let repaired = lab.cli.vm_when("db", "a clean comparison", PATIENCE, |vm| {
        vm["health"] == "Normal" && vm["audit"]["mismatches"] == told["audit"]["mismatches"]
    });
    assert_eq!(audit(&repaired, "mismatches"), 1);
    let events = lab.cli.run(&["get", "events", "-o", "json"]).done().json();
    let events = events["items"].as_array().unwrap();
    let of_audit: Vec<_> = events
        .iter()
        .filter(|event| event["code"] == "audit-mismatch")
        .collect();
    assert_eq!(of_audit.len(), 1, "{events:?}");
    assert_eq!(of_audit[0]["severity"], "Critical");
    assert!(root_of_newest(&lab, "db") == fs::read(lab.bare("db").root()).unwrap());
}

/// Starts a VM with disks that are there already.
fn start_again(directory: &Path, name: &str) -> BareVm {
    let root = directory.join(format!("{name}-root.raw"));
    let data = directory.join(format!("{name}-data.qcow2"));
    BareVm::start(
        directory,
        name,
        &[
            virtio_disk("root", "raw", &root, ""),
            virtio_disk("data", "qcow2", &data, ""),
        ]
        .concat(),
    )
}

#[test]
fn after_tracking_was_lost_only_differences_travel() {
    let mut lab = Lab::start(LabOptions::default());
    lab.start_bare("db", ROOT_MIB);
    lab.bare("db").write("vdroot", 7, 0, 40 * MIB);
    let _ = lab.protect_bare(&["db"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    let before: u64 = lab.cli.newest("db").parse().unwrap();
    // A raw disk's bitmap goes with its process.
    lab.end_bare("db");
    let vm = start_again(&lab.vms(), "db");
    vm.write("vdroot", 8, 10 * MIB, 4096);
    vm.write("vdroot", 9, 30 * MIB, 128 * 1024);
    let _ = lab.adopt_bare(vm);
    lab.cli
        .vm_when("db", "a point after the comparison", PATIENCE, |vm| {
            vm["state"] == "Protected" && vm["newestPoint"]["sequence"].as_u64() > Some(before)
        });
    let events = lab.cli.run(&["get", "events", "-o", "json"]).done().json();
    let mut events = events["items"].as_array().unwrap().iter();
    let told = events.find(|event| event["code"] == "tracking-lost").unwrap();
    assert_eq!(told["severity"], "Warning");
    let points = lab.cli.run(&["get", "points", "db", "-o", "json"]).done().json();
    let points = points["items"].as_array().unwrap().iter();
    let sent: u64 = points
        .filter(|point| point["sequence"].as_u64() > Some(before))
        .map(|point| point["changedBytes"].as_u64().unwrap())
        .sum();
    assert!(
        (1..=MIB).contains(&sent),
        "{sent} bytes were sent of a disk of {ROOT_MIB} MiB that differs in three blocks"
    );
    assert!(root_of_newest(&lab, "db") == fs::read(lab.bare("db").root()).unwrap());
}

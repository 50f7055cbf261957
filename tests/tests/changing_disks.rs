//! Disks of a protected VM grow, join and leave while it is written to: older points keep what they had, newer ones have
//! what there is, and nothing of the other disks is sent again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, time::Duration};

use farshore_blocks::clock::WallTime;
use farshore_tests::{
    Lab,
    bare_vm::{BareVm, document, with_disks},
    eventually,
    lab::{LabOptions, SYNC},
    replica::vault,
};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(90);
/// What a few blocks that a test writes come to, and what is rounded up around them.
const LITTLE: u64 = 512 * 1024;

/// A volume of a point; `None` if the point does not have it.
fn volume(lab: &Lab, point: &str, name: &str) -> Option<Vec<u8>> {
    let to = lab.path(&format!("{point}-{name}.raw"));
    let vault_directory = lab.vault();
    let exported = vault(&[
        "export",
        vault_directory.to_str().unwrap(),
        "db",
        to.to_str().unwrap(),
        "--point",
        point,
        "--volume",
        name,
    ]);
    if exported.status != 0 {
        assert!(exported.stderr.contains("has no volume"), "{}", exported.stderr);
        return None;
    }
    let bytes = fs::read(&to).unwrap();
    fs::remove_file(to).unwrap();
    Some(bytes)
}

/// The names and sizes of the VM's volumes, as users are shown them.
fn volumes(vm: &Value) -> Vec<(String, u64)> {
    let volumes = vm["volumes"].as_array().unwrap().iter();
    volumes
        .map(|volume| {
            let name = volume["name"].as_str().unwrap().to_owned();
            (name, volume["sizeBytes"].as_u64().unwrap())
        })
        .collect()
}

fn await_volumes(lab: &Lab, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, mib)| ((*name).to_owned(), mib * MIB))
        .collect();
    lab.cli
        .vm_when("db", &format!("volumes {expected:?}"), PATIENCE, |vm| {
            assert_eq!(vm["state"], "Protected", "{vm}");
            volumes(vm) == expected
        });
}

/// How many bytes all points behind `point` took.
fn sent_since(lab: &Lab, point: &str) -> u64 {
    let after: u64 = point.parse().unwrap();
    let points = lab.cli.run(&["get", "points", "db", "-o", "json"]).done().json();
    let points = points["items"].as_array().unwrap().iter();
    points
        .filter(|point| point["sequence"].as_u64().unwrap() > after)
        .map(|point| point["changedBytes"].as_u64().unwrap())
        .sum()
}

fn declare(lab: &Lab, vm: &BareVm, disks: &[&str]) {
    let document = with_disks(&document("db", &vm.monitor()), disks);
    let _ = lab.apply(&document).done();
}

/// The node that a device uses.
fn node_of(vm: &BareVm, device: &str) -> String {
    let devices = vm.ask("query-block", json!({}));
    let devices = devices.as_array().unwrap().iter();
    let mut of_device = devices.filter(|found| found["qdev"].as_str().is_some_and(|at| at.contains(device)));
    of_device.next().unwrap()["inserted"]["node-name"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn disks_grow_join_and_leave_and_nothing_of_the_others_is_sent_again() {
    let mut lab = Lab::start(LabOptions::default());
    lab.start_bare("db", 8);
    lab.bare("db").write("vdroot", 1, 0, 4 * MIB);
    lab.bare("db").write("vddata", 2, 0, 4 * MIB);
    let _ = lab.protect_bare(&["db"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    let first = lab.cli.newest("db");
    a_disk_grows(&lab, &first);
    let grown = lab.cli.newest("db");
    a_disk_joins(&lab, &grown);
    let joined = lab.cli.newest("db");
    a_disk_leaves(&lab, &joined);
    let verified = vault(&["verify", lab.vault().to_str().unwrap()]).done();
    assert!(!verified.stdout.is_empty());
    the_newest_point_starts(&lab);
}

/// A point of all that was written so far. Something is written all the while, as a VM that does nothing gets no points; it
/// changes no byte.
fn point_of_all(lab: &Lab) -> String {
    let now = WallTime::now().to_rfc3339();
    eventually(PATIENCE, &format!("a point after {now}"), || {
        lab.bare("db").write("vdroot", 3, MIB, 4096);
        let newest = lab.cli.vm("db")?["newestPoint"].clone();
        let is_later = newest["capturedAt"].as_str()? > now.as_str();
        is_later.then(|| newest["sequence"].to_string())
    })
}

fn a_disk_grows(lab: &Lab, first: &str) {
    let vm = lab.bare("db");
    vm.write("vdroot", 3, MIB, 65536);
    let _ = vm.ask("block_resize", json!({"node-name": "fs-w-0", "size": 12 * MIB}));
    vm.write("vdroot", 4, 11 * MIB, 65536);
    vm.write("vddata", 5, MIB, 65536);
    await_volumes(lab, &[("root", 12), ("data", 8)]);
    let point = point_of_all(lab);
    let root = volume(lab, &point, "root").unwrap();
    assert_eq!(root.len() as u64, 12 * MIB);
    assert_eq!(root, fs::read(vm.root()).unwrap());
    let before = volume(lab, first, "root").unwrap();
    assert_eq!(before.len() as u64, 8 * MIB);
    let sent = sent_since(lab, first);
    assert!(
        (3 * 65536..=4 * MIB + LITTLE).contains(&sent),
        "{sent} bytes were sent"
    );
}

fn a_disk_joins(lab: &Lab, before: &str) {
    let vm = lab.bare("db");
    vm.plug_extra_disk();
    vm.write("vdextra", 6, 2 * MIB, 2 * MIB);
    // At the VM, but not declared, it is none of ours.
    vm.write("vdroot", 7, 2 * MIB, 65536);
    let point = point_of_all(lab);
    assert_eq!(volume(lab, &point, "extra"), None);
    assert_eq!(node_of(vm, "vdextra"), "extra");
    declare(lab, vm, &["root", "extra", "data"]);
    await_volumes(lab, &[("root", 12), ("data", 8), ("extra", 16)]);
    vm.write("vdextra", 8, 3 * MIB, 4096);
    let point = point_of_all(lab);
    let extra = volume(lab, &point, "extra").unwrap();
    let mut expected = vec![0; 16 << 20];
    expected[2 << 20..4 << 20].fill(6);
    expected[3 << 20..(3 << 20) + 4096].fill(8);
    assert!(extra == expected, "the disk that joined is another");
    let sent = sent_since(lab, before);
    assert!(
        (2 * MIB..=2 * MIB + LITTLE).contains(&sent),
        "{sent} bytes were sent"
    );
}

fn a_disk_leaves(lab: &Lab, before: &str) {
    let vm = lab.bare("db");
    declare(lab, vm, &["root", "extra"]);
    await_volumes(lab, &[("root", 12), ("extra", 16)]);
    // It is as it was before protection, and its VM goes on with it.
    assert_eq!(node_of(vm, "vddata"), "data");
    vm.write("vddata", 9, 0, 65536);
    vm.write("vdextra", 10, 0, 4096);
    let point = point_of_all(lab);
    assert_eq!(volume(lab, &point, "data"), None);
    assert_eq!(volume(lab, &point, "root").unwrap(), fs::read(vm.root()).unwrap());
    let data = volume(lab, before, "data").unwrap();
    assert!(data[..1 << 20].iter().all(|byte| *byte == 2));
    let sent = sent_since(lab, before);
    assert!((4096..=LITTLE).contains(&sent), "{sent} bytes were sent");
}

fn the_newest_point_starts(lab: &Lab) {
    let started = lab.cli.run(&["failover", "test", "db", "--wait"]);
    assert_eq!(started.status, 0, "{}", started.stderr);
}

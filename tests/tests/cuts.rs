//! The initial sync goes on where it was, whoever is killed and wherever the wire is cut: all of it in one sync, and what crosses the line
//! is counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, thread, time::Duration};

use farshore_tests::{
    Lab,
    bare_vm::BareVm,
    lab::{LabOptions, SYNC},
    namespace::ip,
    replica::{export, vault},
};
use serde_json::Value;

const MIB: u64 = 1024 * 1024;
/// Bytes that no compression makes fewer.
const DISK_MIB: u64 = 96;
/// What may be sent again for one cut: the window of what is under way is 32 MiB, but at this rate far less is, and what was sent in the
/// second before is told by no report.
const AGAIN_AT_MOST: u64 = 8 * MIB;
/// All protocols' own bytes, reports and questions included.
const AROUND_IT: u64 = 2 * MIB;
/// A report is a second old at most.
const BEHIND: u64 = 12 * MIB;

/// What is cut, and what is under way goes on.
type Cut = fn(&mut Lab);

fn kill_the_source(lab: &mut Lab) {
    lab.east.kill9();
    lab.east.restart();
}

fn kill_the_target(lab: &mut Lab) {
    lab.west.kill9();
    lab.west.restart();
}

fn kill_the_orchestrator(lab: &mut Lab) {
    lab.orchestrator.kill9();
    lab.orchestrator.restart();
}

/// For longer than anyone waits for an answer.
fn part_the_sites(lab: &mut Lab) {
    let link = |state: &str| ip(&["-n", lab.east_network(), "link", "set", "wan", state]);
    link("down");
    thread::sleep(Duration::from_secs(6));
    link("up");
}

fn done(vm: &Value) -> u64 {
    vm["syncDoneBytes"].as_u64().unwrap_or(0)
}

fn done_at_least(lab: &Lab, bytes: u64) -> u64 {
    let what = format!("{} MiB of the sync", bytes / MIB);
    let vm = lab.cli.vm_when("db", &what, SYNC, |vm| {
        assert!(vm["state"] != "Protected", "the sync was over too soon: {vm}");
        vm["state"] == "InitialSync" && done(vm) >= bytes
    });
    done(&vm)
}

#[test]
fn a_first_sync_goes_on_after_each_kind_of_cut_and_little_is_sent_again() {
    let mut lab = Lab::start(LabOptions {
        bandwidth: Some("6MiB".to_owned()),
        ..LabOptions::default()
    });
    let vm = BareVm::with_noise(&lab.vms(), "db", DISK_MIB);
    let root = vm.root();
    let _ = lab.adopt_bare(vm);
    let before = lab.sent_by_the_east();
    let _ = lab.protect_bare(&["db"]).done();
    let cuts: [(&str, Cut); 4] = [
        ("the source is killed", kill_the_source),
        ("the target is killed", kill_the_target),
        ("the orchestrator is killed", kill_the_orchestrator),
        ("the sites are parted", part_the_sites),
    ];
    for ((what, cut), at) in cuts.into_iter().zip([14, 30, 46, 62]) {
        let was = done_at_least(&lab, at * MIB);
        cut(&mut lab);
        // What is shown first was there already, or came within the second before.
        let goes_on = lab.cli.vm_when("db", "the sync goes on", SYNC, |vm| done(vm) > 0);
        assert!(
            done(&goes_on) + BEHIND >= was,
            "{what}: of {was} bytes only {} were kept",
            done(&goes_on)
        );
        println!("{what}: {} -> {} bytes", was, done(&goes_on));
    }
    lab.cli.vm_in("db", "Protected", SYNC);
    let crossed = lab.sent_by_the_east() - before;
    let content = DISK_MIB * MIB;
    println!("{crossed} bytes crossed the line for {content}");
    assert!(
        (content..content + AROUND_IT + 3 * AGAIN_AT_MOST).contains(&crossed),
        "{crossed} bytes crossed the line for {content}"
    );
    let (point, _) = export(&lab.vault(), "db", "latest", &lab.path(""));
    assert!(fs::read(point).unwrap() == fs::read(root).unwrap());
    let _ = vault(&["verify", lab.vault().to_str().unwrap()]).done();
}

//! What stops working under a protected VM is told, costs no recovery point, and is gone on with once it works again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, time::Duration};

use farshore_proto::v1::{self, JobState, ProtectionState, ReplicationHealth, SourcePhase};
use farshore_tests::{
    Daemon, Lab,
    bare_vm::{BareVm, document},
    eventually,
    lab::LabOptions,
    replica::{export, vault},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
const SOON: Duration = Duration::from_secs(60);
/// A monitor may take ten seconds to greet, an order half a minute to find that nobody carries it out.
const TOLD: Duration = Duration::from_secs(45);

#[test]
fn a_vault_without_room_says_so_keeps_its_points_and_goes_on_when_there_is_room() {
    let mut lab = Lab::start(LabOptions {
        vault_room: Some("24m".to_owned()),
        ..LabOptions::default()
    });
    lab.start_bare("big", 64).write("vdroot", 1, 0, 40 * MIB);
    let _ = lab.protect_bare(&["big"]).done();
    let told = no_room_is_told(&lab);
    assert_eq!(told.points, 0);
    lab.leave_vault_room(256 * MIB);
    let first = lab.control().protected("big", SOON);
    let sequence = first.newest.unwrap().sequence.to_string();
    let then = fs::read(lab.bare("big").root()).unwrap();
    assert!(
        point(&lab, "big", &sequence) == then,
        "point {sequence} is the disk"
    );

    lab.leave_vault_room(MIB);
    lab.bare("big").write("vdroot", 2, 4 * MIB, 8 * MIB);
    let told = no_room_is_told(&lab);
    assert_eq!(told.points, first.points, "nothing was lost, nothing half-sealed");
    assert_eq!(told.state(), ProtectionState::Protected);
    let _ = vault(&["verify", lab.vault().to_str().unwrap()]).done();
    assert!(
        point(&lab, "big", &sequence) == then,
        "point {sequence} is still the disk as it was"
    );

    lab.leave_vault_room(256 * MIB);
    lab.control().vm_when("big", "goes on", SOON, |vm| {
        vm.points > first.points && vm.source_detail.is_empty()
    });
    let now = fs::read(lab.bare("big").root()).unwrap();
    assert!(
        now != then && point(&lab, "big", "latest") == now,
        "the newest point is the disk"
    );
}

fn no_room_is_told(lab: &Lab) -> v1::Vm {
    let told = lab.control().vm_when("big", "no room is told", SOON, |vm| {
        vm.source_detail.contains("NO_SPACE") || vm.source_detail.contains("No space left")
    });
    let shown = lab.cli.vm("big").unwrap();
    assert!(shown["sourceDetail"].is_string(), "{shown:#}");
    told
}

/// The content of the first disk at a point.
fn point(lab: &Lab, vm: &str, point: &str) -> Vec<u8> {
    let (root, data) = export(&lab.vault(), vm, point, &lab.path(""));
    let content = fs::read(&root).unwrap();
    fs::remove_file(root).unwrap();
    fs::remove_file(data).unwrap();
    content
}

#[test]
fn a_protected_vm_that_is_gone_or_hangs_can_be_deleted_and_protected_again() {
    let mut lab = Lab::start(LabOptions::default());
    for name in ["gone", "hung"] {
        lab.start_bare(name, 8);
    }
    let _ = lab.protect_bare(&["gone", "hung"]).done();
    for name in ["gone", "hung"] {
        lab.control().protected(name, SOON);
    }
    let monitor = lab.bare("gone").monitor();
    lab.end_bare("gone");
    lab.delete_vm("gone");
    let again = BareVm::with_disks(&lab.vms(), "gone", 8);
    assert_eq!(again.monitor(), monitor);
    lab.adopt_bare(again);
    let _ = lab.protect_bare(&["gone"]).done();
    lab.control().protected("gone", SOON);

    lab.signal_bare("hung", Signal::STOP);
    let _ = lab.cli.run(&["delete", "vm", "hung"]).done();
    let job = lab.control().jobs_of("vm/hung").remove(0).id;
    eventually(TOLD, "the job says why it waits", || {
        let step = lab.control().job(&job)?.steps.remove(0);
        step.detail.contains("no greeting within").then_some(())
    });
    let vm = lab.control().vm("hung").unwrap();
    assert_eq!(
        vm.source_phase(),
        SourcePhase::Installed,
        "nothing replicates any more"
    );
    let _ = lab.cli.run(&["job", "cancel", &job]).done();
    assert_eq!(lab.control().ended(&job, SOON).state(), JobState::Cancelled);
    lab.signal_bare("hung", Signal::CONT);
    let before = lab.control().vm("hung").unwrap();
    assert_eq!(before.state(), ProtectionState::Failed);
    let _ = lab.protect_bare(&["hung"]).done();
    lab.control().protected("hung", SOON);
    lab.bare("hung").write("vdroot", 5, 0, 65536);
    lab.control()
        .vm_when("hung", "a newer point", SOON, |vm| vm.points > before.points);
    lab.delete_vm("hung");
    assert_eq!(lab.bare("hung").traces(), [""; 0]);
}

#[test]
fn a_site_without_a_replicator_is_waited_for_and_then_served() {
    let mut lab = Lab::start(LabOptions::default());
    let monitor = lab.start_bare("far", 8).monitor();
    let declared = document("far", &monitor).replace("site: east", "site: north");
    let north = "apiVersion: farshore/v1\nkind: Site\nmetadata: {name: north}\nspec: {provider: qemu}\n";
    let applied = lab.apply(&format!("{north}---\n{declared}")).done().json();
    let job = applied["items"][1]["job"].as_str().unwrap().to_owned();
    let points = lab.cli.run(&["failover", "test", "far"]);
    assert_eq!(points.status, 3, "{}", points.stderr);
    let hurried = lab.cli.run(&["job", "watch", &job, "--timeout", "1s"]);
    assert_eq!(hurried.status, 5, "{}", hurried.stderr);
    eventually(TOLD, "the step says what it waits for", || {
        let step = lab.control().job(&job)?.steps.remove(0);
        (step.detail.contains("north") && step.detail.contains("replicator")).then_some(())
    });
    assert_eq!(lab.control().job(&job).unwrap().state(), JobState::Running);

    let configuration = fs::read_to_string(lab.path("e.yaml")).unwrap();
    let path = lab.path("n.yaml");
    let text = configuration
        .replace("east-1", "north-1")
        .replace("site: east", "site: north")
        .replace("/east/", "/north/")
        .replace("7281", "7282");
    fs::write(&path, text).unwrap();
    let mut replicator = Daemon::start("replicator", &path, lab.east_network());
    assert_eq!(lab.control().ended(&job, SOON).state(), JobState::Succeeded);
    lab.control().protected("far", SOON);

    replicator.kill9();
    let _ = lab.cli.run(&["delete", "vm", "far"]).done();
    let job = lab.control().jobs_of("vm/far").remove(0).id;
    eventually(TOLD, "the job waits", || {
        (lab.control().job(&job)?.state() == JobState::Running).then_some(())
    });
    replicator.restart();
    assert_eq!(lab.control().ended(&job, SOON).state(), JobState::Succeeded);
    assert!(lab.control().vm("far").is_none());
    assert_eq!(lab.bare("far").traces(), [""; 0]);
}

/// The events of this code, newest first.
fn events(lab: &Lab, code: &str) -> Vec<Value> {
    let page = lab.cli.run(&["get", "events", "-o", "json"]).done().json();
    let events = page["items"].as_array().unwrap().iter();
    let of_code = events.filter(|event| event["code"] == code);
    of_code.cloned().collect()
}

/// Once the VM's source says so, the log does as well.
fn interruption_is_told(lab: &Lab, words: &str) {
    let told = lab.control().vm_when("db", words, SOON, |vm| {
        vm.health() == ReplicationHealth::Warning && vm.source_detail.contains(words)
    });
    let mut reasons = told.health_reasons.iter();
    let reason = reasons.find(|reason| reason.code == "source-waits").unwrap();
    assert!(!reason.what_to_do.is_empty(), "{reason:?}");
}

fn write_and_compare(lab: &Lab, pattern: u8) {
    let before = lab.control().vm("db").unwrap().points;
    lab.bare("db").write("vdroot", pattern, MIB, 65536);
    lab.control().vm_when("db", "a newer point", SOON, |vm| {
        vm.state() == ProtectionState::Protected && vm.points > before
    });
    let root = point(lab, "db", "latest");
    let at = usize::try_from(MIB).unwrap();
    assert!(
        root[at..at + 65536].iter().all(|byte| *byte == pattern),
        "{pattern}"
    );
}

#[test]
fn what_others_do_with_a_vm_is_told_and_its_points_go_on() {
    let mut lab = Lab::start(LabOptions::default());
    let name = "db";
    lab.start_bare(name, 8);
    let _ = lab.protect_bare(&[name]).done();
    lab.control().protected(name, SOON);

    // Another tool's backup of a node of ours.
    let elsewhere = lab.vms().join("backup.raw");
    fs::File::create(&elsewhere).unwrap().set_len(8 * MIB).unwrap();
    let node = json!({"driver": "file", "node-name": "elsewhere", "filename": elsewhere});
    let _ = lab.bare(name).ask("blockdev-add", node);
    let backup = json!({"job-id": "theirs", "device": "root", "target": "elsewhere", "sync": "none"});
    let _ = lab.bare(name).ask("blockdev-backup", backup);
    lab.bare(name).write("vdroot", 1, 0, 4096);
    interruption_is_told(&lab, "another tool's block job");
    assert_eq!(events(&lab, "source-interrupted")[0]["severity"], "Warning");
    let _ = lab.bare(name).ask("job-cancel", json!({"id": "theirs"}));
    write_and_compare(&lab, 2);
    eventually(SOON, "its end is told", || {
        (events(&lab, "source-goes-on").len() == 1).then_some(())
    });

    // An operator's snapshot.
    let overlay = lab.vms().join("overlay.qcow2");
    let snapshot = json!({"node-name": "root", "snapshot-file": overlay, "snapshot-node-name": "overlay"});
    let _ = lab.bare(name).ask("blockdev-snapshot-sync", snapshot);
    lab.bare(name).write("vdroot", 3, 0, 4096);
    let resynchronized = eventually(SOON, "the resync is told", || {
        events(&lab, "tracking-lost").into_iter().next()
    });
    let message = resynchronized["message"].as_str().unwrap();
    assert!(message.contains("a snapshot was taken"), "{message}");
    write_and_compare(&lab, 4);

    // It migrates away, and comes back.
    let _ = lab
        .bare(name)
        .ask("migrate", json!({"uri": "exec:cat > /dev/null"}));
    interruption_is_told(&lab, "migrated");
    let _ = lab.bare(name).ask("cont", Value::Null);
    write_and_compare(&lab, 5);
    let _ = vault(&["verify", lab.vault().to_str().unwrap()]).done();
}

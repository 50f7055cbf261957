//! What stops working under a protected VM is told, costs no recovery point, and is gone on with once it works again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, time::Duration};

use farshore_proto::v1::{self, JobState, ProtectionState, SourcePhase};
use farshore_tests::{
    Daemon, Lab,
    bare_vm::{BareVm, document},
    eventually,
    lab::LabOptions,
    replica::{export, vault},
};
use rustix::process::Signal;

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
    assert!(point(&lab, &sequence) == then, "point {sequence} is the disk");

    lab.leave_vault_room(MIB);
    lab.bare("big").write("vdroot", 2, 4 * MIB, 8 * MIB);
    let told = no_room_is_told(&lab);
    assert_eq!(told.points, first.points, "nothing was lost, nothing half-sealed");
    assert_eq!(told.state(), ProtectionState::Protected);
    let _ = vault(&["verify", lab.vault().to_str().unwrap()]).done();
    assert!(
        point(&lab, &sequence) == then,
        "point {sequence} is still the disk as it was"
    );

    lab.leave_vault_room(256 * MIB);
    lab.control().vm_when("big", "goes on", SOON, |vm| {
        vm.points > first.points && vm.source_detail.is_empty()
    });
    let now = fs::read(lab.bare("big").root()).unwrap();
    assert!(
        now != then && point(&lab, "latest") == now,
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
fn point(lab: &Lab, point: &str) -> Vec<u8> {
    let (root, data) = export(&lab.vault(), "big", point, &lab.path(""));
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

//! What is wrong is refused in words that say what, why and what would be accepted; nothing is left half-done, and what
//! was corrected goes on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    fs,
    os::unix::net::UnixListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use farshore_proto::v1::{self, CheckOutcome, JobState, ProtectionState};
use farshore_tests::{
    Answer, Lab,
    bare_vm::{BareVm, document, image, qcow2_disk, raw_disk, virtio_disk},
    daemon::binary,
    lab::LabOptions,
    replica::vault,
};
use rustix::process::Signal;
use tonic::Code;

const SOON: Duration = Duration::from_secs(60);
/// A monitor may take ten seconds to greet; a refusal takes no longer than that, on a busy machine.
const REFUSED: Duration = Duration::from_secs(40);

#[test]
fn a_wrong_manifest_is_refused_with_every_place_and_changes_nothing() {
    let lab = Lab::start(LabOptions::default());
    let declared = || {
        ["sites", "policies", "vms", "jobs"]
            .map(|kind| lab.cli.run(&["get", kind, "-o", "json"]).done().stdout)
    };
    let before = declared();
    let site = |name: &str, spec: &str| {
        format!("apiVersion: farshore/v1\nkind: Site\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let good = site("north", "{provider: qemu}");
    let vm = document("stray", &lab.path("stray.qmp"));
    for (manifest, told) in [
        (
            format!("{good}---\nkind: [Site\nmetadata: {{}}\n"),
            &["manifest.yaml:7:"][..],
        ),
        (
            format!("{good}---\n{}", good.replace("Site", "Sitte")),
            &[
                "manifest.yaml:7:7: document 2: kind: `Sitte`",
                "did you mean `Site`?",
            ],
        ),
        (
            site("north", "{provider: qemu, network: []}"),
            &[
                "manifest.yaml:4:24: document 1: spec.network: unknown field",
                "did you mean `networks`?",
            ],
        ),
        (
            vm.replace("processors: 1", "processors: many")
                .replace("32MiB", "32MB"),
            &[
                "manifest.yaml:9:17: document 1: spec.machine.processors",
                "manifest.yaml:10:13: ",
                "`32MB` is not a whole number of MiB, from `1MiB`",
            ],
        ),
        (
            good.replace("farshore/v1", "v1"),
            &[
                "manifest.yaml:1:13: document 1: apiVersion: `v1`",
                "accepted: `farshore/v1`",
            ],
        ),
        (
            format!("{good}---\n{}", vm.replace("policy: gold", "policy: golt")),
            &[
                "ReplicationPolicy golt, which is not declared; did you mean `gold`?",
                "(missing-reference)",
            ],
        ),
        (
            vm.replace("site: west", "site: moon"),
            &["target Site moon, which is not declared"],
        ),
    ] {
        let refused = lab.apply(&manifest);
        assert_eq!(refused.status, 2, "{manifest}\n{}", refused.stderr);
        assert_eq!(refused.stdout, "");
        for words in told {
            assert!(refused.stderr.contains(words), "{words}\n{}", refused.stderr);
        }
        assert_eq!(declared(), before, "{manifest}");
    }
    the_orchestrator_itself_refuses_what_a_client_did_not_check(&lab, &good);
    assert_eq!(declared(), before);
}

fn the_orchestrator_itself_refuses_what_a_client_did_not_check(lab: &Lab, good: &str) {
    let control = lab.control();
    let status = control.apply("one", &good.replace("qemu", "quemu")).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.metadata().get("farshore-reason").unwrap(),
        "invalid-manifest"
    );
    assert!(
        status.message().contains("4:18") && status.message().contains("did you mean `qemu`?"),
        "{}",
        status.message()
    );
    let huge = format!("{good}# {}", "x".repeat(8 * 1024 * 1024));
    let status = control.apply("two", &huge).unwrap_err();
    assert!(
        matches!(
            status.code(),
            Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument
        ),
        "{status:?}"
    );
}

#[test]
fn orders_about_what_is_not_there_say_so() {
    let mut lab = Lab::start(LabOptions::default());
    // Behind a monitor that nobody serves, a VM is declared and never gets a point.
    let monitor = lab.vms().join("later.qmp");
    let _ = refused(
        &lab,
        "pointless",
        &document("pointless", &monitor),
        &["monitor-reachable"],
    );
    for (arguments, status, told) in [
        (
            &["failover", "test", "pointless"][..],
            3,
            "no recovery point yet (no-recovery-point)",
        ),
        (
            &["failover", "unplanned", "pointless"],
            3,
            "no recovery point yet (no-recovery-point)",
        ),
        (
            &["failover", "test", "nobody"],
            1,
            "no protected VM nobody (not-found)",
        ),
        (
            &["failover", "unplanned", "nobody"],
            1,
            "no protected VM nobody (not-found)",
        ),
        (
            &["failover", "cleanup", "nobody-t1"],
            1,
            "no test failover nobody-t1 (not-found)",
        ),
        (&["job", "watch", "nothing"], 1, "(not-found)"),
        (&["job", "retry", "nothing"], 1, "no job nothing (not-found)"),
        (&["job", "cancel", "nothing"], 1, "no job nothing (not-found)"),
        (&["delete", "vm", "nobody"], 1, "not declared (not-found)"),
        (&["delete", "policy", "golt"], 1, "did you mean `gold`?"),
        (&["delete", "policy", "gold"], 3, "in use by pointless (in-use)"),
        (&["get", "points", "nobody"], 1, "nobody"),
        (&["describe", "vm", "nobody"], 1, "nobody"),
        (&["failover", "test", "pointless", "--point", "soon"], 2, "soon"),
    ] {
        let answer = lab.cli.run(arguments);
        assert_eq!(answer.status, status, "{arguments:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(told), "{arguments:?}: {}", answer.stderr);
        assert_eq!(answer.stdout, "", "{arguments:?}");
    }
    assert!(lab.control().tests().is_empty());
    assert_eq!(lab.control().jobs_of("vm/pointless").len(), 1);
    // It is what was declared after all: the same declaration once more, and it is protected.
    lab.start_bare("later", 8);
    let _ = lab.apply(&document("pointless", &monitor)).done();
    lab.control().protected("pointless", SOON);
}

#[test]
fn plaintext_beyond_this_machine_needs_the_word_insecure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    let state = directory.path().join("state");
    let common = format!("stateDirectory: {}\n", state.display());
    let source = format!(
        "{common}name: a\nsite: b\nscratchDirectory: {}/scratch\n",
        state.display()
    );
    let inside = "httpListen: 127.0.0.1:0\norchestrator: http://127.0.0.1:1\n";
    for (verb, text, told) in [
        (
            "orchestrator",
            format!("{common}listen: 0.0.0.0:0\n"),
            "insecure: true",
        ),
        (
            "orchestrator",
            format!("{common}httpListen: '[::]:0'\n"),
            "insecure: true",
        ),
        (
            "orchestrator",
            format!("{common}lisen: 127.0.0.1:0\n"),
            "unknown field `lisen`",
        ),
        (
            "orchestrator",
            "listen: 127.0.0.1:0\n".to_owned(),
            "stateDirectory",
        ),
        (
            "replicator",
            format!("{source}httpListen: 0.0.0.0:0\norchestrator: http://127.0.0.1:1\n"),
            "insecure: true",
        ),
        (
            "replicator",
            format!("{source}httpListen: 127.0.0.1:0\norchestrator: http://192.0.2.1:1\n"),
            "insecure: true",
        ),
        (
            "replicator",
            format!(
                "{source}{inside}vaultDirectory: {0}/v\nreplicationListen: 0.0.0.0:0\n",
                state.display()
            ),
            "insecure: true",
        ),
        (
            "replicator",
            format!("{source}{inside}vault: /v\n"),
            "unknown field `vault`",
        ),
    ] {
        fs::write(&path, &text).unwrap();
        let mut command = Command::new("timeout");
        command
            .arg("20")
            .arg(binary())
            .args([verb, "--config"])
            .arg(&path);
        let answer = Answer::from(command.output().unwrap());
        assert_eq!(answer.status, 2, "{text}\n{}", answer.stderr);
        assert!(answer.stderr.contains(told), "{text}\n{}", answer.stderr);
        assert!(answer.stderr.contains("c.yaml"), "{}", answer.stderr);
        assert_eq!(answer.stdout, "");
        assert!(!state.exists(), "{verb} began to work");
    }
}

#[test]
fn a_monitor_that_says_nothing_is_given_up_and_the_vm_can_be_retried_or_deleted() {
    let mut lab = Lab::start(LabOptions::default());
    let silent = lab.vms().join("silent.qmp");
    let listener = UnixListener::bind(&silent).unwrap();
    // It holds whoever comes until the test ends.
    thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            held.push(stream);
        }
    });
    let stopped = lab.start_bare("stopped", 8).monitor();
    lab.signal_bare("stopped", Signal::STOP);

    let _ = lab
        .apply(&[document("silent", &silent), document("stopped", &stopped)].join("---\n"))
        .done();
    for name in ["silent", "stopped"] {
        let vm = failed(
            &lab,
            name,
            &[
                "monitor-reachable",
                "no greeting within",
                "hangs or serves another client",
            ],
        );
        assert!(
            vm.state_detail.contains("Prerequisites check"),
            "{}",
            vm.state_detail
        );
    }
    lab.signal_bare("stopped", Signal::CONT);
    assert_eq!(lab.bare("stopped").traces(), [""; 0]);

    // The one was only slow: its job is tried again.
    let job = lab.control().jobs_of("vm/stopped").remove(0).id;
    let _ = lab.cli.run(&["job", "retry", &job]).done();
    lab.control().protected("stopped", SOON);
    assert_eq!(lab.control().jobs_of("vm/stopped").len(), 1);
    // The other is deleted while a new job waits for it.
    let _ = lab.apply(&document("silent", &silent)).done();
    let ordered = Instant::now();
    lab.delete_vm("silent");
    assert!(
        ordered.elapsed() < Duration::from_secs(8),
        "{:?}",
        ordered.elapsed()
    );
}

#[test]
fn a_monitor_of_another_vm_is_told_by_everything_that_differs() {
    let mut lab = Lab::start(LabOptions::default());
    let vms = lab.vms();
    let disks = [
        virtio_disk("root", "raw", &raw_disk(&vms, "other", 8), ""),
        virtio_disk("data", "qcow2", &qcow2_disk(&vms, "other", 8), ""),
        vec![
            "-device".to_owned(),
            "virtio-net-pci,id=nic,mac=52:54:00:00:00:99".to_owned(),
            "-uuid".to_owned(),
            "11111111-1111-4111-8111-111111111111".to_owned(),
        ],
    ];
    let vm = BareVm::start(&vms, "other", &disks.concat());
    let right = document("wanted", &vm.monitor());
    let wrong = right
        .replace("processors: 1", "processors: 2")
        .replace("32MiB", "64MiB\n    uuid: 22222222-2222-4222-8222-222222222222")
        .replace("vddata", "vdlogs")
        .replace("nics: []", "nics:\n    - {mac: \"52:54:00:00:00:01\"}");
    lab.adopt_bare(vm);
    let seen = refused(
        &lab,
        "wanted",
        &wrong,
        &[
            "machine-matches",
            "has 1 processors, 2 are declared",
            "of memory",
            "UUID is 11111111",
            "no block device `vdlogs`",
            "name the monitor of the right VM",
        ],
    );
    let nics = seen
        .checks
        .iter()
        .find(|check| check.code == "nics-match")
        .unwrap();
    assert_eq!(nics.outcome(), CheckOutcome::Warning);
    assert!(nics.found.contains("52:54:00:00:00:01"), "{nics:?}");
    assert_eq!(lab.bare("other").traces(), [""; 0]);

    let corrected = lab.apply(&right).done().json();
    assert_eq!(
        corrected["items"][0]["effect"]
            .as_str()
            .map(str::to_lowercase)
            .as_deref(),
        Some("changed")
    );
    lab.control().protected("wanted", SOON);
    lab.delete_vm("wanted");
    assert_eq!(lab.bare("other").traces(), [""; 0]);
}

#[test]
fn disks_that_cannot_be_tracked_are_all_named_at_once() {
    let mut lab = Lab::start(LabOptions::default());
    let vms = lab.vms();
    let arguments = [
        virtio_disk("root", "raw", &raw_disk(&vms, "odd", 8), ""),
        virtio_disk("data", "vdi", &image(&vms, "odd", "vdi", 8), ""),
    ];
    let vm = BareVm::start(&vms, "odd", &arguments.concat());
    let declared = document("odd", &vm.monitor())
        .replace("    nics: []", "    - {name: logs, device: vdlogs}\n    nics: []");
    lab.adopt_bare(vm);
    let told = [
        "disks-trackable",
        "disk `data` is of format `vdi`",
        "qcow2",
        "raw",
        "no block device `vdlogs`",
    ];
    let _ = refused(&lab, "odd", &declared, &told);
    assert_eq!(lab.bare("odd").traces(), [""; 0]);
    lab.delete_vm("odd");
}

/// Declares a VM and awaits that this is refused, with every failed check named.
fn refused(lab: &Lab, name: &str, document: &str, told: &[&str]) -> v1::Vm {
    let applied = lab.apply(document).done().json();
    let job = applied["items"][0]["job"].as_str().unwrap();
    let watched = lab.cli.run(&["job", "watch", job]);
    assert_eq!(watched.status, 1, "{}", watched.stderr);
    for words in told {
        assert!(watched.stderr.contains(words), "{words}\n{}", watched.stderr);
    }
    failed(lab, name, told)
}

/// Awaits that the VM's job has failed at the prerequisites, for every reason that there is.
fn failed(lab: &Lab, name: &str, told: &[&str]) -> v1::Vm {
    let vm = lab.control().vm_when(name, "failed", REFUSED, |vm| {
        vm.state() == ProtectionState::Failed
    });
    let job = lab.control().jobs_of(&format!("vm/{name}")).remove(0);
    assert_eq!(job.state(), JobState::Failed);
    for words in told {
        assert!(job.error.contains(words), "{words}\n{}", job.error);
        assert!(vm.state_detail.contains(words), "{words}\n{}", vm.state_detail);
    }
    let failed = vm
        .checks
        .iter()
        .filter(|check| check.outcome() == CheckOutcome::Failed);
    for check in failed {
        assert!(
            job.error.contains(&check.code) && job.error.contains(&check.found),
            "{}",
            job.error
        );
        assert!(
            !check.remedy.is_empty() && job.error.contains(&check.remedy),
            "{}",
            job.error
        );
    }
    let listed = vault(&["list", lab.vault().to_str().unwrap(), "-o", "json"])
        .done()
        .json();
    let chains = listed["chains"].as_array().unwrap();
    assert!(chains.iter().all(|chain| chain["vm"] != name), "{listed:#}");
    vm
}

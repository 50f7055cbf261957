//! The vault when nothing else is left: images of a point equal the source's disks, and a VM is failed over from the
//! directory alone, whether a replicator holds it, hangs, or is gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use farshore_guest::machine::SourceVm;
use farshore_qmp::{ConnectOptions, Monitor};
use farshore_tests::{
    Answer, Lab, eventually,
    guests::{BOOT, GuestOrder, status_from},
    lab::{LabOptions, SYNC},
    replica::vault,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

/// Protects VMs without a guest and waits for their first points.
fn protected(names: &[&str]) -> Lab {
    let mut lab = Lab::start(LabOptions::default());
    for name in names {
        lab.start_bare(name, 64);
    }
    let _ = lab.protect_bare(names).done();
    for name in names {
        lab.cli.vm_in(name, "Protected", SYNC);
    }
    lab
}

/// Runs `farshore vault VERB DIR …` at the far shore.
fn at_vault(lab: &Lab, verb: &str, arguments: &[&str]) -> Answer {
    let directory = lab.vault();
    let named = ["vault", verb, directory.to_str().unwrap()];
    lab.cli.run(&[&named, arguments].concat())
}

fn fail_over(lab: &Lab, vm: &str, more: &[&str]) -> Answer {
    let into = lab.path("f");
    let named = [
        vm,
        "--into",
        into.to_str().unwrap(),
        "--accelerator",
        "tcg",
        "-o",
        "json",
    ];
    at_vault(lab, "failover", &[&named, more].concat())
}

/// The chain of a VM, as the vault lists it.
fn chain(lab: &Lab, vm: &str) -> Value {
    let listed = at_vault(lab, "list", &["-o", "json"]).done().json();
    assert_eq!(listed["isACopy"], false, "{listed:#}");
    let chains = listed["chains"].as_array().unwrap();
    chains.iter().find(|chain| chain["vm"] == vm).unwrap().clone()
}

fn assert_same_disk(source: (&str, &Path), image: (&str, &Path)) {
    let compared = Command::new("qemu-img")
        .args(["compare", "-U", "-f", source.0, "-F", image.0])
        .args([source.1, image.1])
        .output()
        .unwrap();
    assert!(compared.status.success(), "{source:?} {image:?}: {compared:?}");
}

#[test]
fn images_of_a_point_equal_the_disks_of_the_source() {
    let lab = protected(&["bare"]);
    let vm = lab.bare("bare");
    vm.write("vdroot", 0x5a, 3 * MIB, 2 * MIB);
    vm.write("vdroot", 0x01, 63 * MIB, MIB);
    vm.write("vddata", 0x77, 5 * MIB, 300 * 1024);
    let point = lab.cli.point_after_now("bare", SOON);
    let sources = [
        ("root", "raw", vm.root()),
        ("data", "qcow2", lab.vms().join("bare-data.qcow2")),
    ];
    for format in ["raw", "qcow2"] {
        let images = lab.path(format);
        let export = || {
            let to = images.to_str().unwrap();
            at_vault(
                &lab,
                "export",
                &["bare", to, "--point", &point, "--format", format],
            )
        };
        let _ = export().done();
        for (volume, source_format, source) in &sources {
            let image = images.join(format!("{volume}.{format}"));
            assert_same_disk((source_format, source), (format, &image));
            let stored = fs::metadata(&image).unwrap().blocks() * 512;
            assert!(stored < 5 * MIB, "{volume} as {format} takes {stored} bytes");
        }
        let again = export();
        assert_eq!(
            (again.status, again.stderr.contains("--force")),
            (3, true),
            "{}",
            again.stderr
        );
    }
    without_the_converter(&lab);
}

fn without_the_converter(lab: &Lab) {
    let to = lab.path("unconverted");
    let output = Command::new(farshore_tests::daemon::binary())
        .args([
            "vault",
            "export",
            lab.vault().to_str().unwrap(),
            "bare",
            to.to_str().unwrap(),
        ])
        .args(["--volume", "root", "--format", "qcow2"])
        .env("PATH", lab.vms())
        .output();
    let answer = Answer::from(output.unwrap());
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("qemu-utils"), "{}", answer.stderr);
    let left = fs::read_dir(to.parent().unwrap()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("unconverted")),
        "{left:?}"
    );
}

/// Runs a read of a device through a monitor; says what QEMU says.
fn read_pattern(monitor: &Path, device: &str, pattern: u8, offset: u64, length: u64) -> String {
    let backend = format!("/machine/peripheral/{device}/virtio-backend");
    let line = format!("qemu-io -d {backend} \"read -P {pattern} {offset} {length}\"");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let answer = runtime.block_on(async {
        let monitor = Monitor::connect(monitor, ConnectOptions::default())
            .await
            .unwrap();
        let order = json!({"command-line": line});
        monitor.execute("human-monitor-command", order).await.unwrap()
    });
    answer.to_string()
}

#[test]
fn a_live_replicator_fences_for_the_vaults_own_failover() {
    let lab = protected(&["one", "two"]);
    lab.bare("one").write("vdroot", 0x33, MIB, MIB);
    let _ = lab.cli.point_after_now("one", SOON);

    let failed_over = fail_over(&lab, "one", &[]).done().json();
    assert_eq!(failed_over["fencedBy"], "holder", "{failed_over:#}");
    assert_eq!(failed_over["waysOut"], json!([]), "{failed_over:#}");
    assert_eq!(chain(&lab, "one")["epoch"], failed_over["epoch"]);
    let monitor = PathBuf::from(failed_over["monitor"].as_str().unwrap());
    let read = read_pattern(&monitor, "vdroot", 0x33, MIB, MIB);
    assert!(!read.contains("rror") && !read.contains("failed"), "{read}");
    lab.cli.vm_when("one", "the source is fenced", SOON, |vm| {
        vm["sourcePhase"] == "Fenced"
    });

    a_repetition_changes_nothing(&lab, &failed_over);
    a_holder_that_hangs_is_named_and_nobody_is_fenced(&lab);

    let discarded = fail_over(&lab, "one", &["--discard"]).done();
    assert!(discarded.stderr.contains("stays fenced"), "{}", discarded.stderr);
    assert!(lab.bubbles().is_empty(), "{:?}", lab.bubbles());
    assert!(lab.strangers().is_empty(), "{:?}", lab.strangers());
    assert_eq!(fail_over(&lab, "one", &["--discard"]).status, 1);
}

fn a_repetition_changes_nothing(lab: &Lab, first: &Value) {
    let again = fail_over(lab, "one", &[]).done().json();
    assert_eq!(again["fencedBy"], "earlierRun", "{again:#}");
    for key in ["pid", "point", "epoch", "monitor"] {
        assert_eq!(again[key], first[key], "{again:#}");
    }
    let other_point = fail_over(lab, "one", &["--point", "1"]);
    assert_eq!(other_point.status, 3, "{}", other_point.stderr);
    let _ = fail_over(lab, "one", &["--stop"]).done();
    let resumed = fail_over(lab, "one", &[]).done().json();
    assert_ne!(resumed["pid"], first["pid"]);
    assert_eq!(resumed["point"], first["point"]);
}

fn a_holder_that_hangs_is_named_and_nobody_is_fenced(lab: &Lab) {
    let before = chain(lab, "two")["epoch"].clone();
    lab.west.freeze();
    let unanswered = fail_over(lab, "two", &[]);
    lab.west.thaw();
    assert_eq!(unanswered.status, 5, "{}", unanswered.stderr);
    let pid = format!("kill {}", lab.west.pid().unwrap());
    assert!(unanswered.stderr.contains(&pid), "{}", unanswered.stderr);
    let points = lab.cli.points("two");
    lab.bare("two").write("vdroot", 0x44, MIB, MIB);
    lab.cli.points_at_least("two", points + 1, SOON);
    assert_eq!(chain(lab, "two")["epoch"], before);
    assert_eq!(fs::read_dir(lab.vault().join("requests")).unwrap().count(), 0);
}

#[test]
fn with_everything_else_dead_the_vault_starts_the_vm_and_fences_its_source() {
    let mut lab = Lab::start(LabOptions::default());
    lab.start_guest(GuestOrder::small("db", 11));
    let _ = lab.protect(&["db"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    let before = lab.guest("db").1.testimony().unwrap().acknowledged;
    let _ = lab.cli.point_after_now("db", SOON);
    lab.guest("db").1.kill9(Duration::from_secs(10)).unwrap();
    lab.orchestrator.kill9();
    lab.east.kill9();
    lab.west.kill9();

    let nowhere = fail_over(&lab, "db", &[]);
    assert_eq!(nowhere.status, 2, "{}", nowhere.stderr);
    let epoch = chain(&lab, "db")["epoch"].as_u64().unwrap();
    let failed_over = fail_over(&lab, "db", &["--bridge", "prod0"]).done().json();
    assert_eq!(failed_over["fencedBy"], "thisCommand", "{failed_over:#}");
    assert_eq!(failed_over["epoch"], epoch + 1);
    let db = lab.guest("db").0.address();
    let west = lab.west_network().to_owned();
    let status = eventually(BOOT, "the VM answers at the far shore", || status_from(&west, db));
    assert!(status.boot_verdict.is_clean(), "{:?}", status.boot_verdict);
    assert!(status.boot_verdict.region_b_last >= before.region_b);
    let verified = vault(&["verify", lab.vault().to_str().unwrap()]);
    let _ = verified.done();

    everyone_returns_and_the_source_is_fenced(&mut lab);
    let status = status_from(&west, db).unwrap();
    assert_eq!(status.io_errors, 0);
}

fn everyone_returns_and_the_source_is_fenced(lab: &mut Lab) {
    let points = chain(lab, "db")["points"].as_array().unwrap().len();
    let returned = SourceVm::start(lab.guest("db").1.request().clone()).unwrap();
    lab.orchestrator.restart();
    lab.west.restart();
    lab.east.restart();
    lab.cli.vm_when("db", "the old source is fenced", SOON, |vm| {
        vm["sourcePhase"] == "Fenced"
    });
    assert_eq!(chain(lab, "db")["points"].as_array().unwrap().len(), points);
    returned.kill9(Duration::from_secs(10)).unwrap();
}

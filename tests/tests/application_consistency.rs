//! A policy asks for points that are consistent for the guest's applications.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use farshore_guest::image::GuestAgent;
use farshore_tests::{
    Lab, eventually,
    guests::GuestOrder,
    lab::{LabOptions, SYNC},
    replica::{export, judge_point},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where the ext4 file system is on the guest's data disk.
const FILE_SYSTEM_AT: u64 = 33 << 20;
/// Where it says whether its journal must be replayed: a flag of the superblock's "incompatible" features (Linux,
/// Documentation/filesystems/ext4/super.rst).
const RECOVERY_FLAG_AT: u64 = FILE_SYSTEM_AT + 1024 + 0x60;
const NEEDS_RECOVERY: u8 = 4;

fn points(lab: &Lab, vm: &str, kind: &str) -> Vec<u64> {
    let points = lab.cli.run(&["get", "points", vm, "-o", "json"]).done().json();
    let items = points["items"].as_array().unwrap().iter();
    items
        .filter(|point| point["kind"] == kind)
        .map(|point| point["sequence"].as_u64().unwrap())
        .collect()
}

fn needs_replay(disk: &Path) -> bool {
    let mut flags = [0];
    let disk = fs::File::open(disk).unwrap();
    disk.read_exact_at(&mut flags, RECOVERY_FLAG_AT).unwrap();
    flags[0] & NEEDS_RECOVERY != 0
}

/// What e2fsck finds without replaying or mending anything.
fn checked(disk: &Path) -> Output {
    Command::new("e2fsck")
        .args(["-n", "-f"])
        .arg(format!("{}?offset={FILE_SYSTEM_AT}", disk.display()))
        .output()
        .unwrap()
}

fn data_of(lab: &Lab, point: &str) -> std::path::PathBuf {
    let directory = lab.path(&format!("point-{point}"));
    fs::create_dir(&directory).unwrap();
    export(&lab.vault(), "db", point, &directory).1
}

fn reason(vm: &Value) -> Option<String> {
    let reasons = vm["healthReasons"].as_array().unwrap().iter();
    reasons
        .filter(|reason| reason["code"] == "app-consistency-missed")
        .map(|reason| reason["what"].as_str().unwrap().to_owned())
        .next()
}

#[test]
fn points_of_a_frozen_guest_mount_clean_and_a_guest_without_an_agent_says_why_it_has_none() {
    let mut lab = Lab::start(LabOptions {
        policy: Some("appConsistent: {every: 1m, freezeLimit: 5s}".to_owned()),
        ..LabOptions::default()
    });
    lab.start_guest(GuestOrder {
        agent: GuestAgent::Installed,
        ..GuestOrder::small("db", 11)
    });
    lab.start_bare("mute", 16);
    let _ = lab.protect(&["db"]).done();
    let _ = lab.protect_bare(&["mute"]).done();
    lab.cli.vm_in("db", "Protected", SYNC);

    // It is due at once, and not again within a minute.
    let application = eventually(PATIENCE, "an application-consistent point", || {
        points(&lab, "db", "AppConsistent").first().copied()
    });
    lab.cli.points_at_least("db", application + 2, PATIENCE);
    let frozen = data_of(&lab, "latest-app-consistent");
    assert!(!needs_replay(&frozen), "the point is not of a frozen guest");
    let found = checked(&frozen);
    assert!(
        found.status.success(),
        "{}",
        String::from_utf8_lossy(&found.stdout)
    );
    for neighbour in [application - 1, application + 1] {
        assert!(
            needs_replay(&data_of(&lab, &neighbour.to_string())),
            "a file system in use needs no replay"
        );
    }
    frozen_or_not_points_are_exact(&lab, application);
    assert_eq!(reason(&lab.cli.vm("db").unwrap()), None);

    let mute = lab
        .cli
        .vm_when("mute", "a reason", PATIENCE, |vm| reason(vm).is_some());
    assert_eq!(mute["health"], "Warning");
    assert!(reason(&mute).unwrap().contains("no guest agent"), "{mute:#}");
    assert_eq!(points(&lab, "mute", "AppConsistent"), [0; 0]);
}

fn frozen_or_not_points_are_exact(lab: &Lab, point: u64) {
    let guest = &lab.guest("db").1;
    let acknowledged = guest.testimony().unwrap().acknowledged;
    let newest = lab.cli.point_after_now("db", PATIENCE);
    let judgement = judge_point(&lab.vault(), "db", &newest, &lab.path(""), acknowledged);
    assert!(
        judgement.is_exact_instant() && judgement.lost_nothing(),
        "{}",
        judgement.describe()
    );
    let frozen = judge_point(
        &lab.vault(),
        "db",
        &point.to_string(),
        &lab.path(""),
        acknowledged,
    );
    assert!(frozen.is_exact_instant(), "{}", frozen.describe());
    assert!(guest.testimony().unwrap().errors.is_empty());
}

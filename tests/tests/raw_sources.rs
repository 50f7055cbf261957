//! Disks without a hypervisor: compared as a whole, sealed only if nobody wrote meanwhile, recovered as any other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, os::unix::fs::FileExt, path::Path, time::Duration};

use farshore_tests::{
    Lab,
    lab::{LabOptions, SYNC},
    replica::export,
};

const MIB: u64 = 1024 * 1024;
const ONE_MIB: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

fn document(root: &Path, data: &Path) -> String {
    format!(
        "apiVersion: farshore/v1\nkind: ProtectedVm\nmetadata: {{name: db}}\nspec:\n  policy: gold\n  \
         source:\n    site: east\n    disks: {{root: {}, data: {}}}\n  target: {{site: west}}\n  machine:\n    \
         processors: 1\n    memory: 32MiB\n    firmware: bios\n    machineType: pc\n    disks:\n    \
         - {{name: root, device: vdroot}}\n    - {{name: data, device: vddata}}\n",
        root.display(),
        data.display()
    )
}

fn sent_since(lab: &Lab, point: u64) -> u64 {
    let points = lab.cli.run(&["get", "points", "db", "-o", "json"]).done().json();
    let points = points["items"].as_array().unwrap().iter();
    points
        .filter(|found| found["sequence"].as_u64() > Some(point))
        .map(|found| found["changedBytes"].as_u64().unwrap())
        .sum()
}

#[test]
fn disks_that_nobody_runs_are_protected_by_comparison() {
    let mut lab = Lab::start(LabOptions::default());
    let root = lab.vms().join("root.raw");
    let data = lab.vms().join("data.raw");
    let disk = fs::File::options()
        .create_new(true)
        .write(true)
        .open(&root)
        .unwrap();
    disk.set_len(64 * MIB).unwrap();
    disk.write_all_at(&vec![7; 20 * ONE_MIB], 8 * MIB).unwrap();
    fs::write(&data, vec![1; ONE_MIB]).unwrap();
    let _ = lab.protect_at_rest("db", &document(&root, &data)).done();
    lab.cli.vm_in("db", "Protected", SYNC);
    let first = lab.cli.points("db");
    assert_eq!(first, 1, "a disk that rests gives no more points");
    let sent = sent_since(&lab, 0);
    assert!(
        (21 * MIB..24 * MIB).contains(&sent),
        "{sent} bytes were sent of 21 MiB of data in 65 MiB"
    );

    disk.write_all_at(&[9; 8192], 10 * MIB).unwrap();
    disk.write_all_at(&[0; 65536], 12 * MIB).unwrap();
    disk.sync_all().unwrap();
    lab.cli.points_at_least("db", 2, PATIENCE);
    let sent = sent_since(&lab, 1);
    assert!(
        (1..MIB).contains(&sent),
        "{sent} bytes were sent of two blocks that differ"
    );
    let exported = lab.path("exported");
    fs::create_dir_all(&exported).unwrap();
    let (copy, _) = export(&lab.vault(), "db", "latest", &exported);
    assert!(fs::read(copy).unwrap() == fs::read(&root).unwrap());

    // A replicator that comes back finds nothing to do.
    lab.east.kill9();
    lab.east.restart();
    lab.cli.vm_in("db", "Protected", SYNC);
    disk.write_all_at(&[5; 512], 0).unwrap();
    lab.cli.points_at_least("db", 3, PATIENCE);
    assert!(sent_since(&lab, 2) <= 65536);

    let test = lab
        .cli
        .run(&["failover", "test", "db", "--wait", "-o", "json"])
        .done()
        .json();
    assert_eq!(test["state"], "Running", "{test:#}");
    let name = test["name"].as_str().unwrap();
    let _ = lab.cli.run(&["failover", "cleanup", name, "--wait"]).done();
}

#[test]
fn a_disk_that_is_not_there_is_told_and_nothing_is_begun() {
    let mut lab = Lab::start(LabOptions::default());
    let data = lab.vms().join("data.raw");
    fs::write(&data, vec![1; ONE_MIB]).unwrap();
    let missing = lab.vms().join("none.raw");
    let _ = lab.protect_at_rest("db", &document(&missing, &data)).done();
    let failed = lab.cli.vm_in("db", "Failed", SYNC);
    let detail = failed["stateDetail"].as_str().unwrap();
    assert!(detail.contains("none.raw"), "{detail}");
    let outcomes: Vec<_> = failed["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["code"] == "disk-readable")
        .map(|check| check["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["Failed", "Passed"]);
}

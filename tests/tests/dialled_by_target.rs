//! A target site that nobody can dial: its replicator dials the source's, and a cut line or a killed replicator costs no more than
//! it would the other way.

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
    time::{Duration, Instant},
};

use farshore_tests::{
    Lab, eventually,
    lab::{Dialler, LabOptions, SYNC},
    replica::export,
    wan::{WanOptions, Way},
};

const MIB: u64 = 1024 * 1024;
const DISK_BYTES: u64 = 64 * MIB;
/// What a source may have under way, as its target says.
const WINDOW_BYTES: u64 = 32 * MIB;

fn document(root: &Path, data: &Path) -> String {
    format!(
        "apiVersion: farshore/v1\nkind: ProtectedVm\nmetadata: {{name: db}}\nspec:\n  policy: gold\n  \
         source:\n    site: east\n    disks: {{root: {}, data: {}}}\n  target: {{site: west}}\n  machine:\n    \
         processors: 1\n    memory: 32MiB\n    firmware: bios\n    machineType: pc\n    disks:\n    \
         - {{name: root, device: vdroot}}\n    - {{name: data, device: vddata}}\n",
        root.display(),
        data.display(),
    )
}

/// Bytes that cannot be compressed.
fn noise(bytes: u64) -> Vec<u8> {
    let words = (0..bytes / 8).map(|word| {
        let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    });
    words.flat_map(u64::to_le_bytes).collect()
}

fn newest_is(lab: &Lab, root: &Path, name: &str) {
    let exported = lab.path(name);
    fs::create_dir_all(&exported).unwrap();
    let (copy, _) = export(&lab.vault(), "db", "latest", &exported);
    assert!(fs::read(copy).unwrap() == fs::read(root).unwrap());
}

/// Waits until this much more has passed from source to target.
fn passes(lab: &Lab, bytes: u64) {
    let before = lab.wan().counts(Way::There).bytes;
    eventually(SYNC, "data flows", || {
        (lab.wan().counts(Way::There).bytes >= before + bytes).then_some(())
    });
}

#[test]
fn a_target_that_dials_gets_every_byte_whatever_is_cut_or_killed() {
    let mut lab = Lab::start(LabOptions {
        bandwidth: Some("6MiB".to_owned()),
        wan: Some(WanOptions::even(Duration::from_millis(10), 100 * MIB)),
        dialler: Dialler::West,
        ..LabOptions::default()
    });
    let root = lab.vms().join("root.raw");
    fs::write(&root, noise(DISK_BYTES)).unwrap();
    let data = lab.vms().join("data.raw");
    fs::write(&data, [1; 65536]).unwrap();
    let _ = lab.protect_at_rest("db", &document(&root, &data)).done();
    let before = lab.wan().counts(Way::There).bytes;
    passes(&lab, 6 * MIB);

    lab.wan().cut();
    eventually(SYNC, "the source notices", || {
        lab.east.log().contains("stream cut").then_some(())
    });
    lab.wan().heal();
    let healed = Instant::now();
    passes(&lab, MIB);
    println!("data flows {:?} after the line was healed", healed.elapsed());
    assert!(
        healed.elapsed() < Duration::from_secs(15),
        "{:?}",
        healed.elapsed()
    );

    passes(&lab, 4 * MIB);
    lab.west.kill9();
    lab.west.restart();
    passes(&lab, 4 * MIB);
    lab.east.kill9();
    lab.east.restart();
    lab.cli.vm_in("db", "Protected", SYNC);
    let sent = lab.wan().counts(Way::There).bytes - before;
    println!("{sent} bytes sent of {DISK_BYTES}");
    assert!(sent <= DISK_BYTES * 11 / 10 + 3 * WINDOW_BYTES, "{sent}");
    newest_is(&lab, &root, "synced");

    // Tracking of such disks is a comparison, which has a connection of its own.
    let disk = fs::File::options().write(true).open(&root).unwrap();
    disk.write_all_at(&[9; 8192], 10 * MIB).unwrap();
    disk.sync_all().unwrap();
    let points = lab.cli.points("db");
    lab.cli.points_at_least("db", points + 1, SYNC);
    newest_is(&lab, &root, "changed");

    // Who is deleted is not dialled any more.
    lab.delete_vm("db");
    let dialled = lab.path("west/state/dialled");
    assert_eq!(fs::read_dir(dialled).unwrap().count(), 0);
}

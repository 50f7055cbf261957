//! A first sync with a seed: an older copy at the target, of which only differing blocks cross the line.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use farshore_tests::{
    Lab,
    bare_vm::{BareVm, document},
    guests::exchange_from,
    lab::{LabOptions, SYNC},
    replica::{export, vault},
};

const MIB: u64 = 1024 * 1024;
const ROOT_MIB: u64 = 64;
const BLOCK: u64 = 65536;
/// Of the disk's 1024 blocks.
const DIFFERING_BLOCKS: u64 = 48;
const PATIENCE: Duration = Duration::from_secs(60);

/// A VM with a disk of noise, and where a copy of it is.
fn vm_with_an_older_copy(directory: &Path) -> (BareVm, PathBuf) {
    let vm = BareVm::with_noise(directory, "db", ROOT_MIB);
    let copy = directory.join("older.raw");
    fs::copy(vm.root(), &copy).unwrap();
    (vm, copy)
}

fn with_seed(vm: &BareVm, seed: &Path) -> String {
    let target = format!("{{site: west, seed: {{root: {}}}}}", seed.display());
    document("db", &vm.monitor()).replace("{site: west}", &target)
}

/// A block device over a file, that nobody can write to. It goes with the value.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn over(file: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--read-only"])
            .arg(file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).output();
    }
}

fn shipped(lab: &Lab, encoding: &str) -> u64 {
    let text = exchange_from(lab.west_network(), "10.91.0.1:7281".parse().unwrap(), "/metrics").text;
    let series = format!("farshore_replicated_bytes_total{{encoding=\"{encoding}\",vm=\"db\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn only_blocks_that_differ_from_an_older_copy_cross_the_line_though_the_target_is_killed_meanwhile() {
    let mut lab = Lab::start(LabOptions {
        bandwidth: Some("512KiB".to_owned()),
        ..LabOptions::default()
    });
    let (vm, copy) = vm_with_an_older_copy(&lab.vms());
    let seed = LoopDevice::over(&copy);
    let every = ROOT_MIB * MIB / DIFFERING_BLOCKS / BLOCK * BLOCK;
    for (pattern, number) in (1_u8..).zip(0..DIFFERING_BLOCKS) {
        vm.write("vdroot", pattern, number * every + 4096, 512);
    }
    let manifest = with_seed(&vm, &seed.0);
    let root = vm.root();
    let _ = lab.adopt_bare(vm);
    let before = lab.sent_by_the_east();
    let _ = lab.apply(&manifest).done();
    let halfway = lab.cli.vm_when("db", "the middle of the sync", SYNC, |vm| {
        let done = vm["syncDoneBytes"].as_u64().unwrap_or(0);
        vm["state"] == "InitialSync" && done > 24 * MIB
    });
    assert!(halfway["syncDoneBytes"].as_u64() < Some(56 * MIB), "{halfway:#}");
    lab.west.kill9();
    lab.west.restart();
    lab.cli.vm_in("db", "Protected", SYNC);
    let crossed = lab.sent_by_the_east() - before;

    let differing = DIFFERING_BLOCKS * BLOCK;
    assert!(
        (differing..differing + 3 * MIB).contains(&crossed),
        "{crossed} bytes crossed the line for {differing} that differ"
    );
    assert_eq!(shipped(&lab, "raw"), differing);
    assert_eq!(shipped(&lab, "seed"), ROOT_MIB * MIB - differing);
    let exported = lab.path("exported");
    fs::create_dir_all(&exported).unwrap();
    let (point, _) = export(&lab.vault(), "db", "latest", &exported);
    assert!(fs::read(point).unwrap() == fs::read(&root).unwrap());

    // The point is whole without the seed, and its place is not noted any more.
    drop(seed);
    fs::remove_file(copy).unwrap();
    let _ = vault(&["verify", lab.vault().to_str().unwrap()]).done();
    assert_eq!(fs::read_dir(lab.path("west/state/seeds")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_a_seed_is_told_and_nothing_is_begun() {
    let mut lab = Lab::start(LabOptions::default());
    let (vm, copy) = vm_with_an_older_copy(&lab.vms());
    let image = lab.vms().join("older.qcow2");
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&copy, &image])
        .output()
        .unwrap();
    assert!(converted.status.success(), "{converted:?}");
    let manifest = with_seed(&vm, &image);
    let sound = with_seed(&vm, &copy);
    let _ = lab.adopt_bare(vm);
    let _ = lab.apply(&manifest).done();
    let failed = lab.cli.vm_in("db", "Failed", SYNC);
    let detail = failed["stateDetail"].as_str().unwrap();
    assert!(
        detail.contains("seed-readable") && detail.contains("qemu-img convert -O raw"),
        "{detail}"
    );
    let _ = lab.apply(&sound).done();
    lab.cli.vm_in("db", "Protected", PATIENCE);
    assert_eq!(shipped(&lab, "seed"), ROOT_MIB * MIB);
    assert_eq!(shipped(&lab, "raw"), 0);
}

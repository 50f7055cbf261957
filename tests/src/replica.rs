//! A recovery point, exported through the break-glass command line and judged without trusting anyone.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use farshore_guest::{
    disk_layout::{REGION_A, REGION_B},
    judge::{Judgement, judge},
    record::Stream,
    region::RegionScan,
    witness::Acknowledged,
};

use crate::{cli::Answer, daemon::binary};

/// Runs `farshore vault …`.
#[must_use]
pub fn vault(arguments: &[&str]) -> Answer {
    Command::new(binary())
        .arg("vault")
        .args(arguments)
        .output()
        .unwrap()
        .into()
}

/// Exports both volumes of a point of `vm` as raw files into `directory`.
#[must_use]
pub fn export(vault_directory: &Path, vm: &str, point: &str, directory: &Path) -> (PathBuf, PathBuf) {
    let one = |volume: &str| {
        let to = directory.join(format!("{vm}-{point}-{volume}.raw"));
        let arguments = [
            "export",
            vault_directory.to_str().unwrap(),
            vm,
            to.to_str().unwrap(),
            "--point",
            point,
            "--volume",
            volume,
        ];
        let _ = vault(&arguments).done();
        to
    };
    (one("root"), one("data"))
}

/// Judges a point of `vm` by what the witness had acknowledged.
#[must_use]
pub fn judge_point(
    vault_directory: &Path,
    vm: &str,
    point: &str,
    directory: &Path,
    acknowledged: Acknowledged,
) -> Judgement {
    let (root, data) = export(vault_directory, vm, point, directory);
    let judgement = judge_disks(&root, &data, acknowledged);
    std::fs::remove_file(root).unwrap();
    std::fs::remove_file(data).unwrap();
    judgement
}

/// Judges two raw disks.
#[must_use]
pub fn judge_disks(root: &Path, data: &Path, acknowledged: Acknowledged) -> Judgement {
    let scan =
        |path: &Path, range, stream| RegionScan::read(&File::open(path).unwrap(), range, stream).unwrap();
    judge(
        &scan(data, REGION_A, Stream::RegionA),
        &scan(root, REGION_B, Stream::RegionB),
        acknowledged,
    )
}

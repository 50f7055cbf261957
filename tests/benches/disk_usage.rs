//! How much a directory takes, and how large a disk may be beside it.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};

/// Of a disk's size must be free where the source keeps its scratch, or the VM is refused.
const SCRATCH_SHARE: u64 = 20;

/// The lengths of all files and directories together, by `du`.
#[allow(dead_code, reason = "what one bench does not need, another does")]
pub(crate) fn apparent_bytes(place: &Path) -> anyhow::Result<u64> {
    let told = Command::new("du")
        .args(["--summarize", "--apparent-size", "--block-size=1"])
        .arg(place)
        .output()?;
    ensure!(told.status.success(), "du: {}", told.status);
    let text = String::from_utf8(told.stdout)?;
    let bytes = text.split_whitespace().next().context("du says nothing")?;
    Ok(bytes.parse()?)
}

/// The size, halved until the file system of `directory` has room for the scratch of a disk so large.
#[allow(dead_code, reason = "what one bench does not need, another does")]
pub(crate) fn size_that_fits(mut size_bytes: u64, directory: &Path) -> anyhow::Result<u64> {
    let room = rustix::fs::statvfs(directory)?;
    // Others may take some of it meanwhile.
    let free = room.f_bavail * room.f_frsize / 10 * 9;
    while size_bytes / SCRATCH_SHARE > free {
        size_bytes /= 2;
    }
    Ok(size_bytes)
}

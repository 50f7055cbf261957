//! The rows of the vault benchmark.

pub(crate) mod export;
pub(crate) mod ingest;
pub(crate) mod reopen;
pub(crate) mod seal;
pub(crate) mod stored;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

/// Where building takes no time for making things durable.
const MEMORY: &str = "/dev/shm";

/// A vault at `place`, built in memory where there is room for it: building it is not what is measured.
pub(crate) fn prepared(
    place: PathBuf,
    needed_bytes: u64,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let room = rustix::fs::statvfs(MEMORY).map_or(0, |room| room.f_bavail * room.f_frsize);
    if room / 2 < needed_bytes {
        build(&place)?;
        return Ok(place);
    }
    let memory = tempfile::Builder::new().prefix("fsb").tempdir_in(MEMORY)?;
    let built = memory.path().join("vault");
    build(&built)?;
    let copied = Command::new("cp").arg("-a").arg(&built).arg(&place).status()?;
    ensure!(copied.success(), "cp: {copied}");
    // What is still to be written must not meet what is measured.
    rustix::fs::sync();
    Ok(place)
}

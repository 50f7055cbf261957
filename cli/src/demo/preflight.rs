//! What must be true before the demo makes anything: rights, programs, and that no other demo is being told.

use std::{fs::File, path::Path};

use anyhow::{Context, bail};
use farshore_guest::HostTool;
use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};

use super::{cleanup, network};

/// Bubbles are named after recovered VMs, so that two demos at once would share them.
const LOCK: &str = "/run/farshore-demo.lock";

/// Programs that the demo and its parts run.
const NEEDED: [HostTool; 10] = [
    HostTool::Busybox,
    HostTool::Ip,
    HostTool::Mcopy,
    HostTool::MkfsVfat,
    HostTool::Mke2fs,
    HostTool::Nsenter,
    HostTool::QemuImg,
    HostTool::QemuSystem,
    HostTool::Strip,
    HostTool::Syslinux,
];

/// Held while a demo is being told.
#[derive(Debug)]
pub(super) struct OnlyDemo {
    _lock: File,
}

/// Checks, and holds off other demos for as long as the answer lives.
pub(super) fn check() -> anyhow::Result<OnlyDemo> {
    if !geteuid().is_root() {
        bail!("the demo makes network namespaces and taps, for which it must be root: sudo farshore demo");
    }
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|tool| tool.find().is_err())
        .map(|tool| tool.names().1)
        .collect();
    if !missing.is_empty() {
        bail!(
            "programs are missing; on Debian or Ubuntu: apt install {}",
            missing.join(" ")
        );
    }
    let lock = File::create(Path::new(LOCK)).with_context(|| format!("cannot create {LOCK}"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another demo is being told on this machine; wait for its end");
    }
    let occupied: Vec<String> = network::namespaces()
        .into_iter()
        .filter(|name| cleanup::is_bubble(name))
        .collect();
    if !occupied.is_empty() {
        bail!(
            "network namespaces of an earlier demo are still there ({}); `farshore demo --stop DIR` with its directory \
             removes them",
            occupied.join(", ")
        );
    }
    Ok(OnlyDemo { _lock: lock })
}

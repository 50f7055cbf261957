//! What must be true before the demo makes anything: rights, programs, and that no other demo is being told.

use std::{fs::File, path::Path};

use anyhow::{Context, bail};
use farshore_guest::HostTool;
use rustix::{
    fs::{FlockOperation, flock, statvfs},
    process::geteuid,
};

use super::{manifests, network};
use crate::output::format::size;

/// Bubbles are named after recovered VMs, so that two demos at once would share them. What is locked is there anyway and
/// needed by every demo, so that no file of ours is left behind.
const LOCK: &str = "/dev/net/tun";

/// Two guests' disks, their replicas, and what recovered VMs write.
const NEEDED_BYTES: u64 = 3 << 30;
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
    let lock = File::open(LOCK).with_context(|| format!("cannot open {LOCK}; `modprobe tun` makes it"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another demo is being told on this machine; wait for its end");
    }
    let occupied: Vec<String> = network::namespaces()
        .into_iter()
        .filter(|name| is_bubble(name))
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

/// Whether there is room for the guests' disks, the vault and what recovered VMs write.
pub(super) fn check_room(directory: &Path) -> anyhow::Result<()> {
    let found = statvfs(directory).with_context(|| format!("cannot look at {}", directory.display()))?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    if free_bytes < NEEDED_BYTES {
        bail!(
            "{} has {} free and the demo needs {}; choose another place with --dir",
            directory.display(),
            size(free_bytes),
            size(NEEDED_BYTES)
        );
    }
    Ok(())
}

/// Whether a network namespace is the bubble of a VM that the demo declares.
fn is_bubble(namespace: &str) -> bool {
    let vms = manifests::declared_vms().unwrap_or_default();
    namespace.strip_prefix("fs-").is_some_and(|recovery| {
        vms.iter()
            .any(|vm| recovery.strip_prefix(&vm.name).is_some_and(is_recovery_suffix))
    })
}

/// `-t1`, `-f12`
fn is_recovery_suffix(suffix: &str) -> bool {
    let number = suffix.strip_prefix("-t").or_else(|| suffix.strip_prefix("-f"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bubbles_of_the_demos_vms_stand_in_its_way() {
        for name in ["fs-shop-db-t1", "fs-shop-web-f12"] {
            assert!(is_bubble(name), "{name}");
        }
        for name in [
            "fs-shop-db",
            "fs-shop-db-t",
            "fs-shop-db-tx",
            "fs-shop-db-2-t1",
            "fs-other-t1",
            "fsd-1234-east",
        ] {
            assert!(!is_bubble(name), "{name}");
        }
    }
}

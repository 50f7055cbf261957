//! The tree of the guest's root file system: busybox, the workload, and the scripts that start it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    DATA_LABEL, GuestAgent, ImageError, ImageRequest, OnFile, executable, make_directory, write_file,
};
use crate::{
    disk_layout::RootLayout,
    host_tool::HostTool,
    workload::{CONFIGURATION_PATH, Configuration},
};

const WORKLOAD_PATH: &str = "/usr/bin/guest-workload";

/// What ext4 needs beside the files: journal, tables, room to breathe.
const FILE_SYSTEM_OVERHEAD_BYTES: u64 = 24 << 20;

/// Started by the initial RAM disk with the root file system's device as its argument.
const INIT: &str = include_str!("guest_init.sh");

/// What the power button does.
const POWER_OFF: &str = include_str!("guest_power_off.sh");

/// Makes the tree under `scratch`.
pub(super) fn lay_out(request: &ImageRequest, scratch: &Path) -> Result<PathBuf, ImageError> {
    let tree = scratch.join("tree");
    for directory in [
        "bin",
        "sbin",
        "usr/bin",
        "usr/sbin",
        "etc/acpi/PWRF",
        "dev",
        "proc",
        "sys",
    ] {
        make_directory(&tree.join(directory))?;
    }
    for directory in ["run", "tmp", "root", "data"] {
        make_directory(&tree.join(directory))?;
    }
    install_busybox(&tree)?;
    executable::install(&HostTool::E2fsck.find()?, &tree, "/usr/sbin/e2fsck")?;
    if request.agent == GuestAgent::Installed {
        executable::install(&HostTool::QemuGa.find()?, &tree, "/usr/sbin/qemu-ga")?;
    }
    executable::install_stripped(&request.workload.path, &tree, WORKLOAD_PATH)?;
    write_file(&tree.join("etc/passwd"), b"root::0:0:root:/root:/bin/sh\n")?;
    write_file(&tree.join("etc/group"), b"root:x:0:\n")?;
    let configuration = tree.join(CONFIGURATION_PATH.trim_start_matches('/'));
    write_file(&configuration, configuration_of(request)?.to_text().as_bytes())?;
    let leading: Vec<String> = request
        .workload
        .leading_arguments
        .iter()
        .map(|word| quoted(word))
        .collect();
    let init = INIT
        .replace("@WORKLOAD@", &format!("{WORKLOAD_PATH} {}", leading.join(" ")))
        .replace("@CONFIGURATION@", CONFIGURATION_PATH)
        .replace("@DATA_LABEL@", DATA_LABEL);
    write_program(&tree.join("sbin/init"), &init)?;
    write_program(&tree.join("etc/acpi/PWRF/00000080"), POWER_OFF)?;
    Ok(tree)
}

/// Refuses a disk that is too small before the tools do so less clearly.
pub(super) fn check_room(request: &ImageRequest, layout: RootLayout, tree: &Path) -> Result<(), ImageError> {
    let needed = bytes_of_tree(tree)?.saturating_add(FILE_SYSTEM_OVERHEAD_BYTES);
    if needed <= layout.file_system.length {
        return Ok(());
    }
    Err(ImageError::RootTooSmall {
        ordered_bytes: request.root_bytes,
        needed_bytes: layout.file_system.offset.saturating_add(needed),
    })
}

fn bytes_of_tree(directory: &Path) -> Result<u64, ImageError> {
    let mut total = 0_u64;
    for entry in fs::read_dir(directory).on_file("list", directory)? {
        let entry = entry.on_file("list", directory)?;
        let metadata = entry.metadata().on_file("look at", &entry.path())?;
        total = total.saturating_add(if metadata.is_dir() {
            bytes_of_tree(&entry.path())?
        } else {
            metadata.len().next_multiple_of(4096)
        });
    }
    Ok(total)
}

fn install_busybox(tree: &Path) -> Result<(), ImageError> {
    let busybox = HostTool::Busybox.find()?;
    executable::install(&busybox, tree, "/bin/busybox")?;
    let list = HostTool::Busybox.run_with(&["--list"])?;
    for applet in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|name| *name != "busybox")
    {
        let link = tree.join("bin").join(applet);
        symlink("busybox", &link).on_file("link", &link)?;
    }
    Ok(())
}

fn configuration_of(request: &ImageRequest) -> Result<Configuration, ImageError> {
    Ok(Configuration {
        hostname: request.name.clone(),
        address: request.address,
        gateway: request.gateway,
        guest: random_identity()?,
        records_per_second: request.records_per_second,
        journal_records_per_second: request.journal_records_per_second,
    })
}

fn random_identity() -> Result<u64, ImageError> {
    crate::workload::random_number().on_file("read", Path::new("/dev/urandom"))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn write_program(path: &Path, text: &str) -> Result<(), ImageError> {
    write_file(path, text.as_bytes())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).on_file("make executable", path)
}

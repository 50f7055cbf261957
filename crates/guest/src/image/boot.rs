//! The boot partition and the boot code: SYSLINUX, kernel and initial RAM disk on FAT, and what the firmware starts.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{ImageError, OnFile, create_sparse, initramfs, kernel::Kernel, write_file};
use crate::{
    disk_layout::BOOT,
    host_tool::{HostTool, ToolError},
};

/// Where the partition table begins; the boot code takes less.
pub(super) const CODE_AREA_BYTES: u64 = 446;

/// What FAT and SYSLINUX themselves need of the partition.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// Where distributions put the code of a master boot record.
const BOOT_CODE_PATHS: [&str; 3] = [
    "/usr/lib/syslinux/mbr/mbr.bin",
    "/usr/share/syslinux/mbr.bin",
    "/usr/lib/syslinux/bios/mbr.bin",
];

/// No `quiet` console noise, the network card is `eth0` whatever its slot, and a panic reboots.
const SYSLINUX_CONFIGURATION: &str = "DEFAULT guest\nPROMPT 0\nLABEL guest\n LINUX vmlinuz\n INITRD initrd\n \
    APPEND console=ttyS0 quiet panic=5 net.ifnames=0 mitigations=off\n";

/// Builds the partition as a file of its own.
pub(super) fn build(kernel: &Kernel, scratch: &Path) -> Result<PathBuf, ImageError> {
    let busybox_path = HostTool::Busybox.find()?;
    let busybox = fs::read(&busybox_path).on_file("read", &busybox_path)?;
    let initial_ram_disk = scratch.join("initrd");
    let archive = initramfs::archive(&busybox, &kernel.modules);
    write_file(&initial_ram_disk, &archive)?;
    let kernel_bytes = fs::metadata(&kernel.image)
        .on_file("look at", &kernel.image)?
        .len();
    let found_bytes = u64::try_from(archive.len())
        .unwrap_or(u64::MAX)
        .saturating_add(kernel_bytes);
    let limit_bytes = BOOT.length - OVERHEAD_BYTES;
    if found_bytes > limit_bytes {
        return Err(ImageError::BootTooLarge {
            found_bytes,
            limit_bytes,
        });
    }
    let configuration = scratch.join("syslinux.cfg");
    write_file(&configuration, SYSLINUX_CONFIGURATION.as_bytes())?;

    let image = scratch.join("boot.fat");
    create_sparse(&image, BOOT.length)?;
    HostTool::MkfsVfat.run(HostTool::MkfsVfat.command()?.args(["-n", "BOOT"]).arg(&image))?;
    copy_in(&image, &kernel.image, "::vmlinuz")?;
    copy_in(&image, &initial_ram_disk, "::initrd")?;
    copy_in(&image, &configuration, "::syslinux.cfg")?;
    HostTool::Syslinux.run(HostTool::Syslinux.command()?.arg("--install").arg(&image))?;
    Ok(image)
}

fn copy_in(image: &Path, file: &Path, name: &str) -> Result<(), ImageError> {
    let mut command = HostTool::Mcopy.command()?;
    HostTool::Mcopy.run(command.arg("-i").arg(image).arg(file).arg(name))?;
    Ok(())
}

/// Puts the partition and the boot code on the disk; the partition table is not touched.
pub(super) fn install(image: &Path, disk: &File, disk_path: &Path) -> Result<(), ImageError> {
    let content = fs::read(image).on_file("read", image)?;
    let mut offset = BOOT.offset;
    for piece in content.chunks(64 * 1024) {
        if piece.iter().any(|byte| *byte != 0) {
            disk.write_all_at(piece, offset).on_file("write", disk_path)?;
        }
        offset += 64 * 1024;
    }
    let code_path = BOOT_CODE_PATHS
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .ok_or(ToolError::Missing {
            program: "mbr.bin",
            debian_package: "syslinux-common",
        })?;
    let code = fs::read(code_path).on_file("read", code_path)?;
    let code = code.get(..440).unwrap_or(&code);
    disk.write_all_at(code, 0).on_file("write", disk_path)
}

//! Builds the guest's two disks, as an ordinary user: no loop device, no mount, no network.
//!
//! The root disk boots by itself, through the firmware of a PC: master boot record, SYSLINUX, the host's own kernel, a small
//! initial RAM disk, ext4. The workload inside is the given executable with the shared libraries it needs.

mod boot;
mod executable;
mod initramfs;
pub(crate) mod kernel;
mod root;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    disk_layout::{DataLayout, DiskRange, LayoutError, RootLayout},
    host_tool::{HostTool, ToolError},
    network::Ipv4Network,
};
pub use kernel::KernelError;

/// The label by which the guest finds its root file system.
const ROOT_LABEL: &str = "farshore-root";

/// The label by which the guest finds the file system on its data disk.
const DATA_LABEL: &str = "farshore-data";

/// The program that runs in the guest.
#[derive(Debug, Clone)]
pub struct WorkloadExecutable {
    /// A dynamic executable of this host, which ends up in [`crate::workload::main`].
    pub path: PathBuf,
    /// The arguments that lead it there, before the workload's own.
    pub leading_arguments: Vec<String>,
}

/// The guest that is wanted.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Where the disks are put, as `NAME-root.qcow2` and `NAME-data.raw`; it must exist.
    pub directory: PathBuf,
    /// The guest's name: letters, digits and hyphens.
    pub name: String,
    /// The address of its `eth0`, if it has one.
    pub address: Option<Ipv4Network>,
    /// Its default route.
    pub gateway: Option<std::net::Ipv4Addr>,
    /// The program that runs in it.
    pub workload: WorkloadExecutable,
    /// The size of the root disk, in bytes.
    pub root_bytes: u64,
    /// The size of the data disk, in bytes.
    pub data_bytes: u64,
    /// How many bytes of the data disk are filled with random bytes, so that copying it takes time.
    pub ballast_bytes: u64,
    /// The pace of the records in the regions; 0 writes none.
    pub records_per_second: u32,
    /// The pace of the records in the journal on the file system; 0 writes none.
    pub journal_records_per_second: u32,
    /// Whether an agent listens on the port `org.qemu.guest_agent.0`.
    pub agent: GuestAgent,
}

/// Whether the guest has QEMU's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestAgent {
    /// It has none.
    Absent,
    /// The host's `qemu-ga` is put into it.
    Installed,
}

impl ImageRequest {
    /// A small guest: 192 MiB and 128 MiB, 200 records and 5 journal records a second, no network.
    #[must_use]
    pub fn small(directory: &Path, name: &str, workload: WorkloadExecutable) -> Self {
        Self {
            directory: directory.to_owned(),
            name: name.to_owned(),
            address: None,
            gateway: None,
            workload,
            root_bytes: 192 << 20,
            data_bytes: 128 << 20,
            ballast_bytes: 0,
            records_per_second: 200,
            journal_records_per_second: 5,
            agent: GuestAgent::Absent,
        }
    }
}

/// The disks that were built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisks {
    /// The root disk, qcow2.
    pub root: PathBuf,
    /// The data disk, raw.
    pub data: PathBuf,
}

/// Why a guest could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name cannot be a host name.
    #[error("`{name}` cannot be a guest's name: 1 to 63 letters, digits and inner hyphens are accepted")]
    BadName {
        /// The name.
        name: String,
    },
    /// The sizes do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A program of the host is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The host has no kernel that a guest can boot.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The files of the root file system do not fit.
    #[error(
        "the root disk of {ordered_bytes} bytes is too small for its files: order at least {needed_bytes} bytes"
    )]
    RootTooSmall {
        /// What was ordered.
        ordered_bytes: u64,
        /// What would do.
        needed_bytes: u64,
    },
    /// The kernel does not fit its partition.
    #[error(
        "kernel and initial RAM disk have {found_bytes} bytes, and the boot partition takes {limit_bytes}"
    )]
    BootTooLarge {
        /// Their size.
        found_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A file of the host could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Names the file and the deed of an input or output error.
trait OnFile<T> {
    fn on_file(self, action: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on_file(self, action: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::File {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// Builds guests.
#[derive(Debug, Clone, Copy)]
pub struct GuestImage;

impl GuestImage {
    /// Builds both disks; files of those names are replaced.
    ///
    /// Crash story: everything but the two disks is in a temporary directory beside them; a disk that was not finished
    /// is left as it is, and the next build replaces it.
    ///
    /// # Errors
    /// When the request cannot be met, or a program or file of the host is missing or fails; each says which.
    pub fn build(request: &ImageRequest) -> Result<GuestDisks, ImageError> {
        check_name(&request.name)?;
        let root_layout = RootLayout::new(request.root_bytes)?;
        let data_layout = DataLayout::new(request.data_bytes, request.ballast_bytes)?;
        let disks = GuestDisks {
            root: request.directory.join(format!("{}-root.qcow2", request.name)),
            data: request.directory.join(format!("{}-data.raw", request.name)),
        };
        let scratch = tempfile::Builder::new()
            .prefix(".guest-image-")
            .tempdir_in(&request.directory)
            .on_file("make a temporary directory in", &request.directory)?;
        build_data_disk(&disks.data, data_layout)?;
        let raw_root = scratch.path().join("root.raw");
        build_root_disk(request, root_layout, scratch.path(), &raw_root)?;
        let mut convert = HostTool::QemuImg.command()?;
        convert.args(["convert", "-q", "-f", "raw", "-O", "qcow2"]);
        HostTool::QemuImg.run(convert.arg(&raw_root).arg(&disks.root))?;
        Ok(disks)
    }
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let inner = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if inner && (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    Err(ImageError::BadName {
        name: name.to_owned(),
    })
}

fn build_root_disk(
    request: &ImageRequest,
    layout: RootLayout,
    scratch: &Path,
    disk: &Path,
) -> Result<(), ImageError> {
    let kernel = kernel::Kernel::newest()?;
    let tree = root::lay_out(request, scratch)?;
    root::check_room(request, layout, &tree)?;
    create_sparse(disk, layout.disk_bytes)?;
    make_ext4(disk, layout.file_system, ROOT_LABEL, Some(&tree))?;
    let boot_image = boot::build(&kernel, scratch)?;
    let file = OpenOptions::new().write(true).open(disk).on_file("open", disk)?;
    boot::install(&boot_image, &file, disk)?;
    file.write_all_at(&layout.partition_table(), boot::CODE_AREA_BYTES)
        .on_file("write", disk)
}

fn build_data_disk(disk: &Path, layout: DataLayout) -> Result<(), ImageError> {
    create_sparse(disk, layout.disk_bytes)?;
    make_ext4(disk, layout.file_system, DATA_LABEL, None)?;
    let file = OpenOptions::new().write(true).open(disk).on_file("open", disk)?;
    file.write_all_at(&layout.partition_table(), boot::CODE_AREA_BYTES)
        .on_file("write", disk)?;
    layout
        .ballast
        .map_or(Ok(()), |range| fill(&file, range).on_file("fill", disk))
}

fn create_sparse(disk: &Path, bytes: u64) -> Result<(), ImageError> {
    let file = File::create(disk).on_file("create", disk)?;
    file.set_len(bytes).on_file("resize", disk)
}

fn make_ext4(disk: &Path, range: DiskRange, label: &str, tree: Option<&Path>) -> Result<(), ImageError> {
    let mut command = HostTool::Mke2fs.command()?;
    command.args(["-q", "-F", "-t", "ext4", "-L", label, "-E"]);
    command.arg(format!(
        "offset={},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
        range.offset
    ));
    if let Some(tree) = tree {
        command.arg("-d").arg(tree);
    }
    command.arg(disk).arg(format!("{}k", range.length / 1024));
    HostTool::Mke2fs.run(&mut command)?;
    Ok(())
}

/// Fills a range with bytes that nothing can compress.
fn fill(disk: &File, range: DiskRange) -> io::Result<()> {
    let mut random = File::open("/dev/urandom")?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = range.offset;
    while offset < range.offset + range.length {
        random.read_exact(&mut buffer)?;
        disk.write_all_at(&buffer, offset)?;
        offset += 1 << 20;
    }
    Ok(())
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    File::create(path)
        .and_then(|mut file| file.write_all(content))
        .on_file("write", path)
}

fn make_directory(path: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(path).on_file("create", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_host_name_is_refused() {
        for name in ["", "-a", "a-", "a b", "a$(reboot)", &"a".repeat(64)] {
            assert!(
                matches!(check_name(name), Err(ImageError::BadName { .. })),
                "{name}"
            );
        }
        for name in ["a", "web-1", &"a".repeat(63)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }
}

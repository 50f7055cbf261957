//! Finds a kernel of the host that a guest can boot, and the modules that it needs for virtio disks, network and console.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::host_tool::{HostTool, ToolError};

/// What a guest cannot do without, unless it is built in.
const NEEDED: [&str; 5] = ["ext4", "virtio_pci", "virtio_blk", "virtio_net", "virtio_console"];

/// What a guest uses if the kernel has it: a virtual SCSI disk, and the power button.
const WELCOME: [&str; 4] = ["virtio_scsi", "sd_mod", "button", "evdev"];

/// Why the host's kernels do not serve.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// None can be read.
    #[error(
        "no kernel for the guest: a readable /boot/vmlinuz-VERSION with its /lib/modules/VERSION is needed \
         (unreadable: {}); install the Debian package `linux-image-cloud-amd64` or make one readable",
        if unreadable.is_empty() { "none" } else { unreadable.as_str() }
    )]
    NoneFound {
        /// Those that exist but cannot be read.
        unreadable: String,
    },
    /// A module is missing.
    #[error(
        "the kernel {version} has no module `{module}`: install the Debian package `linux-image-cloud-amd64`"
    )]
    NoModule {
        /// The kernel.
        version: String,
        /// The module.
        module: String,
    },
    /// A module is compressed in a way that is not known.
    #[error("the module {} is compressed in an unknown way: .ko, .ko.xz and .ko.zst are understood", path.display())]
    UnknownCompression {
        /// The module.
        path: PathBuf,
    },
    /// The program that unpacks a module is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A kernel and its modules, unpacked, in the order in which they must be loaded.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(super) modules: Vec<Module>,
}

/// A kernel module.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

impl Kernel {
    /// The newest that can be read.
    pub(crate) fn newest() -> Result<Self, KernelError> {
        let boot = Path::new("/boot");
        let mut versions: Vec<String> = file_names(boot)?
            .filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
            .filter(|version| {
                Path::new("/lib/modules")
                    .join(version)
                    .join("modules.dep")
                    .is_file()
            })
            .collect();
        versions.sort_by_key(|version| age_key(version));
        let path_of = |version: &String| boot.join(format!("vmlinuz-{version}"));
        let (readable, unreadable): (Vec<_>, Vec<_>) = versions
            .into_iter()
            .partition(|version| fs::File::open(path_of(version)).is_ok());
        let Some(version) = readable.last() else {
            return Err(KernelError::NoneFound {
                unreadable: unreadable.join(", "),
            });
        };
        Ok(Self {
            image: path_of(version),
            modules: modules(version)?,
        })
    }
}

/// Versions compared by their numbers, so that 6.10 is newer than 6.9.
fn age_key(version: &str) -> Vec<u64> {
    version
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn file_names(directory: &Path) -> Result<impl Iterator<Item = String>, KernelError> {
    let entries = fs::read_dir(directory).map_err(|source| KernelError::Unreadable {
        path: directory.to_owned(),
        source,
    })?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()))
}

fn modules(version: &str) -> Result<Vec<Module>, KernelError> {
    let directory = Path::new("/lib/modules").join(version);
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|source| KernelError::Unreadable { path, source })
    };
    let dependencies = read("modules.dep")?;
    let built_in = read("modules.builtin")?;
    load_order(&dependencies, &built_in)
        .map_err(|module| KernelError::NoModule {
            version: version.to_owned(),
            module,
        })?
        .into_iter()
        .map(|path| unpack(&directory.join(path)))
        .collect()
}

/// The files of the modules in the order of loading, or the one that does not exist.
fn load_order(dependencies: &str, built_in: &str) -> Result<Vec<String>, String> {
    let lines: HashMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs)))
        .collect();
    let is_built_in = |name: &str| built_in.lines().any(|path| module_name(path) == name);
    let mut order: Vec<String> = Vec::new();
    for name in NEEDED.into_iter().chain(WELCOME) {
        let Some((path, needs)) = lines.get(name) else {
            if is_built_in(name) || WELCOME.contains(&name) {
                continue;
            }
            return Err(name.to_owned());
        };
        // modules.dep lists what a module needs with the innermost last.
        for file in needs.split_whitespace().rev().chain([*path]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn unpack(path: &Path) -> Result<Module, KernelError> {
    let text = path.to_string_lossy();
    let content = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::read(path).map_err(|source| KernelError::Unreadable {
            path: path.to_owned(),
            source,
        })?,
        Some("xz") => HostTool::Xz.run_with(&["-dc", text.as_ref()])?.stdout,
        Some("zst") => HostTool::Zstd.run_with(&["-dcq", text.as_ref()])?.stdout,
        Some(_) | None => {
            return Err(KernelError::UnknownCompression {
                path: path.to_owned(),
            });
        }
    };
    Ok(Module {
        name: module_name(&text),
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "k/virtio.ko: k/virtio_ring.ko\nk/virtio_ring.ko:\n\
        k/virtio_pci.ko.zst: k/virtio.ko k/virtio_ring.ko\nk/virtio_blk.ko: k/virtio.ko k/virtio_ring.ko\n\
        k/virtio_console.ko:\nk/virtio-net.ko:\n";

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let order = load_order(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n").unwrap();
        assert_eq!(
            order,
            [
                "k/virtio_ring.ko",
                "k/virtio.ko",
                "k/virtio_pci.ko.zst",
                "k/virtio_blk.ko",
                "k/virtio-net.ko",
                "k/virtio_console.ko"
            ]
        );
    }

    #[test]
    fn a_module_that_is_neither_there_nor_built_in_is_named() {
        assert_eq!(load_order(DEPENDENCIES, ""), Err("ext4".to_owned()));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(age_key("6.10.0-3-amd64") > age_key("6.9.12-40-amd64"));
    }
}

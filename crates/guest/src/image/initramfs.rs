//! The initial RAM disk: loads the modules, finds the root file system by its label, and hands over to it.
//!
//! It is a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format), uncompressed:
//! unpacking would cost a translated processor more than reading it costs.

use super::{ROOT_LABEL, kernel::Module};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// The applets that the script needs.
const APPLETS: [&str; 8] = [
    "sh",
    "mount",
    "insmod",
    "switch_root",
    "sleep",
    "cat",
    "findfs",
    "mkdir",
];

const SCRIPT: &str = r#"#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read module; do insmod /modules/$module || echo "ERROR module $module"; done < /modules/order
tries=0
while ! root=$(findfs LABEL=@LABEL@ 2>/dev/null) && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 -o rw "$root" /newroot || { echo "ERROR cannot mount the root file system '$root'"; exec sh; }
mount --move /dev /newroot/dev; mount --move /proc /newroot/proc; mount --move /sys /newroot/sys
exec switch_root /newroot /sbin/init "$root"
"#;

/// The archive, with this busybox and these modules.
pub(super) fn archive(busybox: &[u8], modules: &[Module]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "newroot", "proc", "sys"] {
        archive.add(directory, DIRECTORY, &[]);
    }
    archive.add("bin/busybox", PROGRAM, busybox);
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), LINK, b"busybox");
    }
    let mut order = String::new();
    for module in modules {
        archive.add(&format!("modules/{}", module.name), PROGRAM, &module.content);
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.add("modules/order", PROGRAM, order.as_bytes());
    archive.add("init", PROGRAM, SCRIPT.replace("@LABEL@", ROOT_LABEL).as_bytes());
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (inode, size, name_length) = (self.entries, content.len(), name.len() + 1);
        // After the size come four device numbers, and after the name's length a checksum that this format leaves 0.
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_length:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_understands() {
        let directory = tempfile::tempdir().unwrap();
        let module = Module {
            name: "virtio".into(),
            content: b"code".to_vec(),
        };
        let path = directory.path().join("archive");
        std::fs::write(&path, archive(b"box", &[module])).unwrap();
        let listing = std::process::Command::new("busybox")
            .args(["cpio", "-it", "-F"])
            .arg(&path)
            .output()
            .unwrap();
        let names = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.status.success());
        for name in ["init", "bin/busybox", "bin/sh", "modules/virtio", "modules/order"] {
            assert!(names.lines().any(|line| line == name), "{name} is not in {names}");
        }
    }
}

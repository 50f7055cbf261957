//! An image that is nothing but its disk's bytes, in a file or device that can be read without anyone's help.
//!
//! QEMU would read the same bytes from the same place, and copy them twice more on the way to us, with the processor that serves the guest.
//! What was written while it was read is recorded by tracking, as it is when QEMU reads. Whether it is the same file is not
//! believed by its name, which QEMU may see from another root: QEMU must have that very file open.

use std::{
    fs,
    io::{self, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use farshore_blocks::ByteCount;
use farshore_provider::{Caching, DiskFile};
use serde_json::Value;

use super::Image;

/// Why an image is not read without QEMU.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPlain {
    #[error("it is not a raw file or device as a whole")]
    Shape,
    #[error("which process the hypervisor is cannot be seen")]
    NoProcess,
    #[error("it cannot be opened here")]
    Open(#[from] io::Error),
    #[error("the file of this name is not the one that the hypervisor has open")]
    AnotherFile,
    #[error("it has {found} where the disk has {disk}")]
    Size { found: ByteCount, disk: ByteCount },
}

impl Image {
    /// The disk's bytes, if they are all that the image is, and `hypervisor` is seen to have this file open.
    pub(crate) fn open_plain(&self, size: ByteCount, hypervisor: Option<i32>) -> Result<DiskFile, NotPlain> {
        let path = plain_file(&self.options).ok_or(NotPlain::Shape)?;
        let hypervisor = hypervisor.ok_or(NotPlain::NoProcess)?;
        let caching = if self.direct {
            Caching::Direct
        } else {
            Caching::Cached
        };
        let disk = DiskFile::open(path, caching)?;
        if !has_open(hypervisor, &disk)? {
            return Err(NotPlain::AnotherFile);
        }
        let found = ByteCount(disk.file().seek(SeekFrom::End(0))?);
        if found < size {
            return Err(NotPlain::Size { found, disk: size });
        }
        Ok(disk)
    }
}

/// The file of a raw image that begins where the file does: with an offset or a size it would be a part.
fn plain_file(options: &Value) -> Option<&Path> {
    let word = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let protocol = match word(options, "driver")?.as_str() {
        "raw" if options.get("offset").is_none() && options.get("size").is_none() => options.get("file")?,
        "file" | "host_device" => options,
        _ => return None,
    };
    let driver = word(protocol, "driver")?;
    if driver != "file" && driver != "host_device" {
        return None;
    }
    protocol.get("filename").and_then(Value::as_str).map(Path::new)
}

fn has_open(process: i32, disk: &DiskFile) -> io::Result<bool> {
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino(), metadata.rdev());
    let wanted = identity(&disk.file().metadata()?);
    let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?;
    // One that was closed meanwhile is none.
    let open = descriptors.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    Ok(open.into_iter().any(|metadata| identity(&metadata) == wanted))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn image(options: Value) -> Image {
        Image {
            options,
            direct: false,
        }
    }

    #[test]
    fn only_a_whole_raw_image_is_plain() {
        let file = json!({"driver": "file", "filename": "/d/disk.raw"});
        let device = json!({"driver": "host_device", "filename": "/dev/sdb"});
        for (options, expected) in [
            (file.clone(), Some("/d/disk.raw")),
            (json!({"driver": "raw", "file": file}), Some("/d/disk.raw")),
            (
                json!({"driver": "raw", "read-only": true, "file": device}),
                Some("/dev/sdb"),
            ),
            (json!({"driver": "raw", "offset": 512, "file": file}), None),
            (json!({"driver": "raw", "size": 512, "file": file}), None),
            (json!({"driver": "qcow2", "file": file}), None),
            (
                json!({"driver": "raw", "file": {"driver": "throttle", "file": file}}),
                None,
            ),
            (
                json!({"driver": "raw", "file": {"driver": "nbd", "filename": "nbd://far"}}),
                None,
            ),
        ] {
            assert_eq!(plain_file(&options), expected.map(Path::new), "{options}");
        }
    }

    #[test]
    fn a_file_that_the_hypervisor_does_not_have_open_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        let mut held = fs::File::create(&path).unwrap();
        held.write_all(&[7; 4096]).unwrap();
        let us = i32::try_from(std::process::id()).unwrap();
        let image = image(json!({"driver": "file", "filename": path}));
        let size = ByteCount(4096);
        assert!(image.open_plain(size, Some(us)).is_ok());
        assert!(matches!(image.open_plain(size, None), Err(NotPlain::NoProcess)));
        let longer = image.open_plain(ByteCount(8192), Some(us));
        assert!(matches!(longer, Err(NotPlain::Size { .. })));
        // Another file under the same name.
        fs::remove_file(&path).unwrap();
        fs::write(&path, [8; 4096]).unwrap();
        let init = image.open_plain(size, Some(1));
        assert!(matches!(init, Err(NotPlain::AnotherFile | NotPlain::Open(_))));
    }
}

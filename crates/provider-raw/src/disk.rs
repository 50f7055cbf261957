//! One disk: a regular file or a block device, its size, its holes, its bytes, and whether it was written.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use farshore_blocks::{ByteCount, ByteOffset, Extent};
use farshore_provider::{DiskFile, StateOfBytes, StatedExtent};
use rustix::{
    fs::{SeekFrom, major, minor, seek},
    io::Errno,
};
use serde::{Deserialize, Serialize};

/// Recovered VMs take disks in whole sectors only.
const SECTOR_BYTES: u64 = 512;
/// In `/sys/dev/block/*/stat`: how many sectors were written (Documentation/block/stat.rst).
const SECTORS_WRITTEN: usize = 6;

/// Longer than any file system's times stand still, counted from a whole second.
const QUIET: Duration = Duration::from_secs(2);

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system or the device failed.
    #[error("disk {path} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a socket, or the like.
    #[error("{path} is neither a regular file nor a block device")]
    NotADisk {
        /// Which.
        path: PathBuf,
    },
    /// Its size is not that of a disk.
    #[error("disk {path} has {size}: a multiple of {SECTOR_BYTES} bytes, and not 0, is accepted")]
    Size {
        /// Which.
        path: PathBuf,
        /// How large it is.
        size: ByteCount,
    },
    /// The kernel's count of writes is not there.
    #[error("how much was written to the block device {path} cannot be read from {statistics}")]
    Statistics {
        /// Which.
        path: PathBuf,
        /// Where the kernel should tell it.
        statistics: PathBuf,
    },
}

/// By what it is seen that a disk was written. Equal stamps say that it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Stamp {
    /// Of a file: which one it is, and when it was changed last.
    #[serde(rename_all = "camelCase")]
    File {
        device: u64,
        inode: u64,
        size: ByteCount,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    /// Of a block device: which one it is, since which boot, and how many sectors were written since.
    #[serde(rename_all = "camelCase")]
    Device {
        number: u64,
        boot: String,
        size: ByteCount,
        sectors_written: u64,
    },
}

/// A disk, open for reading; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RawDisk {
    path: PathBuf,
    bytes: DiskFile,
    size: ByteCount,
}

impl RawDisk {
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let unusable = |source| DiskError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unusable)?;
        let kind = file.metadata().map_err(unusable)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotADisk {
                path: path.to_owned(),
            });
        }
        let size = ByteCount(seek(&file, SeekFrom::End(0)).map_err(|error| unusable(error.into()))?);
        if size.0 == 0 || !size.0.is_multiple_of(SECTOR_BYTES) {
            return Err(DiskError::Size {
                path: path.to_owned(),
                size,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            bytes: DiskFile::cached(file),
            size,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn size(&self) -> ByteCount {
        self.size
    }

    /// As it is now.
    pub(crate) fn stamp(&self) -> Result<Stamp, DiskError> {
        let metadata = self
            .bytes
            .file()
            .metadata()
            .map_err(|source| self.unusable(source))?;
        if !metadata.file_type().is_block_device() {
            return Ok(Stamp::File {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: ByteCount(metadata.len()),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            });
        }
        // What is in the page cache is counted once it is written back.
        self.bytes
            .file()
            .sync_all()
            .map_err(|source| self.unusable(source))?;
        let number = metadata.rdev();
        let size = seek(self.bytes.file(), SeekFrom::End(0)).map_err(|error| self.unusable(error.into()))?;
        Ok(Stamp::Device {
            number,
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map_err(|source| self.unusable(source))?,
            size: ByteCount(size),
            sectors_written: self.sectors_written(number)?,
        })
    }

    /// Whether nobody wrote to a file in the last moments: its times move in steps, so that a write right after another
    /// one may leave them as they are.
    pub(crate) fn is_quiet(&self, now: SystemTime) -> Result<bool, DiskError> {
        let metadata = self
            .bytes
            .file()
            .metadata()
            .map_err(|source| self.unusable(source))?;
        if metadata.file_type().is_block_device() {
            return Ok(true);
        }
        let seconds = u64::try_from(metadata.mtime().max(metadata.ctime())).unwrap_or(0);
        let since = now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // A time that is yet to come is another machine's clock, and says nothing.
        Ok(since.is_err() || since.is_ok_and(|since| since >= QUIET))
    }

    fn sectors_written(&self, number: u64) -> Result<u64, DiskError> {
        let statistics = format!("/sys/dev/block/{}:{}/stat", major(number), minor(number));
        let text = fs::read_to_string(&statistics).unwrap_or_default();
        let field = text.split_whitespace().nth(SECTORS_WRITTEN);
        field
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| DiskError::Statistics {
                path: self.path.clone(),
                statistics: statistics.into(),
            })
    }

    /// All of it, in order: what the file system says to be a hole is zero.
    pub(crate) fn extents(&self) -> Result<Vec<StatedExtent>, DiskError> {
        let mut extents = Vec::new();
        let mut at = 0;
        // Devices and some file systems know nothing of holes.
        if let Err(Errno::INVAL) = seek(self.bytes.file(), SeekFrom::Data(0)) {
            extents.extend(stated(0, self.size.0, StateOfBytes::Data));
            return Ok(extents);
        }
        while at < self.size.0 {
            let data = self
                .seek(SeekFrom::Data(at))?
                .unwrap_or(self.size.0)
                .min(self.size.0);
            extents.extend(stated(at, data, StateOfBytes::Zero));
            let hole = self
                .seek(SeekFrom::Hole(data))?
                .unwrap_or(self.size.0)
                .min(self.size.0);
            extents.extend(stated(data, hole, StateOfBytes::Data));
            at = hole.max(data);
        }
        Ok(extents)
    }

    /// `None` where there is nothing of the kind any more.
    fn seek(&self, to: SeekFrom) -> Result<Option<u64>, DiskError> {
        match seek(self.bytes.file(), to) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(self.unusable(error.into())),
        }
    }

    /// The bytes of `extent`.
    pub(crate) async fn read(&self, extent: Extent) -> io::Result<Bytes> {
        self.bytes.read_beside(extent).await
    }

    fn unusable(&self, source: io::Error) -> DiskError {
        DiskError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn stated(start: u64, end: u64, state: StateOfBytes) -> Option<StatedExtent> {
    let extent = Extent::new(ByteOffset(start), ByteCount(end.checked_sub(start)?))?;
    Some(StatedExtent { extent, state })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt, process::Command};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn sparse(directory: &Path) -> (PathBuf, File) {
        let path = directory.join("disk.raw");
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&path)
            .unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[7; 65536], 2 * MIB).unwrap();
        (path, file)
    }

    #[test]
    fn holes_are_zero_and_all_of_the_disk_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = sparse(directory.path());
        let disk = RawDisk::open(&path).unwrap();
        let mut through = 0;
        let mut data = 0;
        for stated in disk.extents().unwrap() {
            assert_eq!(stated.extent.start().0, through);
            through = stated.extent.end().0;
            let bytes = disk.bytes.read(stated.extent).unwrap();
            match stated.state {
                StateOfBytes::Zero => assert!(bytes.iter().all(|byte| *byte == 0)),
                StateOfBytes::Data => data += stated.extent.length().0,
            }
        }
        assert_eq!(through, 8 * MIB);
        assert!(
            (65536..4 * MIB).contains(&data),
            "{data} bytes are said to be data"
        );
    }

    #[test]
    fn a_write_changes_the_stamp_and_a_read_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = sparse(directory.path());
        let disk = RawDisk::open(&path).unwrap();
        let before = disk.stamp().unwrap();
        let _ = disk
            .bytes
            .read(Extent::new(ByteOffset(0), ByteCount(4096)).unwrap())
            .unwrap();
        assert_eq!(disk.stamp().unwrap(), before);
        while disk.stamp().unwrap() == before {
            // The file system's clock moves in steps of some milliseconds.
            file.write_all_at(&[8; 512], 0).unwrap();
        }
    }

    #[test]
    fn what_is_no_disk_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("odd");
        fs::write(&odd, [1; 1000]).unwrap();
        let empty = directory.path().join("empty");
        fs::write(&empty, []).unwrap();
        let words = |path: &Path| RawDisk::open(path).unwrap_err().to_string();
        assert!(words(&odd).contains("multiple of 512"));
        assert!(words(&empty).contains("not 0"));
        assert!(words(directory.path()).contains("neither a regular file nor"));
        assert!(words(&directory.path().join("none")).contains("cannot be used"));
    }

    #[test]
    fn a_block_device_is_a_disk_and_its_writes_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = sparse(directory.path());
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let device = run("losetup", &["--find", "--show", path.to_str().unwrap()]);
        let disk = RawDisk::open(Path::new(&device)).unwrap();
        assert_eq!(disk.size(), ByteCount(8 * MIB));
        let all: u64 = disk
            .extents()
            .unwrap()
            .iter()
            .map(|stated| stated.extent.length().0)
            .sum();
        assert_eq!(all, 8 * MIB);
        let before = disk.stamp().unwrap();
        let writer = File::options().write(true).open(&device).unwrap();
        writer.write_all_at(&[5; 4096], MIB).unwrap();
        writer.sync_all().unwrap();
        let after = disk.stamp().unwrap();
        let read = disk
            .bytes
            .read(Extent::new(ByteOffset(MIB), ByteCount(4096)).unwrap())
            .unwrap();
        drop((disk, writer));
        run("losetup", &["--detach", &device]);
        assert_ne!(before, after);
        assert!(read.iter().all(|byte| *byte == 5));
    }
}

//! Scratch files: where a capture's filter keeps what the guest overwrites while the capture is read.
//!
//! A file is sparse, as long as the disk, and unlinked as soon as QEMU has it open. It stays with its node between
//! captures, empty. If this process dies, its space is given back with the node, and a crash leaves at most an empty
//! file with a name, which the next attachment sweeps away.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use farshore_blocks::{ByteCount, Extent, VolumeIndex};
use farshore_provider::SourceError;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::fs;
use uuid::Uuid;

const FILE_PREFIX: &str = "scratch-";
const IMAGE_PREFIX: &str = "image-";

/// The directory of one VM's scratch files and of its NBD socket.
#[derive(Debug, Clone)]
pub(crate) struct ScratchDirectory {
    path: PathBuf,
}

impl ScratchDirectory {
    /// The directory with this path; QEMU may run elsewhere, so that it becomes absolute.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where QEMU listens for the readers of captures.
    pub(crate) fn nbd_socket(&self) -> PathBuf {
        self.path.join("nbd.sock")
    }

    /// Where the process listens that serves a disk's image, with the name of its export.
    pub(crate) fn image_socket(&self, index: VolumeIndex, export: &str) -> PathBuf {
        self.path.join(format!("{IMAGE_PREFIX}{index}-{export}"))
    }

    /// The sockets of such processes that are still there, and their exports' names.
    pub(crate) async fn image_sockets(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let Ok(mut entries) = fs::read_dir(&self.path).await else {
            return found;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name
                .strip_prefix(IMAGE_PREFIX)
                .and_then(|rest| rest.split_once('-'));
            found.extend(rest.map(|(_, export)| (entry.path(), export.to_owned())));
        }
        found
    }

    /// Creates the directory, and removes files that a crash left in it.
    pub(crate) async fn sweep(&self) -> Result<(), SourceError> {
        let failed = |source| self.error(&self.path, source);
        fs::create_dir_all(&self.path).await.map_err(failed)?;
        let mut entries = fs::read_dir(&self.path).await.map_err(failed)?;
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            if entry.file_name().to_string_lossy().starts_with(FILE_PREFIX) {
                let path = entry.path();
                fs::remove_file(&path)
                    .await
                    .map_err(|source| self.error(&path, source))?;
            }
        }
        Ok(())
    }

    /// A new sparse file of this size.
    pub(crate) fn create(&self, index: VolumeIndex, size: ByteCount) -> Result<ScratchFile, SourceError> {
        let path = self
            .path
            .join(format!("{FILE_PREFIX}{index}-{}", Uuid::new_v4().simple()));
        let create = || {
            let file = File::create_new(&path)?;
            file.set_len(size.0)?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(ScratchFile {
                kept: KeptScratch { file, size },
                path,
            }),
            Err(source) => Err(self.error(&path, source)),
        }
    }

    /// Creates the directory and a file in it, which goes at once.
    pub(crate) async fn prove_writable(&self) -> Result<(), SourceError> {
        fs::create_dir_all(&self.path)
            .await
            .map_err(|source| self.error(&self.path, source))?;
        self.create(VolumeIndex(0), ByteCount(0)).map(drop)
    }

    /// Leaves a mark that the guest may be frozen from now on.
    pub(crate) fn mark_freezing(&self) -> Result<(), SourceError> {
        let mark = self.freezing_mark();
        File::create(&mark)
            .map(drop)
            .map_err(|source| self.error(&mark, source))
    }

    /// Whether the mark is there.
    pub(crate) fn is_marked_freezing(&self) -> bool {
        self.freezing_mark().exists()
    }

    /// Takes the mark away.
    pub(crate) fn unmark_freezing(&self) {
        // If it stays, the guest is asked once more.
        drop(std::fs::remove_file(self.freezing_mark()));
    }

    fn freezing_mark(&self) -> PathBuf {
        self.path.join("freezing")
    }

    /// Takes room that nobody else can take until it is dropped.
    pub(crate) fn spare(&self, bytes: ByteCount) -> Result<Spare, SourceError> {
        let path = self
            .path
            .join(format!("{FILE_PREFIX}spare-{}", Uuid::new_v4().simple()));
        let take = || {
            let file = File::create_new(&path)?;
            std::fs::remove_file(&path)?;
            fallocate(&file, FallocateFlags::empty(), 0, bytes.0)?;
            Ok(Spare { _file: file })
        };
        take().map_err(|source| self.error(&path, source))
    }

    /// Leaves a mark that the guest may stand still by our `stop` from now on.
    pub(crate) fn mark_stopping(&self) -> Result<(), SourceError> {
        let mark = self.stopping_mark();
        File::create(&mark)
            .map(drop)
            .map_err(|source| self.error(&mark, source))
    }

    /// Whether the mark is there.
    pub(crate) fn is_marked_stopping(&self) -> bool {
        self.stopping_mark().exists()
    }

    /// Takes the mark away.
    pub(crate) fn unmark_stopping(&self) {
        // If it stays, the guest is looked at once more.
        drop(std::fs::remove_file(self.stopping_mark()));
    }

    /// Where the mark is.
    pub(crate) fn stopping_mark(&self) -> PathBuf {
        self.path.join("stopping")
    }

    /// How much room there is.
    pub(crate) fn room(&self) -> Result<ByteCount, SourceError> {
        let status = statvfs(&self.path).map_err(|errno| self.error(&self.path, errno.into()))?;
        Ok(ByteCount(status.f_bavail.saturating_mul(status.f_frsize)))
    }

    /// Something with a file in it failed.
    pub(crate) fn failed(&self, source: io::Error) -> SourceError {
        self.error(&self.path, source)
    }

    fn error(&self, path: &Path, source: io::Error) -> SourceError {
        SourceError::Scratch {
            path: path.to_owned(),
            source,
        }
    }
}

/// A scratch file that still has a name; it loses it when this is dropped.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    kept: KeptScratch,
    path: PathBuf,
}

impl ScratchFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes its name away; QEMU has it open.
    pub(crate) fn unlink(self) -> Result<KeptScratch, SourceError> {
        match self.kept.file.try_clone() {
            Ok(file) => Ok(KeptScratch {
                file,
                size: self.kept.size,
            }),
            Err(source) => Err(SourceError::Scratch {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // One unlink; if it fails, the next attachment sweeps the file away.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Room in scratch space, held by a file without a name.
#[derive(Debug)]
pub(crate) struct Spare {
    _file: File,
}

/// A scratch file without a name, as long as its node is there.
#[derive(Debug)]
pub(crate) struct KeptScratch {
    file: File,
    size: ByteCount,
}

impl KeptScratch {
    pub(crate) fn size(&self) -> ByteCount {
        self.size
    }

    /// Takes the room of this extent, so that writing it cannot fail for want of space.
    pub(crate) fn take_room(&self, extent: Extent) -> io::Result<()> {
        let (start, length) = (extent.start().0, extent.length().0);
        Ok(fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, length)?)
    }

    /// The file, to read what it holds.
    pub(crate) fn reader(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives its space back. No filter may use it.
    pub(crate) fn empty(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.set_len(self.size.0)
    }
}

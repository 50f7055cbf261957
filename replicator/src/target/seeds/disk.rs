//! One seed: a regular file or a block device that is read where a source asks.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, FileTypeExt},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use farshore_blocks::{BlockHash, ByteCount, Extent};
use rustix::fs::{SeekFrom, seek};

/// Why a seed cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    #[error("seed {path} cannot be read")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("seed {path} is neither a regular file nor a block device")]
    NotADisk { path: PathBuf },
    #[error("seed {path} is empty")]
    Empty { path: PathBuf },
}

/// A seed, open for reading.
#[derive(Debug)]
pub(crate) struct SeedDisk {
    path: PathBuf,
    file: File,
    size: ByteCount,
}

impl SeedDisk {
    pub(crate) fn open(path: &Path) -> Result<Self, SeedError> {
        let unusable = |source| SeedError::Io {
            path: path.to_owned(),
            source,
        };
        // Looked at first: opening a pipe would wait for whoever writes to it.
        let kind = fs::metadata(path).map_err(unusable)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(SeedError::NotADisk {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(unusable)?;
        let size = ByteCount(seek(&file, SeekFrom::End(0)).map_err(|error| unusable(error.into()))?);
        if size.0 == 0 {
            return Err(SeedError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// As it was when it was opened.
    pub(crate) fn size(&self) -> ByteCount {
        self.size
    }

    /// The bytes of `extent`; an error where it does not have all of them.
    pub(crate) fn read(&self, extent: Extent) -> io::Result<Bytes> {
        let length = usize::try_from(extent.length().0).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::zeroed(length);
        self.file.read_exact_at(&mut bytes, extent.start().0)?;
        Ok(bytes.freeze())
    }

    /// What its bytes of `block` hash to now.
    pub(crate) fn hash(&self, block: Extent) -> BlockHash {
        match self.read(block) {
            Ok(bytes) => BlockHash::of(&bytes),
            Err(_) => BlockHash::Unreadable,
        }
    }
}

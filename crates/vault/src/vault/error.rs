//! Why a vault, or a chain of it, cannot be had.

use std::{io, path::PathBuf};

use farshore_blocks::ChainId;

use crate::{damage::FileError, records::ChainDescription, storage::StorageError};

/// Why a vault, or a chain of it, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file is damaged or out of reach.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory is no vault.
    #[error("`{}` is not a vault: it has no file `head`", path.display())]
    NotAVault {
        /// Which directory.
        path: PathBuf,
    },
    /// A vault was to be created where something else is.
    #[error("`{}` is not empty: a vault is created only in an empty or new directory", path.display())]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
    },
    /// Another process, or another handle, has the vault open for writing.
    #[error("`{}` is open for writing elsewhere{}: one writer at a time is accepted", path.display(), by(.process.as_ref()))]
    Locked {
        /// Which directory.
        path: PathBuf,
        /// By which process, if it said so.
        process: Option<u32>,
    },
    /// The vault has no such chain.
    #[error("the vault has no chain {0}")]
    UnknownChain(ChainId),
    /// The chain exists with another description.
    #[error("chain {chain} exists and protects other volumes or another VM (`{}`)", existing.vm)]
    ChainDiffers {
        /// Which chain.
        chain: ChainId,
        /// What it protects.
        existing: Box<ChainDescription>,
    },
    /// The description cannot be that of a chain.
    #[error("a chain needs 1 to 1024 volumes, each with a size and a name that no other has")]
    DescriptionRefused,
    /// The chain has a writer already.
    #[error("chain {0} is being written already: one writer at a time is accepted")]
    WriterTaken(ChainId),
    /// The system gave no randomness.
    #[error("the system has no randomness for a new identity")]
    Randomness(#[source] io::Error),
}

fn by(process: Option<&u32>) -> String {
    process
        .map(|process| format!(" (process {process})"))
        .unwrap_or_default()
}

impl From<StorageError> for VaultError {
    fn from(error: StorageError) -> Self {
        Self::File(error.into())
    }
}

//! Reading a vault: its chains, its points, and any byte of any point, while it is being written elsewhere.
//!
//! A reader takes no lock of the writer's and changes nothing that a writer made. What it says that it reads (a
//! lease) keeps the writer from removing it meanwhile.

mod allocation;
mod cache;
mod homes;
mod lease;
mod point;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, Epoch, Incarnation, Sequence, VolumeIndex, clock::WallTime,
};

pub use allocation::Allocation;
pub(crate) use homes::{Home, Homes};
pub(crate) use lease::{Lease, leased};
pub use point::{HashSource, PointReader};

use crate::{
    damage::FileError,
    format::{Head, Identity},
    journal::Follower,
    layout::VaultLayout,
    records::{ChainDescription, Gap, Pin, PointRecord},
    retention::RetentionPolicy,
    state::{ChainState, VaultState},
    storage::{LocalStorage, Storage, StorageError},
    vault::{VaultError, read_head},
};

/// How often a point is opened whose files were replaced meanwhile.
const ATTEMPTS_TO_OPEN: u32 = 16;

/// A vault, open for reading. Clones share what they have read of the journal.
#[derive(Debug, Clone)]
pub struct VaultReader {
    layout: VaultLayout,
    head: Head,
    follower: Arc<Mutex<Follower>>,
}

/// Why a point, or bytes of it, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The vault or the chain cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The chain has no such point.
    #[error("chain {chain} has no point {point}; its newest is {newest}")]
    UnknownPoint {
        /// Which chain.
        chain: ChainId,
        /// Which point.
        point: Sequence,
        /// The newest; 0 if there is none.
        newest: Sequence,
    },
    /// The point has no such volume.
    #[error("volume {volume} is not there: the point has {volumes}, counted from 0")]
    UnknownVolume {
        /// Which volume.
        volume: VolumeIndex,
        /// How many there are.
        volumes: usize,
    },
    /// The bytes lie beyond the end of the volume.
    #[error("{length} at {offset} of volume {volume} are not there: it has {size}")]
    OutOfBounds {
        /// Which volume.
        volume: VolumeIndex,
        /// Where the bytes begin.
        offset: ByteOffset,
        /// How many they are.
        length: ByteCount,
        /// How large the volume is.
        size: ByteCount,
    },
    /// The index of a point is damaged or out of reach.
    #[error("the index of point {point} cannot be used")]
    Index {
        /// Whose index it is.
        point: Sequence,
        /// What is wrong.
        #[source]
        source: FileError,
    },
    /// The bytes are damaged or out of reach.
    #[error("volume {volume} of point {point} cannot be read at {offset}")]
    Unreadable {
        /// Which point was being read.
        point: Sequence,
        /// Which volume.
        volume: VolumeIndex,
        /// The first byte that cannot be read.
        offset: ByteOffset,
        /// What is wrong.
        #[source]
        source: FileError,
    },
}

impl VaultReader {
    /// Opens a vault for reading.
    ///
    /// # Errors
    /// When it is no vault, or its head or journal is damaged.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let layout = VaultLayout::new(path);
        let head = read_head(&layout)?;
        Self::new(layout, head)
    }

    pub(crate) fn new(layout: VaultLayout, head: Head) -> Result<Self, VaultError> {
        let follower = Arc::new(Mutex::new(Follower::open(&layout, head.vault)?));
        Ok(Self {
            layout,
            head,
            follower,
        })
    }

    /// The random identity of this vault's life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.head.incarnation
    }

    /// Whether the vault's files were copied or restored, and no writer has opened them since.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn is_a_copy(&self) -> Result<bool, VaultError> {
        let path = self.layout.head();
        let found = LocalStorage.identity_of(&path);
        let found = found.map_err(|error| StorageError::new("ask the identity of", &path, error))?;
        Ok(found != self.head.file)
    }

    /// All chains and what they protect.
    ///
    /// # Errors
    /// When the journal is damaged.
    pub fn chains(&self) -> Result<Vec<(ChainId, ChainDescription)>, VaultError> {
        self.with_vault(|state| {
            let chains = state.chains();
            chains
                .map(|(chain, state)| (chain, (*state.description()).clone()))
                .collect()
        })
    }

    /// What a chain protects, as its newest point has it.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn description(&self, chain: ChainId) -> Result<ChainDescription, VaultError> {
        self.with_chain(chain, |state| (*state.description()).clone())
    }

    /// What a chain protected at one of its points.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn description_at(&self, chain: ChainId, point: Sequence) -> Result<ChainDescription, VaultError> {
        self.with_chain(chain, |state| (**state.descriptions.at(point)).clone())
    }

    /// The chain's newest epoch, if one was ever granted.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn current_epoch(&self, chain: ChainId) -> Result<Option<Epoch>, VaultError> {
        self.with_chain(chain, |state| state.epoch)
    }

    /// The chain's retained points, oldest first: those that are durable and proven, and no other.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn points(&self, chain: ChainId) -> Result<Vec<PointRecord>, VaultError> {
        self.with_chain(chain, |state| {
            state.points().map(|point| (**point).clone()).collect()
        })
    }

    /// The chain's dropped points, as the gaps between those that are retained.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn gaps(&self, chain: ChainId) -> Result<Vec<Gap>, VaultError> {
        self.with_chain(chain, |state| state.gaps().copied().collect())
    }

    /// Which points are pinned or locked.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn pins(&self, chain: ChainId) -> Result<Vec<(Sequence, Pin)>, VaultError> {
        self.with_chain(chain, |state| {
            state.pins.iter().map(|(point, pin)| (*point, *pin)).collect()
        })
    }

    /// Which points the chain keeps, if that was ever said.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn retention(&self, chain: ChainId) -> Result<Option<RetentionPolicy>, VaultError> {
        self.with_chain(chain, |state| state.retention.clone())
    }

    /// When the newest point was last known to be what the source held, by the vault's clock.
    ///
    /// # Errors
    /// When there is no such chain, or the journal is damaged.
    pub fn still_valid(&self, chain: ChainId) -> Result<Option<WallTime>, VaultError> {
        self.with_chain(chain, |state| state.still_valid)
    }

    /// Opens a point for reading at any offset.
    ///
    /// # Errors
    /// When there is no such point, or its index is damaged.
    pub fn open_point(&self, chain: ChainId, point: Sequence) -> Result<PointReader, ReadError> {
        let mut attempts = 1..ATTEMPTS_TO_OPEN;
        loop {
            match self.try_to_open(chain, point) {
                // A merge replaced a run, or a compaction a segment, after the journal was looked at.
                Err(ReadError::Index {
                    source: FileError::Storage(error),
                    ..
                }) if error.source.kind() == io::ErrorKind::NotFound && attempts.next().is_some() => {}
                other => return other,
            }
        }
    }

    fn try_to_open(&self, chain: ChainId, point: Sequence) -> Result<PointReader, ReadError> {
        // The point must still be there once the lease says that it is being read.
        self.find_point(chain, point)?;
        let lease = Lease::take(&self.layout.chain(chain), point);
        let (state, record) = self.find_point(chain, point)?;
        PointReader::open(self.clone(), self.identity(chain), &state, record, lease)
    }

    fn find_point(
        &self,
        chain: ChainId,
        point: Sequence,
    ) -> Result<(ChainState, Arc<PointRecord>), ReadError> {
        let state = self.with_chain(chain, ChainState::clone)?;
        let newest = state.newest_sequence();
        match state.point(point).cloned() {
            Some(record) => Ok((state, record)),
            None => Err(ReadError::UnknownPoint { chain, point, newest }),
        }
    }

    pub(crate) fn layout(&self) -> &VaultLayout {
        &self.layout
    }

    pub(crate) fn identity(&self, chain: ChainId) -> Identity {
        Identity {
            vault: self.head.vault,
            chain,
        }
    }

    /// Looks at a chain as it is now.
    pub(crate) fn with_chain<T>(
        &self,
        chain: ChainId,
        look: impl FnOnce(&ChainState) -> T,
    ) -> Result<T, VaultError> {
        let found = self.with_vault(|state| state.chain(chain).map(look))?;
        found.ok_or(VaultError::UnknownChain(chain))
    }

    fn with_vault<T>(&self, look: impl FnOnce(&VaultState) -> T) -> Result<T, VaultError> {
        Ok(look(self.follower().refresh()?))
    }

    pub(crate) fn follower(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

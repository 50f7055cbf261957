//! Reading a vault: its chains, its points, and any byte of any point, while it is being written elsewhere.
//!
//! A reader takes no lock and changes nothing. It sees a point once the `open` record of its cycle is gone, which
//! is after the point is durable.

mod point;
mod recent;

use std::{fs, io, path::Path};

use farshore_blocks::{ByteCount, ByteOffset, ChainId, Epoch, Incarnation, Sequence, VolumeIndex};

pub use point::{Allocation, PointReader};

use crate::{
    damage::{FileError, read_record},
    format::{Head, Identity, RecordKind},
    layout::VaultLayout,
    log::{PointsLog, Standing},
    records::{ChainDescription, OpenCycle, PointRecord},
    storage::StorageError,
    vault::{VaultError, read_head},
};

/// How often a chain's log and `open` record are read again because they changed in between.
const ATTEMPTS_TO_SEE_A_CONSISTENT_CHAIN: u32 = 32;

/// A vault, open for reading.
#[derive(Debug, Clone)]
pub struct VaultReader {
    layout: VaultLayout,
    head: Head,
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
    /// The index of a point on which this one is built is damaged or out of reach.
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
    /// When it is no vault or its head is damaged.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let layout = VaultLayout::new(path);
        let head = read_head(&layout)?;
        Ok(Self { layout, head })
    }

    pub(crate) fn new(layout: VaultLayout, head: Head) -> Self {
        Self { layout, head }
    }

    /// The random identity of this vault's life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.head.incarnation
    }

    /// All chains and what they protect.
    ///
    /// # Errors
    /// When a description is damaged or the directory cannot be read.
    pub fn chains(&self) -> Result<Vec<(ChainId, ChainDescription)>, VaultError> {
        list_chains(&self.layout, self.incarnation())
    }

    /// What a chain protects.
    ///
    /// # Errors
    /// When there is no such chain, or its description is damaged.
    pub fn description(&self, chain: ChainId) -> Result<ChainDescription, VaultError> {
        let path = self.layout.chain(chain).description();
        read_record(&path, RecordKind::Description, self.identity(chain))?
            .ok_or(VaultError::UnknownChain(chain))
    }

    /// The chain's newest epoch, if one was ever granted.
    ///
    /// # Errors
    /// When its record is damaged.
    pub fn current_epoch(&self, chain: ChainId) -> Result<Option<Epoch>, VaultError> {
        let path = self.layout.chain(chain).epoch();
        Ok(read_record(&path, RecordKind::Epoch, self.identity(chain))?)
    }

    /// The chain's points, oldest first: those that are durable and confirmed, and no other.
    ///
    /// # Errors
    /// When there is no such chain, or its log is damaged.
    pub fn points(&self, chain: ChainId) -> Result<Vec<PointRecord>, VaultError> {
        self.description(chain)?;
        let layout = self.layout.chain(chain);
        let identity = self.identity(chain);
        let mut attempt = 0;
        loop {
            // In this order: a point whose cycle is over by the time that `open` is read was durable before.
            let mut log = PointsLog::read(&layout.points(), identity)?;
            let open: Option<OpenCycle> = read_record(&layout.open(), RecordKind::Open, identity)?;
            match log.standing(open.map(|open| open.sequence)) {
                Some(Standing::Idle | Standing::Building | Standing::SealTorn) => return Ok(log.points),
                Some(Standing::SealUnconfirmed) => {
                    log.points.pop();
                    return Ok(log.points);
                }
                None if attempt < ATTEMPTS_TO_SEE_A_CONSISTENT_CHAIN => attempt += 1,
                None => return Err(log.contradiction(&layout.points()).into()),
            }
        }
    }

    /// Opens a point for reading at any offset.
    ///
    /// # Errors
    /// When there is no such point, or its index is damaged.
    pub fn open_point(&self, chain: ChainId, point: Sequence) -> Result<PointReader, ReadError> {
        let description = self.description(chain)?;
        let mut points = self.points(chain)?;
        let newest = points.last().map_or(Sequence(0), |point| point.sequence);
        points.retain(|record| record.sequence <= point);
        if points.last().is_none_or(|record| record.sequence != point) {
            return Err(ReadError::UnknownPoint { chain, point, newest });
        }
        PointReader::open(
            self.layout.chain(chain),
            self.identity(chain),
            description,
            points,
        )
    }

    fn identity(&self, chain: ChainId) -> Identity {
        Identity {
            incarnation: self.incarnation(),
            chain,
        }
    }
}

pub(crate) fn list_chains(
    layout: &VaultLayout,
    incarnation: Incarnation,
) -> Result<Vec<(ChainId, ChainDescription)>, VaultError> {
    let directory = layout.chains();
    let failed = |error| StorageError::new("list", &directory, error);
    let mut chains = Vec::new();
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(chains),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let Some(chain) = name.to_str().and_then(|name| name.parse::<ChainId>().ok()) else {
            continue;
        };
        let identity = Identity { incarnation, chain };
        let path = layout.chain(chain).description();
        // Without a description the chain's creation did not end.
        if let Some(description) = read_record(&path, RecordKind::Description, identity)? {
            chains.push((chain, description));
        }
    }
    chains.sort_by_key(|(chain, _)| *chain);
    Ok(chains)
}

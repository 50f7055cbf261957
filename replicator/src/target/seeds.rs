//! Older copies of a chain's volumes at this site, by the volumes' names: while nothing is sealed yet, a source is told of them, and
//! what it finds to be the same in them does not travel.
//!
//! They are only ever read, and nothing of them is believed: what is taken from one is checked by the source's digest of it.

mod checks;
mod disk;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use farshore_blocks::{ChainId, VolumeIndex};
use farshore_proto::v1;
use serde::{Deserialize, Serialize};

use super::{Targets, TargetsError};
use crate::{
    chain_files::{ChainFileError, ChainFiles},
    source::chain as with_causes,
};
pub(crate) use checks::check;
pub(super) use disk::SeedDisk;

/// Where the seeds of one chain are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ChainSeeds {
    /// By the names of their volumes.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
}

/// What was told of seeds, in `<state directory>/seeds/`; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Seeds {
    files: ChainFiles<ChainSeeds>,
}

/// The seeds of one chain that can be read now.
#[derive(Debug, Default)]
pub(super) struct OpenSeeds {
    disks: BTreeMap<VolumeIndex, SeedDisk>,
}

impl Seeds {
    pub(super) fn open(state_directory: &Path) -> Result<Self, ChainFileError> {
        let files = ChainFiles::open(state_directory.join("seeds"))?;
        Ok(Self { files })
    }

    pub(super) fn forget(&self, chain: ChainId) -> Result<(), ChainFileError> {
        self.files.forget(chain)
    }
}

impl Targets {
    /// Keeps the seeds of `chain`, also over a restart, until a point is sealed. A chain that has a point takes none.
    pub(crate) fn keep_seeds(&self, chain: ChainId, seeds: &ChainSeeds) -> Result<(), TargetsError> {
        if seeds.volumes.is_empty() || self.newest(chain).is_some() {
            return self.forget_seeds(chain);
        }
        Ok(self.seeds.files.keep(chain, seeds)?)
    }

    /// No seeds of `chain` are used any more.
    pub(crate) fn forget_seeds(&self, chain: ChainId) -> Result<(), TargetsError> {
        Ok(self.seeds.forget(chain)?)
    }

    /// Opens what seeds of `chain` there are while it has no point. One that cannot be opened is told in the log, and is as if
    /// there were none.
    pub(super) fn open_seeds(&self, chain: ChainId) -> Result<OpenSeeds, TargetsError> {
        if self.newest(chain).is_some() {
            return Ok(OpenSeeds::default());
        }
        let Some(kept) = self.seeds.files.load_one(chain)? else {
            return Ok(OpenSeeds::default());
        };
        let description = self.reader.description(chain)?;
        let mut open = OpenSeeds::default();
        for (index, volume) in (0..).map(VolumeIndex).zip(&description.volumes) {
            let Some(path) = kept.volumes.get(&volume.name) else {
                continue;
            };
            match SeedDisk::open(path) {
                Ok(disk) => {
                    open.disks.insert(index, disk);
                }
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(%chain, volume = volume.name, error, "a seed is not used");
                }
            }
        }
        Ok(open)
    }
}

impl OpenSeeds {
    pub(super) fn of(&self, volume: VolumeIndex) -> Option<&SeedDisk> {
        self.disks.get(&volume)
    }

    /// As a source is told of them.
    pub(super) fn told(&self) -> Vec<v1::Seed> {
        let disks = self.disks.iter();
        disks
            .map(|(volume, disk)| v1::Seed {
                volume: volume.0,
                size_bytes: disk.size().0,
            })
            .collect()
    }
}

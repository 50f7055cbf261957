//! Volumes that grow, come and go: which ones the point that comes next has.
//!
//! Crash story: the journal says it before the first byte that needs it is written. A cycle that is given up, or never
//! begun, leaves it said; whoever begins the next cycle says it again, and what was said of a point that does not exist
//! counts no longer.

use std::{collections::BTreeSet, sync::Arc};

use farshore_blocks::{ByteCount, Epoch, VolumeIndex};

use super::{ChainWriter, WriterBroken};
use crate::{
    edit::{ChainEdit, Edit},
    fence::WrongEpoch,
    journal::CommitError,
    records::{ChainDescription, MOST_VOLUMES, VolumeDescription},
    storage::StorageError,
};

/// Why the next point cannot have these volumes.
#[derive(Debug, thiserror::Error)]
pub enum VolumesRefused {
    /// It is fenced.
    #[error(transparent)]
    WrongEpoch(#[from] WrongEpoch),
    /// A volume's place is its identity, so that each must be named, those that are not there any more with size 0.
    #[error("volume {volume} must be named `{known}`, not `{given}`: a volume keeps its place for ever")]
    OtherName {
        /// Which volume.
        volume: VolumeIndex,
        /// Its name.
        known: String,
        /// What it was called.
        given: String,
    },
    /// Some are missing, there are too many, or two that are there have one name.
    #[error(
        "{given} volumes are refused: all of the chain's {known} in their order, and behind them new ones, up to \
        {MOST_VOLUMES} in all, each with a name that no other has, are accepted"
    )]
    Count {
        /// How many were named.
        given: usize,
        /// How many the chain has had.
        known: usize,
    },
    /// A volume would lose bytes that a point has.
    #[error("volume {volume} has {has} and would have {given}: a volume may grow, but not shrink")]
    Shrinks {
        /// Which volume.
        volume: VolumeIndex,
        /// How large it is.
        has: ByteCount,
        /// How large it would be.
        given: ByteCount,
    },
    /// A volume that went away does not come back: another of the same name gets a place of its own.
    #[error("volume {0} went away and does not come back: a new one is accepted behind the others")]
    Gone(VolumeIndex),
    /// A volume cannot go away under a cycle that may hold bytes of it.
    #[error("volume {0} cannot go away while a cycle is open: abandon it first")]
    CycleOpen(VolumeIndex),
    /// The writer must be opened again.
    #[error(transparent)]
    Broken(#[from] WriterBroken),
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ChainWriter {
    /// The volumes that the point that comes next has, in the order of their indices.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeDescription] {
        &self.volumes.volumes
    }

    /// The same of the newest point; while there is none, of the first.
    #[must_use]
    pub fn volumes_of_newest(&self) -> Vec<VolumeDescription> {
        self.tenure.chain.state().description().volumes.clone()
    }

    /// From the point that comes next on, the chain has these volumes: those that it has had in their order, larger than
    /// before or, with size 0, gone, and behind them new ones. Durable when this returns. An open cycle goes on with them.
    ///
    /// # Errors
    /// When the epoch is not the chain's, a volume would be another, shrink or come back, or the file system fails.
    pub fn set_volumes(&mut self, epoch: Epoch, volumes: &[VolumeDescription]) -> Result<(), VolumesRefused> {
        let chain = Arc::clone(&self.tenure.chain);
        let _admitted = chain.fence.admit(epoch)?;
        self.check_sound()?;
        if self.volumes.volumes == volumes {
            return Ok(());
        }
        let sealed = chain.newest().map(|_| chain.state().description());
        check_places(&self.volumes.volumes, volumes)?;
        check_sizes(
            (sealed.as_deref(), self.cycle.as_ref().map(|_| &*self.volumes)),
            volumes,
        )?;
        let from = self
            .newest
            .as_ref()
            .map(|newest| newest.sequence)
            .unwrap_or_default();
        let edit = ChainEdit::VolumesSet {
            from: from.next(),
            volumes: volumes.to_vec(),
        };
        let committed = chain
            .committer
            .commit(vec![Edit::from((chain.identity.chain, edit))]);
        if committed.as_ref().err().is_none_or(CommitError::happened) {
            self.volumes = Arc::clone(chain.state().descriptions.latest());
            if let Some(cycle) = self.cycle.as_mut() {
                cycle.know_volumes(volumes.len());
            }
        }
        Ok(committed.map_err(StorageError::from)?)
    }
}

fn check_places(known: &[VolumeDescription], given: &[VolumeDescription]) -> Result<(), VolumesRefused> {
    for ((known, given), volume) in known.iter().zip(given).zip(0..) {
        if known.name != given.name {
            return Err(VolumesRefused::OtherName {
                volume: VolumeIndex(volume),
                known: known.name.clone(),
                given: given.name.clone(),
            });
        }
    }
    let there = || given.iter().filter(|volume| volume.is_there());
    let names: BTreeSet<_> = there().map(|volume| &volume.name).collect();
    let named = given.iter().all(|volume| !volume.name.is_empty());
    let counts = known.len() <= given.len() && given.len() <= MOST_VOLUMES;
    if named && counts && names.len() == there().count() && !names.is_empty() {
        return Ok(());
    }
    Err(VolumesRefused::Count {
        given: given.len(),
        known: known.len(),
    })
}

/// Nothing of the newest point may be cut off, nor of a cycle that is open. What was said of a point that never came
/// to be binds nobody.
fn check_sizes(
    (sealed, open): (Option<&ChainDescription>, Option<&ChainDescription>),
    given: &[VolumeDescription],
) -> Result<(), VolumesRefused> {
    for (place, given) in given.iter().enumerate() {
        let volume = VolumeIndex(u32::try_from(place).unwrap_or(u32::MAX));
        let size_in = |description: Option<&ChainDescription>| {
            let found = description.and_then(|description| description.volumes.get(place));
            found.map(|volume| volume.size)
        };
        let (sealed, open) = (size_in(sealed), size_in(open));
        if sealed == Some(ByteCount(0)) && given.is_there() {
            return Err(VolumesRefused::Gone(volume));
        }
        let has = if given.is_there() { sealed.max(open) } else { None };
        if let Some(has) = has.filter(|has| given.size < *has) {
            return Err(VolumesRefused::Shrinks {
                volume,
                has,
                given: given.size,
            });
        }
        if !given.is_there() && open.is_some_and(|size| size > ByteCount(0)) {
            return Err(VolumesRefused::CycleOpen(volume));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Which volumes a chain has had: they grow, come and go, and every point keeps those of its instant.
//!
//! All of it is kept: that disks change is rare, and frames of dropped points are judged by it until they are gone.

use std::{collections::BTreeMap, sync::Arc};

use farshore_blocks::Sequence;

use super::Contradiction;
use crate::records::{ChainDescription, VolumeDescription};

/// A chain's descriptions. A volume keeps its place and its name; only its size changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptions {
    /// As it was created.
    first: Arc<ChainDescription>,
    /// Each holds from its point on, until the next one does.
    changed: BTreeMap<Sequence, Arc<ChainDescription>>,
}

impl Descriptions {
    pub(super) fn new(first: ChainDescription) -> Self {
        Self {
            first: Arc::new(first),
            changed: BTreeMap::new(),
        }
    }

    /// As the chain was created.
    pub(crate) fn first(&self) -> &ChainDescription {
        &self.first
    }

    /// Of the point that comes next.
    pub(crate) fn latest(&self) -> &Arc<ChainDescription> {
        self.changed.values().next_back().unwrap_or(&self.first)
    }

    /// Of this point.
    pub(crate) fn at(&self, point: Sequence) -> &Arc<ChainDescription> {
        let changed = self.changed.range(..=point).next_back();
        changed.map_or(&self.first, |(_, description)| description)
    }

    /// What changed later, and from which point on, oldest first.
    pub(super) fn changes(&self) -> impl Iterator<Item = (Sequence, &Arc<ChainDescription>)> {
        self.changed
            .iter()
            .map(|(from, description)| (*from, description))
    }

    /// From point `from` on, which is behind `newest`, there are these volumes. What was said before of points that
    /// are not sealed counts no longer.
    pub(super) fn set(
        &mut self,
        from: Sequence,
        newest: Sequence,
        volumes: Vec<VolumeDescription>,
    ) -> Result<(), Contradiction> {
        let said = self.changed.keys().next_back();
        if from <= newest || said.is_some_and(|said| from < *said) {
            return Err(Contradiction("point from which volumes are others"));
        }
        let known = &self.latest().volumes;
        let names_stay = known
            .iter()
            .zip(&volumes)
            .all(|(known, set)| known.name == set.name);
        if volumes.len() < known.len() || !names_stay {
            return Err(Contradiction("volumes"));
        }
        let vm = self.first.vm.clone();
        self.changed
            .insert(from, Arc::new(ChainDescription { vm, volumes }));
        Ok(())
    }
}

//! The state of a vault: what the edits of its journal add up to. Pure: writers and readers apply the same edits
//! in the same order and so see the same vault.

mod chain;
mod descriptions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use farshore_blocks::{ChainId, Digest, Incarnation};

pub(crate) use chain::ChainState;
pub(crate) use descriptions::Descriptions;

use crate::edit::{ChainEdit, Edit};

/// An edit that does not fit what came before it: the journal is damaged, or was not written by this software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record does not fit those before it: its {0} cannot be right")]
pub(crate) struct Contradiction(pub(crate) &'static str);

/// A vault, as its journal tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VaultState {
    pub(crate) incarnation: Option<Incarnation>,
    machines: BTreeMap<Digest, Bytes>,
    chains: BTreeMap<ChainId, ChainState>,
}

impl VaultState {
    pub(crate) fn chain(&self, chain: ChainId) -> Option<&ChainState> {
        self.chains.get(&chain)
    }

    pub(crate) fn chains(&self) -> impl Iterator<Item = (ChainId, &ChainState)> {
        self.chains.iter().map(|(chain, state)| (*chain, state))
    }

    /// Whether a machine's specification is there for points to name.
    pub(crate) fn knows_machine(&self, digest: &Digest) -> bool {
        self.machines.contains_key(digest)
    }

    /// Takes in one edit. When it is refused, nothing has changed.
    pub(crate) fn apply(&mut self, edit: Edit) -> Result<(), Contradiction> {
        match edit {
            Edit::Generation { incarnation } => self.incarnation = Some(incarnation),
            Edit::Machine {
                digest,
                specification,
            } => {
                if Digest::of(&specification) != digest {
                    return Err(Contradiction("machine's digest"));
                }
                self.machines.insert(digest, specification);
            }
            Edit::Chain { chain, edit } => self.apply_to_chain(chain, edit)?,
        }
        Ok(())
    }

    fn apply_to_chain(&mut self, chain: ChainId, edit: ChainEdit) -> Result<(), Contradiction> {
        match &edit {
            ChainEdit::Created(description) => {
                if self.chains.contains_key(&chain) {
                    return Err(Contradiction("chain, which exists already"));
                }
                self.chains.insert(chain, ChainState::new(description.clone()));
            }
            ChainEdit::Removed => {
                self.chains.remove(&chain).ok_or(Contradiction("chain"))?;
            }
            ChainEdit::EpochGranted(_)
            | ChainEdit::Sealed { .. }
            | ChainEdit::Abandoned { .. }
            | ChainEdit::Indexed(_)
            | ChainEdit::Packed(_)
            | ChainEdit::Dropped { .. }
            | ChainEdit::Gap(_)
            | ChainEdit::PinChanged { .. }
            | ChainEdit::RetentionSet(_)
            | ChainEdit::StillValid { .. }
            | ChainEdit::Layout(_)
            | ChainEdit::VolumesSet { .. }
            | ChainEdit::Ended(_) => {
                let state = self.chains.get_mut(&chain).ok_or(Contradiction("chain"))?;
                state.apply(edit, &self.machines)?;
            }
        }
        Ok(())
    }

    /// Edits that add up to this state; the first batch of a journal.
    pub(crate) fn as_edits(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        edits.extend(
            self.incarnation
                .map(|incarnation| Edit::Generation { incarnation }),
        );
        let mut named: BTreeMap<Digest, &Bytes> = BTreeMap::new();
        for state in self.chains.values() {
            let machines = state
                .points()
                .map(|point| (Digest::of(&point.machine), &point.machine));
            named.extend(machines);
        }
        edits.extend(named.into_iter().map(|(digest, specification)| Edit::Machine {
            digest,
            specification: specification.clone(),
        }));
        for (chain, state) in &self.chains {
            edits.extend(
                state
                    .as_edits()
                    .into_iter()
                    .map(|edit| Edit::from((*chain, edit))),
            );
        }
        edits
    }
}

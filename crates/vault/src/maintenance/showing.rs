//! What of a settled index shows at a retained point at least: of a volume that went away only those points count that have it, so that
//! its space is given back with the last of them.

use farshore_blocks::{Sequence, VolumeIndex};

use crate::{
    entry::Entry,
    state::{ChainState, Descriptions},
    versions::thin,
};

/// Thins the chunks of a settled index, in key order.
#[derive(Debug)]
pub(super) struct Showing<'chain> {
    descriptions: &'chain Descriptions,
    /// Ascending.
    retained: &'chain [Sequence],
    /// The volume of the last chunk, and the retained points that have it.
    volume: Option<(VolumeIndex, Vec<Sequence>)>,
}

impl<'chain> Showing<'chain> {
    /// What shows at one of these sequences, ascending; nothing behind the last of them is thinned.
    pub(super) fn at(state: &'chain ChainState, retained: &'chain [Sequence]) -> Self {
        Self {
            descriptions: &state.descriptions,
            retained,
            volume: None,
        }
    }

    /// What of a chunk's entries shows.
    pub(super) fn thin(&mut self, chunk: &[Entry]) -> Vec<Entry> {
        let Some(volume) = chunk.first().map(|entry| entry.volume) else {
            return Vec::new();
        };
        let retained = self.points_with(volume);
        let mut kept = thin(chunk, retained);
        // Of a later point, but of none that is retained: the volume was gone by then.
        let last = retained.last().copied();
        kept.retain(|entry| last.is_some_and(|last| entry.sequence <= last));
        kept
    }

    fn points_with(&mut self, volume: VolumeIndex) -> &[Sequence] {
        let known = self.volume.take().filter(|(known, _)| *known == volume);
        let (_, points) = self.volume.insert(known.unwrap_or_else(|| {
            let has_it = |point: &&Sequence| {
                let described = self.descriptions.at(**point).volumes.get(volume.as_usize());
                described.is_some_and(crate::records::VolumeDescription::is_there)
            };
            (volume, self.retained.iter().filter(has_it).copied().collect())
        }));
        points
    }
}

//! Which place in the chain each disk of the machine has, and how large it is there.
//!
//! A volume's place is its identity, for ever; a disk is known by its name. One that is not in the chain takes the next
//! place; one that is not declared any more leaves its place behind.

use farshore_blocks::{ByteCount, VolumeIndex};
use farshore_proto::v1;
use farshore_provider::CapturedVolume;

use super::link::Welcomed;
use crate::assignment::AssignedVolume;

/// One place of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    name: String,
    /// In the newest point.
    sealed: ByteCount,
    /// In the point that comes next; 0 if it is not there any more.
    next: ByteCount,
}

/// The chain's places, and who has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainVolumes {
    places: Vec<Place>,
    /// Of each disk, in the machine's order.
    of_disks: Vec<VolumeIndex>,
    /// Whether a point is there that has volumes.
    is_sealed: bool,
}

/// Whether the cycle that the target holds open can go on with the disks that are declared now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenCycleFits {
    Yes,
    /// It holds a volume that is not declared any more.
    No,
}

impl ChainVolumes {
    /// Of these disks, by what the target said of the chain.
    pub(crate) fn of(welcome: &Welcomed, assigned: &[AssignedVolume]) -> Self {
        let told = welcome.volumes.iter().map(|volume| Place {
            name: volume.name.clone(),
            sealed: ByteCount(0),
            next: ByteCount(volume.size_bytes),
        });
        let mut places: Vec<_> = told.collect();
        // A target that does not say has what it was told when the VM was assigned.
        if places.is_empty() {
            places.extend(assigned.iter().map(|volume| Place {
                name: volume.name.clone(),
                sealed: welcome.newest.map_or(ByteCount(0), |_| volume.size),
                next: volume.size,
            }));
        }
        for (place, sealed) in places.iter_mut().zip(&welcome.newest_sizes) {
            place.sealed = *sealed;
        }
        let in_point = welcome.newest_sizes.len();
        let mut of_disks = Vec::new();
        for volume in assigned {
            let mut found = places.iter().enumerate();
            let found = found.find(|(index, place)| {
                let is_there = if *index < in_point {
                    place.sealed
                } else {
                    place.next
                };
                place.name == volume.name && is_there > ByteCount(0)
            });
            let index = found.map_or(places.len(), |(index, _)| index);
            if index == places.len() {
                places.push(Place {
                    name: volume.name.clone(),
                    sealed: ByteCount(0),
                    next: volume.size,
                });
            }
            of_disks.push(VolumeIndex(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        Self {
            places,
            of_disks,
            is_sealed: welcome.newest.is_some(),
        }
    }

    /// The place of each disk, in the machine's order.
    pub(crate) fn of_disks(&self) -> &[VolumeIndex] {
        &self.of_disks
    }

    /// How many places the chain has.
    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    /// How large each disk is in the newest point, in the machine's order; empty while there is no point.
    pub(crate) fn sealed_sizes(&self) -> Vec<ByteCount> {
        let sealed = |index: &VolumeIndex| {
            let place = self.places.get(index.as_usize());
            place.map_or(ByteCount(0), |place| place.sealed)
        };
        let disks = if self.is_sealed {
            self.of_disks.as_slice()
        } else {
            &[]
        };
        disks.iter().map(sealed).collect()
    }

    /// How large each place is in the newest point.
    pub(crate) fn sealed_places(&self) -> Vec<ByteCount> {
        self.places.iter().map(|place| place.sealed).collect()
    }

    /// The disks that no point has yet, where there are points.
    pub(crate) fn joining(&self) -> Vec<&str> {
        let joins = |index: &&VolumeIndex| {
            let place = self.places.get(index.as_usize());
            place.is_some_and(|place| place.sealed == ByteCount(0))
        };
        let disks = if self.is_sealed {
            self.of_disks.as_slice()
        } else {
            &[]
        };
        let names = disks.iter().filter(joins);
        names
            .filter_map(|index| self.places.get(index.as_usize()))
            .map(|place| place.name.as_str())
            .collect()
    }

    /// Whether the newest point has volumes that are not declared any more: the next one is due, even if nothing changed.
    pub(crate) fn leave(&self) -> bool {
        let mut places = (0..).zip(&self.places);
        places
            .any(|(index, place)| place.sealed > ByteCount(0) && !self.of_disks.contains(&VolumeIndex(index)))
    }

    /// Whether the cycle that the target holds open can go on.
    pub(crate) fn open_cycle_fits(&self) -> OpenCycleFits {
        let gone = (0..)
            .zip(&self.places)
            .any(|(index, place)| place.next > ByteCount(0) && !self.of_disks.contains(&VolumeIndex(index)));
        if gone {
            OpenCycleFits::No
        } else {
            OpenCycleFits::Yes
        }
    }

    /// As they are to be told to the target: the sizes are those of the capture or, before there is one, as known.
    pub(crate) fn told(&self, captured: &[CapturedVolume]) -> Vec<v1::Volume> {
        let places = (0..).map(VolumeIndex).zip(&self.places);
        let told = places.map(|(index, place)| {
            let size = match captured.iter().find(|captured| captured.index == index) {
                Some(captured) => captured.size,
                None if self.of_disks.contains(&index) => place.next.max(place.sealed),
                None => ByteCount(0),
            };
            v1::Volume {
                name: place.name.clone(),
                size_bytes: size.0,
            }
        });
        told.collect()
    }

    /// The newest point has the volumes of this capture.
    pub(crate) fn sealed(&mut self, captured: &[CapturedVolume]) {
        let told = self.told(captured);
        for (place, told) in self.places.iter_mut().zip(told) {
            place.sealed = ByteCount(told.size_bytes);
            place.next = place.sealed;
        }
        self.is_sealed = true;
    }

    /// Those that are there in the newest point, with their places.
    pub(crate) fn shown(&self) -> Vec<ReplicatedVolume> {
        let there = (0..).map(VolumeIndex).zip(&self.places);
        there
            .filter(|(_, place)| place.sealed > ByteCount(0))
            .map(|(index, place)| ReplicatedVolume {
                index,
                name: place.name.clone(),
                size: place.sealed,
            })
            .collect()
    }
}

/// A volume that a point has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicatedVolume {
    pub(crate) index: VolumeIndex,
    pub(crate) name: String,
    pub(crate) size: ByteCount,
}

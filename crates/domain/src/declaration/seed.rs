//! Older copies of a VM's disks at its target site: a first sync takes from them what is the same.

use serde::Serializer;

use super::{
    cursor::Cursor,
    fields::Fields,
    machine::Machine,
    problems::Problems,
    text::{DiskPath, Name},
};

/// An older copy of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The name of the machine's disk.
    pub disk: Name,
    /// A raw image or a block device on the host of the target's replicator.
    pub path: DiskPath,
}

pub(super) fn serialize<S: Serializer>(seeds: &[Seed], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(seeds.iter().map(|seed| (&seed.disk, &seed.path)))
}

/// Those of any of the machine's disks, in the machine's order.
pub(super) fn read(at: &Cursor<'_>, machine: &Machine, problems: &mut Problems) -> Option<Vec<Seed>> {
    let names: Vec<&str> = machine.disks().iter().map(|disk| disk.name.as_str()).collect();
    let fields = Fields::open(at, &names, problems)?;
    let read: Vec<Option<Option<Seed>>> = machine
        .disks()
        .iter()
        .map(|disk| {
            let path = fields.optional(disk.name.as_str(), problems, Cursor::parsed)?;
            Some(path.map(|path| Seed {
                disk: disk.name.clone(),
                path,
            }))
        })
        .collect();
    let read: Option<Vec<Option<Seed>>> = read.into_iter().collect();
    let seeds: Vec<Seed> = read?.into_iter().flatten().collect();
    if seeds.is_empty() {
        return at.refuse("names no older copy of a disk; leave it out", problems);
    }
    Some(seeds)
}

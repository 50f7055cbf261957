//! A lease: a reader's word that it reads a point, which keeps what the point needs from being removed.
//!
//! It is a file that its reader holds locked. The lock goes when the reader's process does, however that ends, so a
//! lease never outlives its reader; the empty file is then removed by the writer.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use farshore_blocks::Sequence;
use rustix::fs::{FlockOperation, flock};

use crate::layout::{ChainLayout, leased_sequence};

/// How often a lease is tried.
const ATTEMPTS: u32 = 8;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A lease on a point; it ends with the value.
#[derive(Debug)]
pub(crate) struct Lease {
    path: PathBuf,
    _locked: File,
}

impl Lease {
    /// Says that `point` is being read, or everything where it is 0. None where the vault cannot be written to:
    /// there nobody removes anything either.
    pub(crate) fn take(layout: &ChainLayout, point: Sequence) -> Option<Self> {
        (0..ATTEMPTS).find_map(|_| Self::try_to_take(layout, point))
    }

    fn try_to_take(layout: &ChainLayout, point: Sequence) -> Option<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{}-{number}", point.0, std::process::id());
        let path = layout.leases().join(name);
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        // Whoever looked before it was locked took it for one without a reader and removed it.
        let inode = |metadata: fs::Metadata| metadata.ino();
        let stands = fs::metadata(&path).ok().map(inode) == file.metadata().ok().map(inode);
        stands.then_some(Self { path, _locked: file })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // One that stays is known by its missing lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// The points that somebody reads; leases without a reader are removed.
pub(crate) fn leased(layout: &ChainLayout) -> BTreeSet<Sequence> {
    let mut points = BTreeSet::new();
    let Ok(entries) = fs::read_dir(layout.leases()) else {
        return points;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(point) = leased_sequence(&path) else {
            continue;
        };
        let Ok(file) = File::open(&path) else { continue };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => drop(fs::remove_file(&path)),
            Err(_) => drop(points.insert(point)),
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::VaultLayout;
    use farshore_blocks::ChainId;

    #[test]
    fn a_lease_lasts_as_long_as_its_reader() {
        let directory = tempfile::tempdir().unwrap();
        let layout = VaultLayout::new(directory.path()).chain(ChainId::from_bytes([1; 16]));
        fs::create_dir_all(layout.leases()).unwrap();
        let lease = Lease::take(&layout, Sequence(7)).unwrap();
        let same = Lease::take(&layout, Sequence(7)).unwrap();
        assert_eq!(leased(&layout), BTreeSet::from([Sequence(7)]));
        drop(lease);
        assert_eq!(leased(&layout), BTreeSet::from([Sequence(7)]));
        drop(same);
        assert!(leased(&layout).is_empty());
        fs::write(layout.leases().join("9.1-1"), b"").unwrap();
        assert!(leased(&layout).is_empty());
        assert_eq!(fs::read_dir(layout.leases()).unwrap().count(), 0);
    }
}

//! The upkeep of a chain: retention applied, the index kept shallow, and space given back.
//!
//! [`Vault::thin`] drops points, which is a word in the journal. [`Vault::maintain`] then makes use of it, in three
//! steps, each of which can be left out or cut off at any moment:
//!
//! 1. **Settle** (`settle`): the runs up to a sealed point become one, without what no retained point shows. The
//!    run carries a table (`table`): what of each segment is still needed, and a proof for each retained point. Recent
//!    entries that were not flushed yet are flushed first where they hold that up.
//! 2. **Merge** (`merge`): where settling is not due, young runs are merged as they are, so that readers have few.
//! 3. **Compact** (`victims`, `compact`, `pack`): files with much that is dead are rewritten as packs.
//!
//! # The chain stays provable
//!
//! Of a settled point the frames are no longer all there, so its change digests cannot be computed again. What takes
//! their place is the rebase record, in two parts. A [`Gap`](crate::Gap) in the journal has the digest on which the
//! first dropped point was built and the digest of the last, so the chain of digests is unbroken from the first point
//! to the newest. And the settled run's proofs say of each retained point what it shows that the one before it does
//! not: made from entries that were checked as they were merged, each with the checksum and the fingerprint of its
//! bytes. `verify` computes them again.
//!
//! # Bounds
//!
//! With d the bytes of segments from the one in which the settled boundary lies: what was not flushed to the index
//! yet is behind it, and what was flushed since the chain was last settled.
//!
//! - After a pass, of what is before that at most 15 % is known to be dead (`DEAD_PERCENT`), and points that brought
//!   at most 5 % were dropped since it was last looked at (`DROPPED_PERCENT`). So packs and segments take at most
//!   1 / (1 - 0.20) = 1.25 times what is needed, plus d. The index takes 49 bytes an entry on top, about 1.2 % for
//!   entries of 4 KiB. Of what the guest trimmed, 48 bytes in the index and 48 in a pack stay for each piece of up to
//!   64 KiB, until no retained point shows it. While a step runs, its result and what it replaces are both there: for settling the index
//!   twice, for compaction one pack.
//! - The files of a batch are at least 15 % dead taken together, and small packs that come along at most double it: to
//!   give back a byte, compaction writes at most 2 * 0.85 / 0.15 < 12. What is given back was ingested before, so
//!   compaction writes at most 12 times what is ingested.
//! - Settling writes the index, with n bytes of it for each byte of the chain, after 5 % of the chain came or went:
//!   20 n for each byte ingested and 20 n for each byte dropped, so 40 n at most, which is 0.48 for entries of 4 KiB.
//!   Merging young runs writes an entry again each time the index of unsettled points doubles.
//!
//! Real lives stay well below these. The tests hold a month of points in tiers, and writes that are spread evenly over
//! the disk, to 1.3 times what is needed for all files of the chain, index included, and to 3 bytes written by
//! maintenance, index included, for each byte ingested.
//!
//! # Damage
//!
//! A run that is found to be lost or damaged is made again (`mend`), and the pass begins anew.
//!
//! # Crashes
//!
//! A run or a pack is made durable, with its name, before the journal names it, and what it replaces is removed only
//! after that. So a crash leaves either files that the journal does not name yet or files that it names no longer.
//! Both are removed when the chain is next opened for writing. A file that a verification may still be
//! reading is kept until that has ended.

mod boundary;
mod compact;
mod mend;
mod merge;
mod pace;
mod pack;
mod proofs;
mod settle;
mod showing;
mod table;
#[cfg(test)]
mod tests;
mod thinning;
mod usage;
mod victims;

use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
};

use farshore_blocks::{ByteCount, ChainId, Sequence};

pub use mend::Mended;
use mend::is_mendable;
pub use pace::{Go, Pace, StopSwitch, Throttle, Unlimited};
pub(crate) use proofs::Prover;
pub(crate) use table::SettledTable;
pub use thinning::PinRefused;

use crate::{
    damage::FileError,
    derived::Untold,
    edit::ChainEdit,
    entry::ENTRY_BYTES,
    format::SegmentKind,
    layout::segment_name,
    reader::leased,
    storage::StorageError,
    vault::{ChainHandle, Vault, VaultError},
};

/// The pace is asked after about so many bytes: 1 MiB.
const SPENT_AT_ONCE_BYTES: u64 = 1 << 20;

/// What a pass of maintenance did.
#[derive(Debug)]
pub struct Maintained {
    /// How many runs of the index were merged into others.
    pub runs_merged: usize,
    /// Up to which point the index was thinned, if it was.
    pub settled_through: Option<Sequence>,
    /// What was written of the index.
    pub index_bytes: ByteCount,
    /// What was written of packs.
    pub packed_bytes: ByteCount,
    /// What the files had that were removed, index and frames alike.
    pub removed_bytes: ByteCount,
    /// Files that could not be compacted because they are damaged. They stay as they are.
    pub unreadable: Vec<FileError>,
    /// How the pass ended.
    pub ended: Ended,
}

/// How a pass of maintenance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There is nothing more to do.
    Done,
    /// The pace stopped it.
    Stopped,
    /// Somebody reads everything, as a verification does: nothing may be removed meanwhile.
    HeldByReader,
}

/// Why a pass of maintenance failed. What it had finished by then stays finished.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The vault or the chain cannot be had.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A file is damaged or out of reach, or could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A run of the index is lost, and the files do not tell what it said.
    #[error("{fault}; it cannot be made again")]
    Untold {
        /// What is wrong with the run.
        fault: FileError,
        /// What the files do not tell.
        #[source]
        source: Untold,
    },
}

impl Vault {
    /// Does what there is to do for a chain: settles it, merges its runs and compacts its files as far as that is
    /// due. Cheap when nothing is. The chain can be written and read meanwhile; of two that maintain one chain the
    /// second waits.
    ///
    /// # Errors
    /// When there is no such chain, its index or journal is damaged, or the file system fails. Nothing is lost then.
    pub fn maintain(&self, chain: ChainId, pace: &mut dyn Pace) -> Result<Maintained, MaintenanceError> {
        let handle = self.chain_handle(chain)?;
        let mut outdated = handle.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pass = Pass::new(&handle, pace, &mut outdated);
        let mut halted = pass.run();
        if let Err(Halt::Failed(error)) = &halted
            && is_mendable(error)
        {
            // What was found to be lost of the index is made again, and the pass begins anew.
            halted = match pass.mend()?.ended {
                Ended::Done => pass.run(),
                ended @ (Ended::Stopped | Ended::HeldByReader) => Ok(ended),
            };
        }
        pass.done.ended = match halted {
            Ok(ended) => ended,
            Err(Halt::Stopped) => Ended::Stopped,
            Err(Halt::Failed(error)) => return Err(error.into()),
        };
        Ok(pass.done)
    }
}

impl Maintained {
    fn nothing() -> Self {
        Self {
            runs_merged: 0,
            settled_through: None,
            index_bytes: ByteCount(0),
            packed_bytes: ByteCount(0),
            removed_bytes: ByteCount(0),
            unreadable: Vec::new(),
            ended: Ended::Done,
        }
    }

    /// What it wrote in all.
    #[must_use]
    pub fn written_bytes(&self) -> ByteCount {
        ByteCount(self.index_bytes.0.saturating_add(self.packed_bytes.0))
    }

    /// By how much the chain's files became smaller.
    #[must_use]
    pub fn given_back_bytes(&self) -> ByteCount {
        ByteCount(self.removed_bytes.0.saturating_sub(self.written_bytes().0))
    }
}

/// Why a step ended early.
#[derive(Debug)]
enum Halt {
    Stopped,
    Failed(FileError),
}

impl From<FileError> for Halt {
    fn from(error: FileError) -> Self {
        Self::Failed(error)
    }
}

impl From<StorageError> for Halt {
    fn from(error: StorageError) -> Self {
        Self::Failed(error.into())
    }
}

/// One pass over a chain, under its maintenance lock.
struct Pass<'chain> {
    chain: &'chain ChainHandle,
    pace: &'chain mut dyn Pace,
    /// Files that the journal names no longer.
    outdated: &'chain mut Vec<PathBuf>,
    /// What the pace was not told of yet.
    spent: u64,
    done: Maintained,
}

impl<'chain> Pass<'chain> {
    fn new(
        chain: &'chain ChainHandle,
        pace: &'chain mut dyn Pace,
        outdated: &'chain mut Vec<PathBuf>,
    ) -> Self {
        Self {
            chain,
            pace,
            outdated,
            spent: 0,
            done: Maintained::nothing(),
        }
    }
}

impl Pass<'_> {
    fn run(&mut self) -> Result<Ended, Halt> {
        self.find_abandoned()?;
        self.remove_outdated();
        let held = self.is_all_read();
        if !held {
            self.settle_if_due()?;
        }
        self.merge_young()?;
        if held {
            return Ok(Ended::HeldByReader);
        }
        self.compact()?;
        Ok(Ended::Done)
    }

    /// Finds segments of cycles that were abandoned during an earlier pass, when the writer did not sweep. What lies
    /// behind the sealed frames may be the writer's, and so may a run that nothing names yet.
    fn find_abandoned(&mut self) -> Result<(), StorageError> {
        let state = self.chain.state();
        let directory = self.chain.layout.segments();
        let failed = |error| StorageError::new("list", &directory, error);
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_abandoned = segment_name(&path).is_some_and(|name| match name.kind {
                SegmentKind::Ingested => {
                    name.number < state.tail.segment && !state.segments.contains(&name.number)
                }
                SegmentKind::Packed => false,
            });
            if is_abandoned && !self.outdated.contains(&path) {
                self.outdated.push(path);
            }
        }
        Ok(())
    }

    fn is_all_read(&self) -> bool {
        leased(&self.chain.layout).contains(&Sequence(0))
    }

    /// Commits that other files take the place of these, and removes these.
    fn replace(&mut self, edit: ChainEdit, files: Vec<PathBuf>) -> Result<(), Halt> {
        match self.chain.commit(vec![edit]) {
            // The new files may count once the vault is opened again, and the old ones count until then: both stay.
            Err(error) if !error.happened() => return Err(StorageError::from(error).into()),
            Ok(()) | Err(_) => self.outdated.extend(files),
        }
        self.remove_outdated();
        Ok(())
    }

    /// Removes files that the journal names no longer, unless a reader may not see that yet, or somebody who reads
    /// everything may have looked before: then a later pass does.
    fn remove_outdated(&mut self) {
        if self.outdated.is_empty() || self.is_all_read() || self.chain.committer.confirm().is_err() {
            return;
        }
        let (disk, removed) = (&self.chain.disk, &mut self.done.removed_bytes);
        self.outdated.retain(|path| {
            let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            match disk.remove_file(path) {
                Ok(()) => {
                    removed.0 = removed.0.saturating_add(bytes);
                    false
                }
                Err(error) => {
                    tracing::warn!(error = %error, "a file that is no longer needed stays for now");
                    true
                }
            }
        });
    }

    /// Removes what was begun and is given up. If it stays, it is swept when the chain is next opened for writing.
    fn give_up(&self, path: &Path) {
        if let Err(error) = self.chain.disk.remove_file(path) {
            tracing::warn!(error = %error, "an unfinished file stays for now");
        }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Halt> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent < SPENT_AT_ONCE_BYTES {
            return Ok(());
        }
        self.ask()
    }

    /// Asks the pace whether to go on.
    fn ask(&mut self) -> Result<(), Halt> {
        let spent = std::mem::take(&mut self.spent);
        match self.pace.spend(ByteCount(spent)) {
            Go::On => Ok(()),
            Go::Stop => Err(Halt::Stopped),
        }
    }

    fn spend_on_entries(&mut self, entries: usize) -> Result<(), Halt> {
        let bytes = entries.saturating_mul(ENTRY_BYTES);
        self.spend(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

//! One layer of the index, in memory or on disk.

use farshore_blocks::{Sequence, VolumeIndex};

use crate::{
    damage::FileError,
    entry::{Entry, VersionKey},
    memtable::Memtable,
    tree::Run,
};

/// Where entries come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layer<'index> {
    Memtable(&'index Memtable),
    Run(&'index Run),
}

/// Entries in key order; after an error there is nothing more.
pub(crate) type Entries<'index> = Box<dyn Iterator<Item = Result<Entry, FileError>> + 'index>;

impl<'index> Layer<'index> {
    /// All entries.
    pub(crate) fn entries(self) -> Entries<'index> {
        match self {
            Self::Memtable(memtable) => Box::new(memtable.entries().map(Ok)),
            Self::Run(run) => Box::new(run.entries()),
        }
    }

    /// Shows the entries of one chunk up to a sequence, the newest first, until `visit` has seen enough.
    pub(super) fn visit_chunk(
        self,
        volume: VolumeIndex,
        chunk: u64,
        at_most: Sequence,
        mut visit: impl FnMut(&Entry) -> Seen,
    ) -> Result<Seen, FileError> {
        match self {
            Self::Memtable(memtable) => {
                for entry in memtable.chunk(volume, chunk, at_most) {
                    if visit(&entry) == Seen::Enough {
                        return Ok(Seen::Enough);
                    }
                }
            }
            Self::Run(run) => {
                if run.summary().first_sequence > at_most {
                    return Ok(Seen::TooLittle);
                }
                let wanted = VersionKey::new(volume, chunk, at_most);
                for entry in run.seek(volume, chunk, at_most)? {
                    let entry = entry?;
                    if !entry.version().same_chunk(wanted) {
                        break;
                    }
                    if visit(&entry) == Seen::Enough {
                        return Ok(Seen::Enough);
                    }
                }
            }
        }
        Ok(Seen::TooLittle)
    }
}

/// Whether a visitor has to see more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    TooLittle,
    Enough,
}

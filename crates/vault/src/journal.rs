//! The journal: everything that happened to the vault, in order, in two copies.
//!
//! A commit appends a batch of records to the journal, syncs it, and only then appends the same bytes to the
//! mirror. From this follow two rules:
//!
//! - What the mirror holds is durable in the journal. A reader beside a living writer believes the mirror's length,
//!   so it never shows what a power cut could take back.
//! - A record counts if either copy has it whole. So a record that rots is not taken for a write that was torn, and
//!   one damaged copy costs nothing. Only where neither copy has it, and none follows, was a write torn: nobody was
//!   ever told that it happened.
//!
//! | journal | mirror | meaning of the last record | the next writer |
//! |---|---|---|---|
//! | whole | whole | committed | – |
//! | whole | absent or torn | written, perhaps not durable, perhaps acknowledged | writes it again, syncs, completes the mirror |
//! | damaged | whole | committed, then damaged | writes it again |
//! | torn | absent or torn | never acknowledged | cuts it off |
//!
//! When a journal has grown well beyond what its state needs, a new one begins with a batch that adds up to the
//! state (a checkpoint): both its files are written and synced, then their directory, and only then the old ones
//! go. A journal whose first batch is not whole never began.

mod commit;
mod follow;
mod replay;
#[cfg(test)]
mod tests;

use std::path::Path;

use farshore_blocks::Incarnation;

pub(crate) use commit::Committer;
pub(crate) use follow::Follower;
use replay::newest_generation;
#[cfg(feature = "fuzzing")]
pub(crate) use replay::replay;
pub(crate) use replay::{Copies, Presence, Replayed};

use crate::{
    damage::FileError,
    edit::Edit,
    format::{
        FormatError,
        record::{InBatch, RecordPlace, WriteOrder, encode_record},
    },
    layout::VaultLayout,
    state::VaultState,
    storage::{Content, Disk, DiskFile, StorageError},
};

/// A journal begins anew when it is larger than this, and than four times its checkpoint.
pub(crate) const SMALLEST_TO_ROTATE_BYTES: u64 = 8 * 1024 * 1024;

/// The journal as its one writer has it.
#[derive(Debug)]
pub(crate) struct Journal {
    vault: Incarnation,
    disk: Disk,
    layout: VaultLayout,
    generation: u64,
    primary: DiskFile,
    mirror: DiskFile,
    /// Both copies are whole up to here, and the journal is durable.
    durable_bytes: u64,
    next_ordinal: u64,
    checkpoint_bytes: u64,
    smallest_to_rotate: u64,
    tail: Tail,
    /// A newer journal that did not begin: it must be gone before anything else is committed here.
    unbegun: Option<u64>,
}

/// Whether a commit that failed may have left bytes behind what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Exact,
    Littered,
}

/// Why a commit did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// It did not happen; if the process ends now, that is unknown until the vault is opened again.
    #[error(transparent)]
    NotCommitted(#[from] StorageError),
    /// It happened and is durable, but readers do not see it before the next commit or confirmation.
    #[error(transparent)]
    Unconfirmed(StorageError),
}

impl CommitError {
    /// Whether the edits are in the state all the same.
    pub(crate) fn happened(&self) -> bool {
        match self {
            Self::NotCommitted(_) => false,
            Self::Unconfirmed(_) => true,
        }
    }
}

impl From<CommitError> for StorageError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotCommitted(error) | CommitError::Unconfirmed(error) => error,
        }
    }
}

/// Which of the two files of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copy {
    Primary,
    Mirror,
}

impl Journal {
    /// Writes the first journal of a new vault.
    pub(crate) fn create(
        disk: &Disk,
        layout: &VaultLayout,
        vault: Incarnation,
        state: &VaultState,
    ) -> Result<Self, StorageError> {
        Self::begin(disk, layout, vault, 1, state)
    }

    /// Writes a journal that begins with `state`; it counts once this returns.
    fn begin(
        disk: &Disk,
        layout: &VaultLayout,
        vault: Incarnation,
        generation: u64,
        state: &VaultState,
    ) -> Result<Self, StorageError> {
        let place = RecordPlace {
            vault,
            generation,
            ordinal: 0,
        };
        let (bytes, next_ordinal) = encode_batch(place, place.ordinal, &state.as_edits());
        let open = |copy| disk.open_file(&layout.journal(generation, copy), Content::Dropped);
        let mut journal = Self {
            vault,
            disk: disk.clone(),
            layout: layout.clone(),
            generation,
            primary: open(Copy::Primary)?,
            mirror: open(Copy::Mirror)?,
            durable_bytes: length_of(&bytes),
            next_ordinal,
            checkpoint_bytes: length_of(&bytes),
            smallest_to_rotate: SMALLEST_TO_ROTATE_BYTES,
            tail: Tail::Exact,
            unbegun: None,
        };
        journal.primary.write_at(&bytes, 0)?;
        journal.primary.sync()?;
        journal.mirror.write_at(&bytes, 0)?;
        journal.mirror.sync()?;
        disk.sync_directory(&layout.journals())?;
        Ok(journal)
    }

    /// Opens the journal, puts in order what a crash left, and gives the state that it adds up to.
    pub(crate) fn open(
        disk: &Disk,
        layout: &VaultLayout,
        vault: Incarnation,
    ) -> Result<(Self, VaultState), FileError> {
        let found = newest_generation(layout, vault, Presence::Written)?;
        let (generation, copies, replayed) = found;
        let open = |copy| disk.open_file(&layout.journal(generation, copy), Content::Kept);
        let mut journal = Self {
            vault,
            disk: disk.clone(),
            layout: layout.clone(),
            generation,
            primary: open(Copy::Primary)?,
            mirror: open(Copy::Mirror)?,
            durable_bytes: replayed.bytes,
            next_ordinal: replayed.next_ordinal,
            checkpoint_bytes: replayed.checkpoint_bytes,
            smallest_to_rotate: SMALLEST_TO_ROTATE_BYTES,
            tail: Tail::Exact,
            unbegun: None,
        };
        journal.put_in_order(&copies, &replayed)?;
        // Names that an earlier writer left visible but, for a sync that failed, not durable.
        disk.sync_directory(&layout.journals())?;
        journal.remove_others();
        Ok((journal, replayed.state))
    }

    /// Makes both copies hold what counts and no more. The last batch is written again even if it is there: a sync
    /// that failed may have left it readable but not durable, and another sync alone would not tell.
    fn put_in_order(&mut self, copies: &Copies, replayed: &Replayed) -> Result<(), StorageError> {
        let whole = copies.best(replayed);
        let from = copies.differ_at(&whole).min(replayed.last_batch_bytes);
        let fresh = usize::try_from(from)
            .ok()
            .and_then(|from| whole.get(from..))
            .unwrap_or_default();
        if copies.mirror != whole || copies.primary != whole {
            self.primary.write_at(fresh, from)?;
            self.primary.set_length(length_of(&whole))?;
            self.primary.sync()?;
            self.mirror.write_at(fresh, from)?;
            self.mirror.set_length(length_of(&whole))?;
        }
        self.primary.sync()?;
        self.mirror.sync()
    }

    /// Appends the edits, each batch all or nothing; when this returns well they are durable, and readers see them.
    fn append(&mut self, batches: &[Vec<Edit>]) -> Result<(), CommitError> {
        self.remove_unbegun()?;
        self.cut_litter()?;
        let mut bytes = Vec::new();
        let mut ordinal = self.next_ordinal;
        for batch in batches {
            let place = RecordPlace {
                vault: self.vault,
                generation: self.generation,
                ordinal,
            };
            let (encoded, next) = encode_batch(place, self.next_ordinal, batch);
            bytes.extend_from_slice(&encoded);
            ordinal = next;
        }
        self.tail = Tail::Littered;
        self.primary.write_at(&bytes, self.durable_bytes)?;
        self.primary.sync()?;
        // From here on the batches happened: the mirror follows, or is completed by the next writer.
        let mirrored = self.mirror.write_at(&bytes, self.durable_bytes);
        self.durable_bytes = self.durable_bytes.saturating_add(length_of(&bytes));
        self.next_ordinal = ordinal;
        mirrored.map_err(CommitError::Unconfirmed)?;
        self.tail = Tail::Exact;
        Ok(())
    }

    /// Makes sure that readers see everything that happened.
    fn confirm(&mut self) -> Result<(), StorageError> {
        self.cut_litter()
    }

    /// Takes back what a commit that failed left. A mirror that fell behind is made whole from the journal.
    fn cut_litter(&mut self) -> Result<(), StorageError> {
        if self.tail == Tail::Exact {
            return Ok(());
        }
        self.primary.set_length(self.durable_bytes)?;
        self.primary.sync()?;
        let path = self.layout.journal(self.generation, Copy::Primary);
        let whole = std::fs::read(&path).map_err(|error| StorageError::new("read", &path, error))?;
        self.mirror.write_at(&whole, 0)?;
        self.mirror.set_length(self.durable_bytes)?;
        self.tail = Tail::Exact;
        Ok(())
    }

    /// Removes a journal that did not begin, durably: one that came back would be taken for the newest.
    fn remove_unbegun(&mut self) -> Result<(), StorageError> {
        if let Some(generation) = self.unbegun {
            for copy in [Copy::Primary, Copy::Mirror] {
                self.disk.remove_file(&self.layout.journal(generation, copy))?;
            }
            self.disk.sync_directory(&self.layout.journals())?;
            self.unbegun = None;
        }
        Ok(())
    }

    /// Begins anew already when it is larger than this.
    pub(crate) fn rotating_at(self, smallest_to_rotate: u64) -> Self {
        Self {
            smallest_to_rotate,
            ..self
        }
    }

    fn wants_rotation(&self) -> bool {
        let limit = self
            .checkpoint_bytes
            .saturating_mul(4)
            .max(self.smallest_to_rotate);
        self.durable_bytes > limit
    }

    /// Begins a new journal with `state`. When this fails, this journal goes on.
    fn rotate(&mut self, state: &VaultState) -> Result<(), StorageError> {
        let generation = self.generation.saturating_add(1);
        let smallest_to_rotate = self.smallest_to_rotate;
        // If it fails it may yet look as if it had begun.
        self.unbegun = Some(generation);
        let begun = Self::begin(&self.disk, &self.layout, self.vault, generation, state)?;
        *self = Self {
            smallest_to_rotate,
            ..begun
        };
        self.remove_others();
        Ok(())
    }

    /// Removes the files of all other generations. One that stays behind is older, or never began.
    fn remove_others(&self) {
        let names = replay::generations(&self.layout).unwrap_or_default();
        for other in names.into_iter().filter(|other| *other != self.generation) {
            for copy in [Copy::Primary, Copy::Mirror] {
                let path: &Path = &self.layout.journal(other, copy);
                if let Err(error) = self.disk.remove_file(path) {
                    tracing::warn!(error = %error, "an old journal stays");
                }
            }
        }
    }
}

/// The records of one batch, and the number of the record behind them; what is written at once begins with number `first`.
fn encode_batch(place: RecordPlace, first: u64, batch: &[Edit]) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    let mut ordinal = place.ordinal;
    for (edit, following) in batch.iter().zip((0..batch.len()).rev()) {
        let following = u32::try_from(following).unwrap_or(u32::MAX);
        let order = if ordinal == first {
            WriteOrder::First
        } else {
            WriteOrder::Later
        };
        let in_batch = InBatch { order, following };
        let at = RecordPlace { ordinal, ..place };
        bytes.extend_from_slice(&encode_record(at, edit.kind(), in_batch, &edit.encode()));
        ordinal = ordinal.saturating_add(1);
    }
    (bytes, ordinal)
}

fn contradiction(path: &Path, position: u64, source: crate::state::Contradiction) -> FileError {
    FileError::damaged(path, position, FormatError::Bounds { field: source.0 })
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

//! Reading a journal from its two copies: which records count, and what they add up to.

use std::{fs, io};

use farshore_blocks::Incarnation;

use super::{Copy, contradiction};
use crate::{
    damage::{FileError, about_to_read},
    edit::Edit,
    format::{
        FormatError,
        record::{Record, RecordPlace, WriteOrder, decode_record},
    },
    layout::{VaultLayout, journal_generation},
    state::VaultState,
    storage::StorageError,
};

/// From when on a record is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// As soon as either copy has it whole: right where no writer lives.
    Written,
    /// Once the mirror has room for it, which is after it was made durable: right beside a living writer.
    Confirmed,
}

/// The bytes of both files, from the same offset on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copies {
    /// Where in the files they begin.
    pub(crate) from: u64,
    pub(crate) primary: Vec<u8>,
    pub(crate) mirror: Vec<u8>,
}

/// What the records add up to.
#[derive(Debug, Clone)]
pub(crate) struct Replayed {
    pub(crate) state: VaultState,
    /// Where the last whole batch ends.
    pub(crate) bytes: u64,
    /// Where it begins.
    pub(crate) last_batch_bytes: u64,
    /// Where the first batch ends; 0 if it is not whole.
    pub(crate) checkpoint_bytes: u64,
    pub(crate) next_ordinal: u64,
    /// Records that one copy has wrong, by their offset; the other made up for it.
    pub(crate) mended: Vec<(Copy, u64)>,
}

impl Replayed {
    /// Nothing yet.
    pub(crate) fn nothing() -> Self {
        Self {
            state: VaultState::default(),
            bytes: 0,
            last_batch_bytes: 0,
            checkpoint_bytes: 0,
            next_ordinal: 0,
            mended: Vec::new(),
        }
    }
}

impl Copies {
    /// Reads both files from `from` on; a file that is not there is empty.
    pub(crate) fn read(layout: &VaultLayout, generation: u64, from: u64) -> Result<Self, StorageError> {
        // In this order: what the mirror has by now, the journal has too.
        let mirror = read_from(layout, generation, Copy::Mirror, from)?;
        let primary = read_from(layout, generation, Copy::Primary, from)?;
        Ok(Self {
            from,
            primary,
            mirror,
        })
    }

    fn of(&self, copy: Copy) -> &[u8] {
        match copy {
            Copy::Primary => &self.primary,
            Copy::Mirror => &self.mirror,
        }
    }

    /// What both files should hold from the beginning on.
    pub(crate) fn best(&self, replayed: &Replayed) -> Vec<u8> {
        let end = usize::try_from(replayed.bytes).unwrap_or(usize::MAX);
        let mut whole = self
            .primary
            .get(..end.min(self.primary.len()))
            .unwrap_or_default()
            .to_vec();
        whole.extend_from_slice(self.mirror.get(whole.len()..end).unwrap_or_default());
        for (copy, offset) in &replayed.mended {
            if *copy == Copy::Primary {
                mend(&mut whole, &self.mirror, *offset);
            }
        }
        whole
    }

    /// The first offset at which a copy is not `whole`.
    pub(crate) fn differ_at(&self, whole: &[u8]) -> u64 {
        let first = |copy: &[u8]| {
            let differing = whole.iter().zip(copy).position(|(whole, found)| whole != found);
            differing.unwrap_or(whole.len().min(copy.len()))
        };
        u64::try_from(first(&self.primary).min(first(&self.mirror))).unwrap_or(0)
    }

    /// The record at `offset`, from whichever copy has it whole, and which copy has it wrong.
    fn record(&self, offset: u64, place: RecordPlace) -> Result<(Record<'_>, Option<Copy>), FormatError> {
        let at = |copy| {
            let start = usize::try_from(offset.saturating_sub(self.from)).unwrap_or(usize::MAX);
            self.of(copy).get(start..).unwrap_or_default()
        };
        match decode_record(at(Copy::Primary), place) {
            Ok(record) => {
                let mirrored = at(Copy::Mirror);
                let same = mirrored.len() < record.length || decode_record(mirrored, place).is_ok();
                Ok((record, (!same).then_some(Copy::Mirror)))
            }
            Err(error) => match decode_record(at(Copy::Mirror), place) {
                Ok(record) => Ok((record, Some(Copy::Primary))),
                Err(_) => Err(error),
            },
        }
    }

    /// Whether a record stands whole anywhere behind `offset`, at some later number, before which all was durable when it
    /// was written. One with an earlier number is not missed by anybody: it was written to a wrong place, or what stood
    /// before it was moved. And one that was written together with those before it may be what a torn write left, unless
    /// the journal has begun and the mirror has come so far: it is then written once the journal is durable.
    fn holds_a_later_write(&self, offset: u64, place: RecordPlace, done: &Replayed) -> bool {
        let start = usize::try_from(offset.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let was_durable = done.checkpoint_bytes > 0 && start < self.mirror.len();
        let counts = |record: Record<'_>| was_durable || record.in_batch.order == WriteOrder::First;
        [Copy::Primary, Copy::Mirror].into_iter().any(|copy| {
            let rest = self.of(copy).get(start..).unwrap_or_default();
            let mut rest = rest.get(1..).unwrap_or_default();
            while let Some(at) = find(rest, &crate::format::record::RECORD_MAGIC) {
                rest = rest.get(at..).unwrap_or_default();
                let number = rest
                    .get(40..48)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_le_bytes);
                let found = RecordPlace {
                    ordinal: number.unwrap_or(0),
                    ..place
                };
                if found.ordinal > place.ordinal && decode_record(rest, found).is_ok_and(counts) {
                    return true;
                }
                rest = rest.get(1..).unwrap_or_default();
            }
            false
        })
    }
}

/// Goes on from `done` with the records in `copies`. Only whole batches count. The path is for errors.
pub(crate) fn replay(
    mut done: Replayed,
    copies: &Copies,
    (layout, vault, generation): (&VaultLayout, Incarnation, u64),
    presence: Presence,
) -> Result<Replayed, FileError> {
    let path = layout.journal(generation, Copy::Primary);
    let confirmed = copies.from.saturating_add(super::length_of(&copies.mirror));
    let written = confirmed.max(copies.from.saturating_add(super::length_of(&copies.primary)));
    let end = match presence {
        Presence::Written => written,
        Presence::Confirmed => confirmed,
    };
    let mut batch: Vec<Edit> = Vec::new();
    let mut mended = Vec::new();
    let (mut offset, mut ordinal) = (done.bytes, done.next_ordinal);
    while offset < end {
        let place = RecordPlace {
            vault,
            generation,
            ordinal,
        };
        let (record, wrong) = match copies.record(offset, place) {
            Ok(found) => found,
            Err(error) if copies.holds_a_later_write(offset, place, &done) => {
                return Err(FileError::damaged(&path, offset, error));
            }
            // Torn, or being written just now.
            Err(_) => break,
        };
        let edit = Edit::decode(record.kind, record.body)
            .map_err(|error| FileError::damaged(&path, offset, error))?;
        batch.push(edit);
        mended.extend(wrong.map(|copy| (copy, offset)));
        let length = u64::try_from(record.length).unwrap_or(u64::MAX);
        offset = offset.saturating_add(length);
        ordinal = ordinal.saturating_add(1);
        if offset > end {
            break;
        }
        if record.in_batch.following == 0 {
            for edit in batch.drain(..) {
                done.state
                    .apply(edit)
                    .map_err(|error| contradiction(&path, done.bytes, error))?;
            }
            done.mended.append(&mut mended);
            done.last_batch_bytes = done.bytes;
            done.bytes = offset;
            done.next_ordinal = ordinal;
            if done.checkpoint_bytes == 0 {
                done.checkpoint_bytes = offset;
                check_chains(&done.state).map_err(|error| contradiction(&path, 0, error))?;
            }
        }
    }
    Ok(done)
}

fn check_chains(state: &VaultState) -> Result<(), crate::state::Contradiction> {
    state.chains().try_for_each(|(_, chain)| chain.check())
}

/// The newest journal that began, its bytes, and what it adds up to.
pub(crate) fn newest_generation(
    layout: &VaultLayout,
    vault: Incarnation,
    presence: Presence,
) -> Result<(u64, Copies, Replayed), FileError> {
    let mut generations = generations(layout)?;
    let newest = generations.last().copied().unwrap_or(1);
    while let Some(generation) = generations.pop() {
        let copies = Copies::read(layout, generation, 0)?;
        let replayed = replay(
            Replayed::nothing(),
            &copies,
            (layout, vault, generation),
            presence,
        )?;
        if replayed.checkpoint_bytes > 0 {
            return Ok((generation, copies, replayed));
        }
    }
    let path = layout.journal(newest, Copy::Primary);
    Err(FileError::damaged(
        &path,
        0,
        FormatError::TooShort {
            expected: 1,
            actual: 0,
        },
    ))
}

/// The numbers of all journals that are there, in order.
pub(super) fn generations(layout: &VaultLayout) -> Result<Vec<u64>, StorageError> {
    let directory = layout.journals();
    let failed = |error| StorageError::new("list", &directory, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(failed)? {
        found.extend(journal_generation(&entry.map_err(failed)?.path()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn read_from(layout: &VaultLayout, generation: u64, copy: Copy, from: u64) -> Result<Vec<u8>, StorageError> {
    use io::{Read, Seek, SeekFrom};
    let path = layout.journal(generation, copy);
    let mut bytes = Vec::new();
    about_to_read(&path)?;
    let read = fs::File::open(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StorageError::new("read", &path, error)),
        Ok(_) => Ok(bytes),
    }
}

/// Puts the record that `source` has at `offset` in the place of the one that `whole` has there.
fn mend(whole: &mut [u8], source: &[u8], offset: u64) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let length = source
        .get(start.saturating_add(52)..start.saturating_add(56))
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let length = usize::try_from(length)
        .unwrap_or(0)
        .saturating_add(crate::format::record::RECORD_HEADER_BYTES);
    let end = start.saturating_add(length);
    if let (Some(into), Some(from)) = (whole.get_mut(start..end), source.get(start..end)) {
        into.copy_from_slice(from);
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

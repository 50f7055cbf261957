//! Writing and reading the index run of one point, piece by piece: memory does not grow with the run.

use std::{fs::File, path::Path};

use farshore_blocks::{ByteCount, Sequence, VolumeIndex};

use crate::{
    damage::{FileError, read_exactly},
    format::{FormatError, Identity, RUN_ENTRY_BYTES, RUN_HEADER_BYTES, RunEntry, RunHeader},
    index::ExtentMap,
    records::RunSummary,
    storage::{Content, Disk, StorageError},
};

/// How many entries are written or read at once: about 400 KiB.
const ENTRIES_AT_ONCE: usize = 8192;

/// Writes and syncs the run of these volumes' maps; its name is durable once the directory is synced.
pub(crate) fn write_run(
    disk: &Disk,
    path: &Path,
    identity: Identity,
    sequence: Sequence,
    volumes: &[ExtentMap],
) -> Result<RunSummary, StorageError> {
    let mut file = disk.open_file(path, Content::Dropped)?;
    let mut position = wide(RUN_HEADER_BYTES);
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = Vec::new();
    let mut entries: u64 = 0;
    for entry in all_entries(volumes) {
        entry.encode_into(&mut bytes);
        entries = entries.saturating_add(1);
        if bytes.len() >= ENTRIES_AT_ONCE.saturating_mul(RUN_ENTRY_BYTES) {
            hasher.update(&bytes);
            file.write_at(&bytes, position)?;
            position = position.saturating_add(wide(bytes.len()));
            bytes.clear();
        }
    }
    hasher.update(&bytes);
    file.write_at(&bytes, position)?;
    let header = RunHeader {
        identity,
        sequence,
        entries,
        entries_crc32: hasher.finalize(),
    };
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    Ok(RunSummary {
        entries,
        crc32: header.entries_crc32,
    })
}

/// How many bytes a run of so many entries takes.
pub(crate) fn run_bytes(summary: &RunSummary) -> ByteCount {
    ByteCount(wide(RUN_HEADER_BYTES).saturating_add(summary.entries.saturating_mul(wide(RUN_ENTRY_BYTES))))
}

/// Reads the run, entry after entry. What was visited counts only if this ends well: the checksum comes last.
pub(crate) fn read_run(
    path: &Path,
    identity: Identity,
    sequence: Sequence,
    summary: &RunSummary,
    mut visit: impl FnMut(RunEntry),
) -> Result<(), FileError> {
    let file = File::open(path).map_err(|error| StorageError::new("open", path, error))?;
    let expected = RunHeader {
        identity,
        sequence,
        entries: summary.entries,
        entries_crc32: summary.crc32,
    };
    let mut header = [0; RUN_HEADER_BYTES];
    read_exactly(&file, path, &mut header, 0)?;
    RunHeader::decode(&header)
        .and_then(|header| header.expect(&expected))
        .map_err(|error| FileError::damaged(path, 0, error))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut order = Order::default();
    let mut position = wide(RUN_HEADER_BYTES);
    let mut left = summary.entries;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(ENTRIES_AT_ONCE);
        let mut bytes = vec![0; count.saturating_mul(RUN_ENTRY_BYTES)];
        read_exactly(&file, path, &mut bytes, position)?;
        hasher.update(&bytes);
        for chunk in bytes.chunks(RUN_ENTRY_BYTES) {
            let entry = RunEntry::decode(chunk)
                .and_then(|entry| order.check(entry))
                .map_err(|error| FileError::damaged(path, position, error))?;
            visit(entry);
            position = position.saturating_add(wide(RUN_ENTRY_BYTES));
        }
        left = left.saturating_sub(wide(count));
    }
    let actual = hasher.finalize();
    if actual == summary.crc32 {
        Ok(())
    } else {
        let expected = summary.crc32;
        let error = FormatError::Checksum { expected, actual };
        Err(FileError::damaged(path, wide(RUN_HEADER_BYTES), error))
    }
}

/// The entries of all volumes, in the order of a run.
pub(crate) fn all_entries(volumes: &[ExtentMap]) -> impl Iterator<Item = RunEntry> {
    (0..)
        .zip(volumes)
        .flat_map(|(volume, map)| map.entries(VolumeIndex(volume)))
}

/// Checks that entries come sorted and do not overlap.
#[derive(Default)]
struct Order {
    volume: VolumeIndex,
    end: u64,
}

impl Order {
    fn check(&mut self, entry: RunEntry) -> Result<RunEntry, FormatError> {
        let start = entry.extent.start().0;
        if entry.volume < self.volume || (entry.volume == self.volume && start < self.end) {
            return Err(FormatError::Bounds { field: "order" });
        }
        self.volume = entry.volume;
        self.end = entry.extent.end().0;
        Ok(entry)
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

//! Copying what shows in an extent into a buffer: frames that lie one behind the other, in the volume and in the
//! file alike, are read in one go, straight to where they belong.

use std::sync::Arc;

use farshore_blocks::{ByteOffset, Encoding, Extent, Frame};

use super::{Cache, GroupBlocks, Homes, Piece};
use crate::{
    damage::FileError,
    entry::Entry,
    format::{BLOCK_BYTES, FormatError},
};

/// What the bytes come from.
pub(super) struct Copying<'point> {
    pub(super) homes: &'point Homes,
    pub(super) frames: &'point Cache<(u32, u32), Frame>,
    pub(super) groups: &'point Cache<(u32, u32), Arc<GroupBlocks>>,
}

/// What is wrong, and from which byte of the volume on.
type Failed = (ByteOffset, FileError);

impl Copying<'_> {
    /// Fills `buffer` with what shows in the pieces, which come in order and without gaps.
    pub(super) fn copy(&self, pieces: &[Piece], buffer: &mut [u8]) -> Result<(), Failed> {
        let mut rest = buffer;
        let mut pieces = pieces;
        while let Some((first, behind)) = pieces.split_first() {
            let Some(entry) = first.entry else {
                take(&mut rest, first.extent).fill(0);
                pieces = behind;
                continue;
            };
            let row = row_of(pieces);
            if row.is_empty() {
                let into = take(&mut rest, first.extent);
                self.copy_part(&entry, first.extent, into)
                    .map_err(|error| (first.extent.start(), error))?;
                pieces = behind;
            } else {
                let (read, behind) = pieces.split_at(row.len());
                let length: usize = read.iter().map(|piece| length_of(piece.extent)).sum();
                let (into, left) = std::mem::take(&mut rest).split_at_mut(length);
                rest = left;
                self.read_row(read, into)?;
                pieces = behind;
            }
        }
        Ok(())
    }

    /// Reads whole raw frames that lie one behind the other.
    fn read_row(&self, row: &[Piece], into: &mut [u8]) -> Result<(), Failed> {
        let Some((first, entry)) = row
            .first()
            .and_then(|piece| Some((piece.extent.start(), piece.entry?)))
        else {
            return Ok(());
        };
        let failed = |error| (first, error);
        let home = self.homes.of(entry.place.segment).map_err(failed)?;
        if row.len() > 1 && !home.is_segment() {
            // In a pack neighbours may have been parted.
            let mut rest = into;
            for piece in row {
                let part = take(&mut rest, piece.extent);
                self.read_row(std::slice::from_ref(piece), part)?;
            }
            return Ok(());
        }
        let offset = home.offset_of(&entry.place).map_err(failed)?;
        home.file().read_payload(offset, into).map_err(failed)?;
        let mut rest = into;
        for piece in row {
            let Some(entry) = piece.entry else { continue };
            let raw = take(&mut rest, piece.extent);
            let actual = crc32fast::hash(raw);
            let expected = entry.place.crc32;
            if actual != expected {
                let error = FormatError::Checksum { expected, actual };
                let position = u64::from(home.offset_of(&entry.place).map_err(failed)?);
                return Err((
                    piece.extent.start(),
                    FileError::damaged(home.file().path(), position, error),
                ));
            }
        }
        Ok(())
    }

    fn copy_part(&self, entry: &Entry, part: Extent, into: &mut [u8]) -> Result<(), FileError> {
        let whole_blocks = usize::try_from(entry.place.raw_bytes).unwrap_or(0) > BLOCK_BYTES;
        match entry.place.encoding {
            Encoding::Zero => {
                into.fill(0);
                Ok(())
            }
            Encoding::Raw if whole_blocks => self.copy_blocks(entry, part, into),
            Encoding::Raw | Encoding::Zstd => self.copy_of_whole(entry, part, into),
        }
    }

    /// Copies a part of a raw frame: the blocks that it touches are read, and checked one by one.
    fn copy_blocks(&self, entry: &Entry, part: Extent, into: &mut [u8]) -> Result<(), FileError> {
        let place = &entry.place;
        let home = self.homes.of(place.segment)?;
        let offset = home.offset_of(place)?;
        let start = home.group_of(offset)?;
        let group = self.groups.get_or_fetch((place.segment, start), || {
            let group = GroupBlocks::read(home.file(), start)?;
            let weight = group.weight();
            Ok::<_, FileError>((Arc::new(group), weight))
        })?;
        let damaged = |error| FileError::damaged(home.file().path(), u64::from(offset), error);
        let checksums = group.of(offset, entry).map_err(damaged)?;
        let skipped = usize::try_from(part.start().0.saturating_sub(place.frame_start)).unwrap_or(usize::MAX);
        let raw_bytes = usize::try_from(place.raw_bytes).unwrap_or(0);
        let first = skipped / BLOCK_BYTES;
        let from = first.saturating_mul(BLOCK_BYTES);
        let end = skipped.saturating_add(into.len());
        let to = end.next_multiple_of(BLOCK_BYTES).min(raw_bytes);
        let checksums = checksums.get(first..).unwrap_or_default();
        let at = offset.saturating_add(u32::try_from(from).unwrap_or(u32::MAX));
        if (from, to) == (skipped, end) {
            home.file().read_payload(at, into)?;
            return check_blocks(into, checksums).map_err(damaged);
        }
        let mut around = vec![0; to.saturating_sub(from)];
        home.file().read_payload(at, &mut around)?;
        check_blocks(&around, checksums).map_err(damaged)?;
        let within = skipped.saturating_sub(from);
        let wanted = around.get(within..within.saturating_add(into.len()));
        into.copy_from_slice(wanted.ok_or_else(|| damaged(FormatError::Bounds { field: "extent" }))?);
        Ok(())
    }

    /// Copies a part of a frame, the whole of which must be read to be checked.
    fn copy_of_whole(&self, entry: &Entry, part: Extent, into: &mut [u8]) -> Result<(), FileError> {
        let place = &entry.place;
        let frame = self.frames.get_or_fetch((place.segment, place.position), || {
            let home = self.homes.of(place.segment)?;
            let error = FormatError::Bounds { field: "frame" };
            let stored = place.stored_frame(entry.volume);
            let stored = stored
                .ok_or_else(|| FileError::damaged(home.file().path(), u64::from(place.position), error))?;
            let frame = home.frame(home.offset_of(place)?, &stored)?;
            let weight = frame.raw().len();
            Ok::<_, FileError>((frame, weight))
        })?;
        let skipped = part.start().0.saturating_sub(place.frame_start);
        let from = usize::try_from(skipped).unwrap_or(usize::MAX);
        match frame.raw().get(from..from.saturating_add(into.len())) {
            Some(raw) => into.copy_from_slice(raw),
            None => {
                let home = self.homes.of(place.segment)?;
                let error = FormatError::Bounds { field: "extent" };
                return Err(FileError::damaged(
                    home.file().path(),
                    u64::from(place.position),
                    error,
                ));
            }
        }
        Ok(())
    }
}

/// The first pieces that are whole raw frames one behind the other in one segment.
fn row_of(pieces: &[Piece]) -> &[Piece] {
    let mut expected: Option<(u32, u32)> = None;
    let length = pieces
        .iter()
        .take_while(|piece| {
            let whole = piece.entry.filter(|entry| {
                entry.place.encoding == Encoding::Raw
                    && entry.place.frame_start == piece.extent.start().0
                    && u64::from(entry.place.raw_bytes) == piece.extent.length().0
            });
            let Some(place) = whole.map(|entry| entry.place) else {
                return false;
            };
            let follows = expected.is_none_or(|expected| expected == (place.segment, place.position));
            expected = Some((place.segment, place.position.saturating_add(place.stored_bytes)));
            follows
        })
        .count();
    pieces.get(..length).unwrap_or_default()
}

fn check_blocks(bytes: &[u8], checksums: &[u32]) -> Result<(), FormatError> {
    let mut expected = checksums.iter();
    for block in bytes.chunks(BLOCK_BYTES) {
        let actual = crc32fast::hash(block);
        match expected.next() {
            Some(expected) if *expected == actual => {}
            Some(expected) => {
                return Err(FormatError::Checksum {
                    expected: *expected,
                    actual,
                });
            }
            None => {
                return Err(FormatError::Bounds {
                    field: "number of block checksums",
                });
            }
        }
    }
    Ok(())
}

fn length_of(extent: Extent) -> usize {
    usize::try_from(extent.length().0).unwrap_or(usize::MAX)
}

/// The front of what is left, as long as `extent`.
fn take<'buffer>(rest: &mut &'buffer mut [u8], extent: Extent) -> &'buffer mut [u8] {
    let whole = std::mem::take(rest);
    let (front, behind) = whole.split_at_mut(length_of(extent).min(whole.len()));
    *rest = behind;
    front
}

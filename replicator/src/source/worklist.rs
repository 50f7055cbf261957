//! The captured extents that are still to be shipped, cut into batches of about one message as they are taken, so
//! that memory follows the number of extents and not the size of the disks.

mod whole_blocks;

use std::{borrow::Cow, collections::VecDeque};

use farshore_blocks::{ByteCount, ByteOffset, Extent, HASHED_BLOCK, MAX_FRAME_BYTES, VolumeIndex};
use farshore_provider::{CapturedVolume, StateOfBytes};
use farshore_transfer::Watermark;

use whole_blocks::in_whole_blocks;

/// How many bytes of data one message carries at most.
const MESSAGE_DATA_BYTES: u64 = 1024 * 1024;
/// How many pieces one message carries at most, so that a flood of tiny or zero extents is bounded too.
const MESSAGE_PIECES: usize = 1024;
/// How much is read at once.
const READ_BYTES: u64 = 256 * 1024;

/// A piece of one volume; not yet cut while it is in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) volume: VolumeIndex,
    pub(crate) extent: Extent,
    pub(crate) state: StateOfBytes,
}

/// What one message is to carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) watermarks: Vec<Watermark>,
}

impl Batch {
    /// How many bytes of data it holds.
    pub(crate) fn data(&self) -> ByteCount {
        data_of(&self.pieces)
    }
}

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A scan into an empty base: zeroes need not travel, and watermarks tell how far it has come.
    BaseScan,
    /// A scan into an empty base of which the target has a seed: as a base scan, but by whole blocks, to be compared with it.
    SeedScan,
    /// A scan over an existing point: zeroes count too, and it goes by whole blocks, to be compared with that point.
    ResyncScan,
    /// Changes: everything travels, without watermarks.
    Changes,
}

impl Purpose {
    /// Whether pieces begin and end where hashed blocks do.
    fn goes_by_blocks(self) -> bool {
        match self {
            Self::SeedScan | Self::ResyncScan => true,
            Self::BaseScan | Self::Changes => false,
        }
    }

    /// Whether all that does not travel is zero at the target.
    fn begins_with_zeroes(self) -> bool {
        match self {
            Self::BaseScan | Self::SeedScan => true,
            Self::ResyncScan | Self::Changes => false,
        }
    }
}

/// Extents in order, taken from the front.
#[derive(Debug)]
pub(crate) struct Worklist {
    purpose: Purpose,
    pieces: VecDeque<Piece>,
    ends: Vec<(VolumeIndex, ByteOffset)>,
}

impl Worklist {
    /// All that `volumes` hold behind each volume's start position (0 if none is given).
    pub(crate) fn new(purpose: Purpose, volumes: &[CapturedVolume], starts: &[Watermark]) -> Self {
        let mut pieces = VecDeque::new();
        for captured in volumes {
            let start = starts
                .iter()
                .find(|mark| mark.volume == captured.index)
                .map_or(ByteOffset(0), |mark| mark.scanned_through);
            let start = match purpose {
                // Scanned before without a seed, it may have come to the middle of a block.
                Purpose::SeedScan if start.0 < captured.size.0 => block_around(start),
                Purpose::SeedScan | Purpose::ResyncScan | Purpose::BaseScan | Purpose::Changes => start,
            };
            let extents = match purpose {
                Purpose::ResyncScan | Purpose::SeedScan => {
                    Cow::Owned(in_whole_blocks(&captured.extents, captured.size))
                }
                Purpose::BaseScan | Purpose::Changes => Cow::Borrowed(&captured.extents),
            };
            for stated in extents.iter() {
                let Some(rest) = behind(stated.extent, start) else {
                    continue;
                };
                if stated.state == StateOfBytes::Zero && purpose.begins_with_zeroes() {
                    continue;
                }
                pieces.push_back(Piece {
                    volume: captured.index,
                    extent: rest,
                    state: stated.state,
                });
            }
        }
        let ends = volumes
            .iter()
            .map(|captured| (captured.index, ByteOffset(captured.size.0)))
            .collect();
        Self {
            purpose,
            pieces,
            ends,
        }
    }

    /// Whether all that does not travel is zero at the target.
    pub(crate) fn begins_with_zeroes(&self) -> bool {
        self.purpose.begins_with_zeroes()
    }

    /// How many bytes of data are still to be read.
    pub(crate) fn data_left(&self) -> ByteCount {
        data_of(&self.pieces)
    }

    /// Takes the next message's worth; `None` when nothing is left.
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut data = 0u64;
        while data < MESSAGE_DATA_BYTES && batch.pieces.len() < MESSAGE_PIECES {
            let Some(piece) = self.take_piece(ByteCount(MESSAGE_DATA_BYTES - data)) else {
                break;
            };
            data = data.saturating_add(piece.data_bytes());
            batch.pieces.push(piece);
        }
        if batch.pieces.is_empty() {
            return None;
        }
        batch.watermarks = self.watermarks(&batch.pieces);
        Some(batch)
    }

    /// Takes from the front what one read gives, at most `limit` bytes but a whole block where it goes by blocks; what is behind
    /// it stays.
    fn take_piece(&mut self, limit: ByteCount) -> Option<Piece> {
        let front = self.pieces.front_mut()?;
        let step = match front.state {
            StateOfBytes::Data if self.purpose.goes_by_blocks() => {
                block_around(ByteOffset(READ_BYTES.min(limit.0)))
                    .0
                    .max(HASHED_BLOCK.0)
            }
            StateOfBytes::Data => READ_BYTES.min(limit.0),
            StateOfBytes::Zero => u64::from(MAX_FRAME_BYTES),
        };
        let whole = *front;
        let extent = whole.extent.pieces(ByteCount(step)).next()?;
        match behind(whole.extent, extent.end()) {
            Some(rest) => front.extent = rest,
            None => {
                self.pieces.pop_front();
            }
        }
        Some(Piece { extent, ..whole })
    }

    /// How far the scan has come with these pieces. Pieces are in the order of volumes, so that a volume before the
    /// first piece that is left has been scanned to its end, the holes there included.
    fn watermarks(&self, taken: &[Piece]) -> Vec<Watermark> {
        if self.purpose == Purpose::Changes {
            return Vec::new();
        }
        let reached = |volume: VolumeIndex, end: ByteOffset| {
            if self.pieces.front().is_none_or(|left| left.volume > volume) {
                return Some(end);
            }
            let last = taken.iter().rev().find(|piece| piece.volume == volume)?;
            Some(last.extent.end())
        };
        self.ends
            .iter()
            .filter_map(|(volume, end)| {
                let scanned_through = reached(*volume, *end)?;
                Some(Watermark {
                    volume: *volume,
                    scanned_through,
                })
            })
            .collect()
    }
}

impl Piece {
    fn data_bytes(&self) -> u64 {
        match self.state {
            StateOfBytes::Data => self.extent.length().0,
            StateOfBytes::Zero => 0,
        }
    }
}

fn data_of<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> ByteCount {
    ByteCount(
        pieces
            .into_iter()
            .map(Piece::data_bytes)
            .fold(0, u64::saturating_add),
    )
}

/// Where the block begins that this is in.
fn block_around(at: ByteOffset) -> ByteOffset {
    ByteOffset(at.0 / HASHED_BLOCK.0 * HASHED_BLOCK.0)
}

fn behind(extent: Extent, start: ByteOffset) -> Option<Extent> {
    let from = extent.start().max(start);
    Extent::new(from, ByteCount(extent.end().0.checked_sub(from.0)?))
}

#[cfg(test)]
mod tests {
    use farshore_provider::StatedExtent;

    use super::*;

    fn volume(index: u32, size: u64, extents: &[(u64, u64, StateOfBytes)]) -> CapturedVolume {
        let extents = extents
            .iter()
            .map(|(start, length, state)| StatedExtent {
                extent: Extent::new(ByteOffset(*start), ByteCount(*length)).unwrap(),
                state: *state,
            })
            .collect();
        CapturedVolume {
            index: VolumeIndex(index),
            size: ByteCount(size),
            extents,
        }
    }

    const MIB: u64 = 1024 * 1024;

    fn volumes() -> Vec<CapturedVolume> {
        vec![
            volume(
                0,
                8 * MIB,
                &[
                    (0, 3 * MIB, StateOfBytes::Data),
                    (3 * MIB, 4 * MIB, StateOfBytes::Zero),
                    (7 * MIB, MIB, StateOfBytes::Data),
                ],
            ),
            volume(
                1,
                2 * MIB,
                &[(0, MIB, StateOfBytes::Data), (MIB, MIB, StateOfBytes::Zero)],
            ),
        ]
    }

    fn drain(mut list: Worklist) -> Vec<Batch> {
        std::iter::from_fn(|| list.next_batch()).collect()
    }

    #[test]
    fn a_base_scan_skips_zeroes_and_ends_at_the_end_of_every_volume() {
        let batches = drain(Worklist::new(Purpose::BaseScan, &volumes(), &[]));
        assert_eq!(batches.len(), 5);
        assert!(
            batches
                .iter()
                .flat_map(|batch| &batch.pieces)
                .all(|piece| piece.state == StateOfBytes::Data)
        );
        let last = &batches.last().unwrap().watermarks;
        let ends: Vec<_> = last.iter().map(|mark| mark.scanned_through.0).collect();
        assert_eq!(ends, [8 * MIB, 2 * MIB]);
    }

    #[test]
    fn a_scan_that_goes_on_from_its_watermarks_leaves_nothing_out() {
        let whole = drain(Worklist::new(Purpose::BaseScan, &volumes(), &[]));
        for cut in 0..whole.len() {
            let mut starts: Vec<Watermark> = Vec::new();
            for mark in whole[..cut].iter().flat_map(|batch| &batch.watermarks) {
                starts.retain(|known| known.volume != mark.volume);
                starts.push(*mark);
            }
            let rest = drain(Worklist::new(Purpose::BaseScan, &volumes(), &starts));
            let bytes = |batches: &[Batch]| -> u64 {
                batches
                    .iter()
                    .flat_map(|batch| &batch.pieces)
                    .map(Piece::data_bytes)
                    .sum()
            };
            assert_eq!(bytes(&whole[..cut]) + bytes(&rest), 5 * MIB, "cut after {cut}");
        }
    }

    #[test]
    fn a_scan_with_a_seed_goes_by_whole_blocks_wherever_the_one_before_it_came_to() {
        let block = HASHED_BLOCK.0;
        let disk = [volume(
            0,
            10 * block + 512,
            &[
                (0, 4 * block, StateOfBytes::Data),
                (4 * block, 5 * block, StateOfBytes::Zero),
                (9 * block + 4096, block + 512 - 4096, StateOfBytes::Data),
            ],
        )];
        for (scanned_through, expected) in [
            (0, vec![(0, 4 * block), (9 * block, 10 * block + 512)]),
            (block + 5, vec![(block, 4 * block), (9 * block, 10 * block + 512)]),
            (9 * block, vec![(9 * block, 10 * block + 512)]),
            (10 * block + 512, vec![]),
        ] {
            let start = Watermark {
                volume: VolumeIndex(0),
                scanned_through: ByteOffset(scanned_through),
            };
            let pieces = drain(Worklist::new(Purpose::SeedScan, &disk, &[start]));
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for piece in pieces.iter().flat_map(|batch| &batch.pieces) {
                assert_eq!(piece.state, StateOfBytes::Data);
                match joined.last_mut() {
                    Some(last) if last.1 == piece.extent.start().0 => last.1 = piece.extent.end().0,
                    _ => joined.push((piece.extent.start().0, piece.extent.end().0)),
                }
            }
            assert_eq!(joined, expected, "from {scanned_through}");
        }
    }

    #[test]
    fn a_volume_that_ends_within_a_block_leaves_the_blocks_of_the_next_one_whole() {
        let block = HASHED_BLOCK.0;
        let disks = [
            volume(0, 512, &[(0, 512, StateOfBytes::Data)]),
            volume(1, 40 * block, &[(0, 40 * block, StateOfBytes::Data)]),
        ];
        for purpose in [Purpose::SeedScan, Purpose::ResyncScan] {
            let batches = drain(Worklist::new(purpose, &disks, &[]));
            let pieces = batches.iter().flat_map(|batch| &batch.pieces);
            let ends = pieces
                .filter(|piece| piece.volume == VolumeIndex(1))
                .map(|piece| piece.extent.end().0);
            assert!(ends.map(|end| end % block).all(|rest| rest == 0), "{purpose:?}");
        }
    }

    #[test]
    fn zeroes_over_an_existing_point_travel() {
        let list = Worklist::new(Purpose::ResyncScan, &volumes(), &[]);
        assert_eq!(list.data_left(), ByteCount(5 * MIB));
        let zeroes: u64 = drain(list)
            .iter()
            .flat_map(|batch| &batch.pieces)
            .filter(|piece| piece.state == StateOfBytes::Zero)
            .map(|piece| piece.extent.length().0)
            .sum();
        assert_eq!(zeroes, 5 * MIB);
    }
}

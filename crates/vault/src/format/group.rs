//! A group: what one write appends to a segment. A header, the frames' directory, and then their payloads.
//!
//! The header names its own place (segment and position) against misdirected writes, the vault and chain against
//! foreign ones, and the cycle, epoch, base and message against stale ones. The frames' payloads are proven by the
//! checksum of their raw bytes, which the directory and the index hold.

use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Epoch, HolderNonce, Incarnation, Sequence,
    VolumeIndex,
};

use super::{
    FormatError, Identity, Position, UNIT_BYTES,
    blocks::block_count,
    fields::{Encoder, Fields, check_crc32, checked_header, header, length_of},
    frame::{FRAME_ENTRY_BYTES, StoredFrame},
};
use crate::records::CycleKind;

pub(super) const GROUP_MAGIC: [u8; 8] = *b"FARSHGRP";
pub(crate) const GROUP_HEADER_BYTES: usize = 256;
const CHANGE_BYTES: usize = 56;
const WATERMARK_BYTES: usize = 16;
const ORIGIN_BYTES: usize = 8;
const SEQUENCE_BYTES: usize = 8;
const BLOCK_CHECKSUM_BYTES: usize = 4;
/// The message ends with this group.
const FLAG_COMPLETE: u32 = 1;
/// The frames were carried over by compaction, and say where from.
const FLAG_ORIGINS: u32 = 2;
/// They also say of which points they are.
const FLAG_SEQUENCES: u32 = 4;
/// More than any group that was ever written has.
pub(crate) const MAX_GROUP_FRAMES: u32 = 16_384;

/// What all groups of a cycle say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CycleWords {
    pub(crate) sequence: Sequence,
    pub(crate) cycle: u64,
    pub(crate) kind: CycleKind,
    pub(crate) epoch: Epoch,
    /// The digest of the point on which the cycle builds; zeroes in an empty chain.
    pub(crate) base: Digest,
}

/// Which part of its message a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessagePart {
    /// From 0.
    pub(crate) index: u32,
    pub(crate) ends: MessageEnds,
}

/// Whether a message goes on in the next group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageEnds {
    Here,
    Later,
}

/// What a group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) words: CycleWords,
    pub(crate) message: u64,
    pub(crate) part: MessagePart,
    /// All before this position was durable when the group was written.
    pub(crate) durable_before: Position,
    pub(crate) frames: Vec<StoredFrame>,
    /// Where each frame was ingested; empty unless compaction wrote the group.
    pub(crate) origins: Vec<Position>,
    /// For which point each frame with an origin was ingested; packs of earlier builds do not say it.
    pub(crate) sequences: Vec<Sequence>,
    /// The proofs, after this group, of the volumes that it touched.
    pub(crate) changes: Vec<(VolumeIndex, ChangeDigest)>,
    pub(crate) watermarks: Vec<(VolumeIndex, ByteOffset)>,
    /// The checksums of the blocks of those frames that have any, one frame after the other.
    pub(crate) blocks: Vec<u32>,
}

/// How the parts of a group lie one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupLayout {
    /// Header and tables, without padding.
    pub(crate) directory_bytes: u32,
    pub(crate) payload_bytes: u32,
}

/// A group's header by itself: enough to read the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) words: CycleWords,
    pub(crate) message: u64,
    pub(crate) part: MessagePart,
    pub(crate) durable_before: Position,
    pub(crate) layout: GroupLayout,
    flags: u32,
    frames: u32,
    changes: u32,
    watermarks: u32,
    blocks: u32,
    tables_crc32: u32,
}

impl GroupLayout {
    /// Where the payloads begin, from the group's start.
    pub(crate) fn payload_start(self) -> u32 {
        padded(self.directory_bytes)
    }

    /// How many bytes the group takes, padding included.
    pub(crate) fn total_bytes(self) -> u32 {
        self.payload_start().saturating_add(padded(self.payload_bytes))
    }
}

impl Group {
    pub(crate) fn layout(&self) -> GroupLayout {
        let tables = [
            self.frames.len().saturating_mul(FRAME_ENTRY_BYTES),
            self.origins.len().saturating_mul(ORIGIN_BYTES),
            self.sequences.len().saturating_mul(SEQUENCE_BYTES),
            self.changes.len().saturating_mul(CHANGE_BYTES),
            self.watermarks.len().saturating_mul(WATERMARK_BYTES),
            self.blocks.len().saturating_mul(BLOCK_CHECKSUM_BYTES),
        ];
        let directory = tables
            .iter()
            .fold(GROUP_HEADER_BYTES, |sum, part| sum.saturating_add(*part));
        let payload = self
            .frames
            .iter()
            .map(|frame| u64::from(frame.stored_bytes))
            .sum::<u64>();
        GroupLayout {
            directory_bytes: u32::try_from(directory).unwrap_or(u32::MAX),
            payload_bytes: u32::try_from(payload).unwrap_or(u32::MAX),
        }
    }

    /// Header and tables of the group at `at`, padded to a unit; the payloads follow.
    pub(crate) fn encode(&self, identity: Identity, at: Position) -> Vec<u8> {
        let mut tables = Encoder::default();
        self.frames
            .iter()
            .for_each(|frame| frame.encode_into(&mut tables));
        for origin in &self.origins {
            tables.u32(origin.segment).u32(origin.offset);
        }
        for sequence in &self.sequences {
            tables.u64(sequence.0);
        }
        for (volume, change) in &self.changes {
            tables
                .u32(volume.0)
                .u32(0)
                .u64(change.frames)
                .u64(change.bytes.0)
                .array(change.digest.as_bytes());
        }
        for (volume, watermark) in &self.watermarks {
            tables.u32(volume.0).u32(0).u64(watermark.0);
        }
        for checksum in &self.blocks {
            tables.u32(*checksum);
        }
        let tables = tables.done();
        let layout = self.layout();
        let complete = match self.part.ends {
            MessageEnds::Here => FLAG_COMPLETE,
            MessageEnds::Later => 0,
        };
        let origins = if self.origins.is_empty() { 0 } else { FLAG_ORIGINS };
        let sequences = if self.sequences.is_empty() {
            0
        } else {
            FLAG_SEQUENCES
        };
        let mut bytes = header(GROUP_MAGIC);
        bytes
            .u32(complete | origins | sequences)
            .array(identity.vault.as_bytes())
            .array(identity.chain.as_bytes());
        bytes
            .u32(at.segment)
            .u32(at.offset)
            .u64(self.words.sequence.0)
            .u64(self.words.cycle);
        bytes
            .u8(self.words.kind.code())
            .zeroes(3)
            .count(self.frames.len());
        bytes
            .u64(self.words.epoch.number)
            .array(self.words.epoch.holder.as_bytes());
        bytes.array(self.words.base.as_bytes()).u64(self.message);
        bytes.count(self.changes.len()).count(self.watermarks.len());
        bytes.u32(layout.payload_bytes).u32(layout.directory_bytes);
        bytes
            .u32(self.durable_before.segment)
            .u32(self.durable_before.offset);
        // Room for a key's identity and a nonce.
        bytes.zeroes(16).zeroes(16);
        bytes
            .u32(crc32fast::hash(&tables))
            .u32(self.part.index)
            .count(self.blocks.len())
            .fill_to(GROUP_HEADER_BYTES - 4)
            .crc32();
        bytes
            .array(&tables)
            .fill_to(usize::try_from(layout.payload_start()).unwrap_or(0));
        bytes.done()
    }
}

impl GroupHeader {
    /// Reads the header of the group at `at`.
    pub(crate) fn decode(bytes: &[u8], identity: Identity, at: Position) -> Result<Self, FormatError> {
        let mut fields = checked_header(bytes, GROUP_HEADER_BYTES, GROUP_MAGIC, "a group of frames")?;
        let flags = fields.u32()?;
        let found = Identity {
            vault: Incarnation::from_bytes(fields.array()?),
            chain: ChainId::from_bytes(fields.array()?),
        };
        let place = Position {
            segment: fields.u32()?,
            offset: fields.u32()?,
        };
        found.expect(identity)?;
        if place != at {
            return Err(FormatError::Identity { field: "place" });
        }
        let header = decode_header(&mut fields, flags)?;
        fields.reserved::<40>()?;
        header.check()?;
        Ok(header)
    }

    fn is_packed(&self) -> bool {
        self.flags & FLAG_ORIGINS != 0
    }

    fn says_sequences(&self) -> bool {
        self.flags & FLAG_SEQUENCES != 0
    }

    fn table_lengths(&self) -> [u64; 6] {
        let origins = if self.is_packed() { self.frames } else { 0 };
        let sequences = if self.says_sequences() { self.frames } else { 0 };
        [
            u64::from(self.frames).saturating_mul(length_of(FRAME_ENTRY_BYTES)),
            u64::from(origins).saturating_mul(length_of(ORIGIN_BYTES)),
            u64::from(sequences).saturating_mul(length_of(SEQUENCE_BYTES)),
            u64::from(self.changes).saturating_mul(length_of(CHANGE_BYTES)),
            u64::from(self.watermarks).saturating_mul(length_of(WATERMARK_BYTES)),
            u64::from(self.blocks).saturating_mul(length_of(BLOCK_CHECKSUM_BYTES)),
        ]
    }

    fn check(&self) -> Result<(), FormatError> {
        let tables = self
            .table_lengths()
            .iter()
            .fold(length_of(GROUP_HEADER_BYTES), |sum, part| {
                sum.saturating_add(*part)
            });
        let bounded = self.frames <= MAX_GROUP_FRAMES
            && self.changes <= 1024
            && self.watermarks <= 1024
            && self.blocks <= MAX_GROUP_FRAMES.saturating_mul(16);
        if !bounded || tables != u64::from(self.layout.directory_bytes) {
            return Err(FormatError::Bounds {
                field: "directory length",
            });
        }
        // Without frames there are no origins to be told of, and without origins no sequences.
        let idle = self.is_packed() && self.frames == 0;
        let alone = self.says_sequences() && !self.is_packed();
        if idle || alone || self.flags & !(FLAG_COMPLETE | FLAG_ORIGINS | FLAG_SEQUENCES) != 0 {
            return Err(FormatError::Bounds { field: "flags" });
        }
        Ok(())
    }

    /// Reads the tables behind the header; `directory` is header, tables and padding.
    pub(crate) fn group(&self, directory: &[u8]) -> Result<Group, FormatError> {
        let mut fields = Fields::new(directory);
        fields.bytes(GROUP_HEADER_BYTES)?;
        let tables = usize::try_from(self.layout.directory_bytes).unwrap_or(usize::MAX);
        let tables = fields.bytes(tables.saturating_sub(GROUP_HEADER_BYTES))?;
        check_crc32(tables, self.tables_crc32)?;
        let padding = usize::try_from(
            self.layout
                .payload_start()
                .saturating_sub(self.layout.directory_bytes),
        );
        fields.rest_is_zero_in(padding.unwrap_or(usize::MAX))?;
        let mut fields = Fields::new(tables);
        let frames = (0..self.frames)
            .map(|_| StoredFrame::decode(&mut fields))
            .collect::<Result<Vec<_>, _>>()?;
        let origins = if self.is_packed() { self.frames } else { 0 };
        let origins = (0..origins)
            .map(|_| {
                Ok(Position {
                    segment: fields.u32()?,
                    offset: fields.u32()?,
                })
            })
            .collect::<Result<Vec<_>, FormatError>>()?;
        let sequences = if self.says_sequences() { self.frames } else { 0 };
        let sequences = (0..sequences)
            .map(|_| fields.u64().map(Sequence))
            .collect::<Result<Vec<_>, _>>()?;
        let changes = (0..self.changes)
            .map(|_| decode_change(&mut fields))
            .collect::<Result<Vec<_>, _>>()?;
        let watermarks = (0..self.watermarks)
            .map(|_| decode_watermark(&mut fields))
            .collect::<Result<Vec<_>, _>>()?;
        let blocks = (0..self.blocks)
            .map(|_| fields.u32())
            .collect::<Result<Vec<_>, _>>()?;
        fields.end()?;
        if frames
            .iter()
            .map(|frame| u64::from(block_count(frame)))
            .sum::<u64>()
            != u64::from(self.blocks)
        {
            return Err(FormatError::Bounds {
                field: "number of block checksums",
            });
        }
        let group = Group {
            words: self.words,
            message: self.message,
            part: self.part,
            durable_before: self.durable_before,
            frames,
            origins,
            sequences,
            changes,
            watermarks,
            blocks,
        };
        if group.layout() == self.layout {
            Ok(group)
        } else {
            Err(FormatError::Bounds {
                field: "payload length",
            })
        }
    }
}

fn decode_header(fields: &mut Fields<'_>, flags: u32) -> Result<GroupHeader, FormatError> {
    let sequence = Sequence(fields.u64()?);
    let cycle = fields.u64()?;
    let kind = CycleKind::from_code(fields.u8()?).ok_or(FormatError::Bounds {
        field: "kind of cycle",
    })?;
    fields.reserved::<3>()?;
    let frames = fields.u32()?;
    let number = fields.u64()?;
    let holder = HolderNonce::from_bytes(fields.array()?);
    let words = CycleWords {
        sequence,
        cycle,
        kind,
        epoch: Epoch { number, holder },
        base: Digest::from_bytes(fields.array()?),
    };
    let message = fields.u64()?;
    let (changes, watermarks) = (fields.u32()?, fields.u32()?);
    let (payload_bytes, directory_bytes) = (fields.u32()?, fields.u32()?);
    let durable_before = Position {
        segment: fields.u32()?,
        offset: fields.u32()?,
    };
    // A key's identity and a nonce: no build writes encrypted frames yet.
    fields.reserved::<32>()?;
    Ok(GroupHeader {
        words,
        message,
        tables_crc32: fields.u32()?,
        part: MessagePart {
            index: fields.u32()?,
            ends: if flags & FLAG_COMPLETE == 0 {
                MessageEnds::Later
            } else {
                MessageEnds::Here
            },
        },
        durable_before,
        layout: GroupLayout {
            directory_bytes,
            payload_bytes,
        },
        flags,
        frames,
        changes,
        watermarks,
        blocks: fields.u32()?,
    })
}

fn decode_change(fields: &mut Fields<'_>) -> Result<(VolumeIndex, ChangeDigest), FormatError> {
    let volume = VolumeIndex(fields.u32()?);
    fields.reserved::<4>()?;
    let change = ChangeDigest {
        frames: fields.u64()?,
        bytes: ByteCount(fields.u64()?),
        digest: Digest::from_bytes(fields.array()?),
    };
    Ok((volume, change))
}

fn decode_watermark(fields: &mut Fields<'_>) -> Result<(VolumeIndex, ByteOffset), FormatError> {
    let volume = VolumeIndex(fields.u32()?);
    fields.reserved::<4>()?;
    Ok((volume, ByteOffset(fields.u64()?)))
}

/// Rounded up to a whole number of units.
pub(crate) fn padded(length: u32) -> u32 {
    let unit = u32::try_from(UNIT_BYTES).unwrap_or(u32::MAX);
    length.checked_next_multiple_of(unit).unwrap_or(u32::MAX)
}

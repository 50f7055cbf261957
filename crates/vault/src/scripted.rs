//! For tests: a source whose disks are plain byte vectors, beside which the vault is judged.
#![expect(clippy::cast_possible_truncation, reason = "test disks are small")]

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, ChangeHasher, Digest, Epoch, Extent, Frame, HolderNonce,
    Sequence, VolumeIndex, clock::WallTime,
};

use crate::{
    BasePoint, ChainDescription, ChainWriter, CycleBegin, CycleKind, PointKind, PointRecord, ReadError,
    SealRequest, Vault, VaultReader, VolumeDescription, vault::Limits, writer::FlushLimits,
};

pub(crate) const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
pub(crate) const HOLDER: HolderNonce = HolderNonce::from_bytes([1; 16]);
pub(crate) const OTHER_HOLDER: HolderNonce = HolderNonce::from_bytes([2; 16]);

/// A directory in memory where the machine has one: these tests make thousands.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Limits so small that every test reaches them.
pub(crate) fn tiny(segment_bytes: u32) -> Limits {
    Limits {
        segment_bytes,
        journal_bytes: 2500,
        flush: FlushLimits {
            entries: 6,
            groups: 5,
            window_entries: 40,
        },
    }
}

/// Bytes that the guest wrote.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) volume: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A protected VM.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) volumes: Vec<Vec<u8>>,
    pub(crate) newest: Option<BasePoint>,
    /// Each sealed point and the disks at its instant.
    pub(crate) points: Vec<(PointRecord, Vec<Vec<u8>>)>,
}

/// A cycle as the source ships it.
#[derive(Debug, Clone)]
pub(crate) struct SourceCycle {
    pub(crate) begin: CycleBegin,
    pub(crate) messages: Vec<Vec<Frame>>,
    pub(crate) seal: SealRequest,
    pub(crate) after: Vec<Vec<u8>>,
}

pub(crate) fn write(volume: u32, offset: u64, byte: u8, length: usize) -> Write {
    let bytes = vec![byte; length];
    Write {
        volume,
        offset,
        bytes,
    }
}

impl Source {
    pub(crate) fn new(sizes: &[usize]) -> Self {
        Self {
            volumes: sizes.iter().map(|size| vec![0; *size]).collect(),
            newest: None,
            points: Vec::new(),
        }
    }

    pub(crate) fn description(&self) -> ChainDescription {
        let volumes = self
            .volumes
            .iter()
            .enumerate()
            .map(|(number, volume)| VolumeDescription {
                name: format!("disk{number}"),
                size: ByteCount(volume.len() as u64),
            });
        ChainDescription {
            vm: "web".to_owned(),
            volumes: volumes.collect(),
        }
    }

    /// The disk is larger from now on: what it grew by is zero.
    pub(crate) fn grow(&mut self, volume: usize, by: usize) {
        let size = self.volumes[volume].len() + by;
        self.volumes[volume].resize(size, 0);
    }

    /// Tells the writer which disks there are now.
    pub(crate) fn tell_volumes(&self, writer: &mut ChainWriter, epoch: Epoch) {
        writer.set_volumes(epoch, &self.description().volumes).unwrap();
    }

    /// Creates the chain, takes the first epoch and the writer.
    pub(crate) fn enroll(&self, vault: &Vault) -> (ChainWriter, Epoch) {
        vault.create_chain(CHAIN, &self.description()).unwrap();
        let epoch = vault.grant_epoch(CHAIN, HOLDER).unwrap();
        (vault.chain_writer(CHAIN).unwrap(), epoch)
    }

    /// The cycle that ships these messages of writes on top of the newest point.
    pub(crate) fn cycle(&self, epoch: Epoch, nonce: u64, messages: &[Vec<Write>]) -> SourceCycle {
        let mut after = self.volumes.clone();
        let mut hashers = vec![ChangeHasher::default(); after.len()];
        let mut shipped = Vec::new();
        for writes in messages {
            let mut frames = Vec::new();
            for Write {
                volume,
                offset,
                bytes,
            } in writes
            {
                let disk = &mut after[*volume as usize];
                disk[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
                let (volume, offset) = (VolumeIndex(*volume), ByteOffset(*offset));
                let frame = Frame::from_raw(volume, offset, Bytes::copy_from_slice(bytes)).unwrap();
                hashers[volume.as_usize()].update(volume, offset, frame.raw_length(), &frame.raw_digest());
                frames.push(frame);
            }
            shipped.push(frames);
        }
        let base = self.newest;
        SourceCycle {
            begin: CycleBegin {
                epoch,
                cycle: nonce,
                base,
                kind: if base.is_some() {
                    CycleKind::Delta
                } else {
                    CycleKind::Base
                },
            },
            seal: SealRequest {
                epoch,
                cycle: nonce,
                sequence: base.map_or(Sequence(0), |base| base.sequence).next(),
                captured_at: WallTime(nonce),
                clock_offset_nanoseconds: -5,
                clock_uncertainty: Duration::from_millis(1),
                kind: PointKind::CrashConsistent,
                machine: b"machine \x00\xff".to_vec(),
                parent: base.map_or(Digest::default(), |base| base.digest),
                changes: hashers
                    .iter()
                    .map(ChangeHasher::digest)
                    .collect::<Vec<ChangeDigest>>(),
                messages: shipped.len() as u64,
            },
            messages: shipped,
            after,
        }
    }

    pub(crate) fn sealed(&mut self, cycle: SourceCycle, point: PointRecord) {
        self.newest = Some(point.as_base());
        self.volumes = cycle.after.clone();
        self.points.push((point, cycle.after));
    }

    /// Ships and seals one cycle without incident.
    pub(crate) fn replicate(
        &mut self,
        writer: &mut ChainWriter,
        epoch: Epoch,
        nonce: u64,
        messages: &[Vec<Write>],
    ) {
        let cycle = self.cycle(epoch, nonce, messages);
        writer.begin(&cycle.begin).unwrap();
        cycle.append_from(writer, 1);
        let point = writer.seal(&cycle.seal).unwrap();
        self.sealed(cycle, point);
    }

    /// As [`assert_equal`](Self::assert_equal), but one point more may be there: the one whose seal went wrong
    /// after it was durable.
    pub(crate) fn assert_equal_or_one_more(&self, reader: &VaultReader) {
        let listed = reader.points(CHAIN).unwrap();
        assert!(listed.len() <= self.points.len() + 1);
        for ((point, disks), listed) in self.points.iter().zip(&listed) {
            assert_eq!(listed, point);
            assert_eq!(
                read_all(reader, point.sequence),
                *disks,
                "point {}",
                point.sequence
            );
        }
        assert!(listed.len() >= self.points.len());
    }

    /// Every sealed point is listed, and no other, and reads as the disks were.
    pub(crate) fn assert_equal(&self, reader: &VaultReader) {
        let listed = reader.points(CHAIN).unwrap();
        let sealed: Vec<_> = self.points.iter().map(|(point, _)| point.clone()).collect();
        let names = |points: &[PointRecord]| {
            points
                .iter()
                .map(|point| (point.sequence, point.cycle))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&listed), names(&sealed));
        assert!(listed == sealed, "{listed:#?}\n{sealed:#?}");
        for (point, disks) in &self.points {
            assert_eq!(
                read_all(reader, point.sequence),
                *disks,
                "point {}",
                point.sequence
            );
        }
    }
}

impl SourceCycle {
    /// Ships the messages from number `first` on.
    pub(crate) fn append_from(&self, writer: &mut ChainWriter, first: u64) {
        for (number, frames) in (1..).zip(&self.messages).filter(|(number, _)| *number >= first) {
            writer.append(self.begin.epoch, number, frames, &[]).unwrap();
        }
    }
}

/// All volumes of a point, read in pieces of an odd size.
pub(crate) fn read_all(reader: &VaultReader, point: Sequence) -> Vec<Vec<u8>> {
    try_to_read_all(reader, point).unwrap()
}

/// The same, where it may be impossible.
pub(crate) fn try_to_read_all(reader: &VaultReader, point: Sequence) -> Result<Vec<Vec<u8>>, ReadError> {
    let point = reader.open_point(CHAIN, point)?;
    let mut disks = Vec::new();
    for (number, volume) in (0..).zip(point.volumes()) {
        let mut disk = vec![0xee; volume.size.0 as usize];
        let whole = Extent::new(ByteOffset(0), volume.size);
        for piece in whole.iter().flat_map(|whole| whole.pieces(ByteCount(777))) {
            let (start, end) = (piece.start().0 as usize, piece.end().0 as usize);
            point.read_at(VolumeIndex(number), piece.start(), &mut disk[start..end])?;
        }
        disks.push(disk);
    }
    Ok(disks)
}

//! Tells a source what the blocks of a point, or of a seed, hash to, at the speed at which it wants to know.

use std::{ops::Range, sync::Arc, thread};

use farshore_blocks::{
    BlockHash, ByteCount, ByteOffset, ChainId, Epoch, Extent, HASHED_BLOCK, Sequence, VolumeIndex,
};
use farshore_proto::v1;
use farshore_vault::{HashSource, PointReader, ReadError, VaultError};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Targets, seeds::SeedDisk};
use crate::convert::{self, Malformed};

/// How many blocks one message tells of: 64 MiB of the disk in 12 KiB.
const BLOCKS_PER_MESSAGE: u64 = 1024;
/// As much of a seed: all of it is read, from a disk that may be slow, before the message can be sent.
const SEED_BLOCKS_PER_MESSAGE: u64 = 128;
/// How many messages wait for the source: it is told what it will compare soon, not all of its disk.
const WAITING_MESSAGES: usize = 2;
/// For how many sources hashes are made at once. They take turns, a message each, so that a resync of a large VM holds up nobody's audit,
/// and with it the next cycle.
const AT_ONCE: usize = 8;

type Answers = mpsc::Sender<Result<v1::BlockHashes, Status>>;
pub(crate) type Hashes = ReceiverStream<Result<v1::BlockHashes, Status>>;

/// Whose hashes are made now.
#[derive(Debug, Clone)]
pub(crate) struct Comparing {
    turns: Arc<Semaphore>,
}

impl Default for Comparing {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// As a thread takes them.
struct Turns {
    turns: Arc<Semaphore>,
    runtime: Handle,
}

impl Turns {
    /// Works when it is its turn.
    fn take<T>(&self, work: impl FnOnce() -> T) -> T {
        // It is never closed; were it, nobody would have to wait.
        let turn = self.runtime.block_on(self.turns.acquire());
        let done = work();
        drop(turn);
        done
    }
}

/// What a source wants to know.
struct Wanted {
    chain: ChainId,
    epoch: Epoch,
    point: Sequence,
    volume: VolumeIndex,
    first_block: u64,
    blocks: u64,
    from: HashedFrom,
}

/// Of what it wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashedFrom {
    Point(HashSource),
    Seed,
}

impl Comparing {
    /// Begins to answer.
    ///
    /// # Errors
    /// When the source may not know it, or there is no such point or volume.
    pub(crate) fn answer(&self, targets: &Targets, request: &v1::CompareRequest) -> Result<Hashes, Status> {
        let wanted = wanted(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        check_epoch(targets, &wanted)?;
        let turns = Turns {
            turns: Arc::clone(&self.turns),
            runtime: Handle::current(),
        };
        let targets = targets.clone();
        let (answers, stream) = mpsc::channel(WAITING_MESSAGES);
        thread::spawn(move || {
            let told = match wanted.from {
                HashedFrom::Point(from) => tell_of_point(&targets, &wanted, from, (&answers, &turns)),
                HashedFrom::Seed => tell_of_seed(&targets, &wanted, (&answers, &turns)),
            };
            if let Err(refused) = told {
                // Nobody may be listening any more.
                let _ = answers.blocking_send(Err(refused));
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

fn wanted(request: &v1::CompareRequest) -> Result<Wanted, Malformed> {
    Ok(Wanted {
        chain: convert::chain_in(&request.chain)?,
        epoch: convert::epoch_in(request.epoch.as_ref())?,
        point: Sequence(request.point),
        volume: VolumeIndex(request.volume),
        first_block: request.first_block,
        blocks: request.blocks,
        from: match request.hashed_from() {
            v1::HashedFrom::Index => HashedFrom::Point(HashSource::Index),
            v1::HashedFrom::Data => HashedFrom::Point(HashSource::Data),
            v1::HashedFrom::Seed => HashedFrom::Seed,
            v1::HashedFrom::Unspecified => return Err(Malformed::Missing("hashed_from")),
        },
    })
}

fn check_epoch(targets: &Targets, wanted: &Wanted) -> Result<(), Status> {
    let current = targets.vault.current_epoch(wanted.chain);
    let current = current.map_err(|error| Status::failed_precondition(crate::source::chain(&error)))?;
    if current.is_some_and(|current| wanted.epoch.may_write(&current)) {
        return Ok(());
    }
    let epoch = wanted.epoch;
    Err(Status::failed_precondition(format!(
        "epoch {epoch} is not the chain's, so that what its points hold is not told"
    )))
}

fn tell_of_point(
    targets: &Targets,
    wanted: &Wanted,
    from: HashSource,
    told_by: (&Answers, &Turns),
) -> Result<(), Status> {
    let opened = targets.reader().open_point(wanted.chain, wanted.point);
    let point: PointReader = opened.map_err(|error| status(&error))?;
    let volume = point.volumes().get(wanted.volume.as_usize());
    let size = volume
        .map(|volume| volume.size)
        .ok_or_else(|| no_volume(wanted))?;
    tell((size, BLOCKS_PER_MESSAGE), wanted, told_by, |first, count| {
        let hashes = point.block_hashes(wanted.volume, first, count, from);
        hashes.map_err(|error| status(&error))
    })
}

fn tell_of_seed(targets: &Targets, wanted: &Wanted, told_by: (&Answers, &Turns)) -> Result<(), Status> {
    let described = targets.reader().description(wanted.chain);
    let volumes = described.map_err(|error: VaultError| failed(&error))?.volumes;
    let volume = volumes.get(wanted.volume.as_usize());
    let size = volume
        .map(|volume| volume.size)
        .ok_or_else(|| no_volume(wanted))?;
    let seeds = targets.open_seeds(wanted.chain).map_err(|error| failed(&error))?;
    let seed = seeds.of(wanted.volume).ok_or_else(|| {
        Status::failed_precondition(format!("there is no seed of volume {} to be read", wanted.volume))
    })?;
    tell(
        (size, SEED_BLOCKS_PER_MESSAGE),
        wanted,
        told_by,
        |first, count| Ok(seed_hashes(seed, size, first..first.saturating_add(count))),
    )
}

fn seed_hashes(seed: &SeedDisk, size: ByteCount, blocks: Range<u64>) -> Vec<BlockHash> {
    let block = |number: u64| {
        let start = number.checked_mul(HASHED_BLOCK.0)?;
        let length = HASHED_BLOCK.0.min(size.0.checked_sub(start)?);
        Extent::new(ByteOffset(start), ByteCount(length))
    };
    blocks
        .map(|number| block(number).map_or(BlockHash::Unreadable, |extent| seed.hash(extent)))
        .collect()
}

/// Tells of block after block of a volume of this size, so many with a message, until it ends or nobody listens any more.
fn tell(
    (size, at_once): (ByteCount, u64),
    wanted: &Wanted,
    (answers, turns): (&Answers, &Turns),
    mut hashes: impl FnMut(u64, u64) -> Result<Vec<BlockHash>, Status>,
) -> Result<(), Status> {
    let end = wanted.first_block.saturating_add(wanted.blocks).min(blocks(size));
    let mut at = wanted.first_block;
    while at < end {
        let count = at_once.min(end - at);
        let hashes = turns.take(|| hashes(at, count))?;
        let message = v1::BlockHashes {
            first_block: at,
            hashes: hashes.into_iter().flat_map(BlockHash::to_bytes).collect(),
        };
        if answers.blocking_send(Ok(message)).is_err() {
            return Ok(());
        }
        at = at.saturating_add(count);
    }
    Ok(())
}

fn no_volume(wanted: &Wanted) -> Status {
    Status::out_of_range(format!("there is no volume {}", wanted.volume))
}

/// How many blocks a volume of this size has.
fn blocks(size: ByteCount) -> u64 {
    size.0.div_ceil(HASHED_BLOCK.0)
}

fn status(error: &ReadError) -> Status {
    failed(error)
}

fn failed(error: &dyn std::error::Error) -> Status {
    Status::failed_precondition(crate::source::chain(error))
}

//! Tells a source what the blocks of a point hash to, at the speed at which it wants to know.

use std::{sync::Arc, thread};

use farshore_blocks::{BlockHash, ByteCount, ChainId, Epoch, HASHED_BLOCK, Sequence, VolumeIndex};
use farshore_proto::v1;
use farshore_vault::{HashSource, PointReader, ReadError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Targets;
use crate::convert::{self, Malformed};

/// How many blocks one message tells of: 64 MiB of the disk in 12 KiB.
const BLOCKS_PER_MESSAGE: u64 = 1024;
/// How many messages wait for the source: it is told what it will compare soon, not all of its disk.
const WAITING_MESSAGES: usize = 2;
/// How many sources compare at once; more wait. Each has a thread that reads.
const AT_ONCE: usize = 8;

pub(crate) type Hashes = ReceiverStream<Result<v1::BlockHashes, Status>>;

/// Who may compare now.
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

/// What a source wants to know.
struct Wanted {
    chain: ChainId,
    epoch: Epoch,
    point: Sequence,
    volume: VolumeIndex,
    first_block: u64,
    blocks: u64,
    from: HashSource,
}

impl Comparing {
    /// Begins to answer.
    ///
    /// # Errors
    /// When the source may not know it, or there is no such point or volume.
    pub(crate) async fn answer(
        &self,
        targets: &Targets,
        request: &v1::CompareRequest,
    ) -> Result<Hashes, Status> {
        let wanted = wanted(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        check_epoch(targets, &wanted)?;
        let turns = Arc::clone(&self.turns);
        let turn = turns
            .acquire_owned()
            .await
            .map_err(|_| Status::unavailable("this replicator is stopping"))?;
        let reader = targets.reader().clone();
        let (answers, stream) = mpsc::channel(WAITING_MESSAGES);
        thread::spawn(move || {
            let opened = reader.open_point(wanted.chain, wanted.point);
            let ended = match opened.map_err(|error| status(&error)) {
                Ok(point) => tell(&point, &wanted, &answers, &turn),
                Err(refused) => Err(refused),
            };
            if let Err(refused) = ended {
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
            v1::HashedFrom::Index => HashSource::Index,
            v1::HashedFrom::Data => HashSource::Data,
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

/// Tells of block after block until the volume ends or nobody listens any more.
fn tell(
    point: &PointReader,
    wanted: &Wanted,
    answers: &mpsc::Sender<Result<v1::BlockHashes, Status>>,
    _turn: &OwnedSemaphorePermit,
) -> Result<(), Status> {
    let volume = point.volumes().get(wanted.volume.as_usize());
    let size = volume.map(|volume| volume.size);
    let size = size.ok_or_else(|| Status::out_of_range(format!("there is no volume {}", wanted.volume)))?;
    let end = wanted.first_block.saturating_add(wanted.blocks).min(blocks(size));
    let mut at = wanted.first_block;
    while at < end {
        let count = BLOCKS_PER_MESSAGE.min(end - at);
        let hashes = point
            .block_hashes(wanted.volume, at, count, wanted.from)
            .map_err(|error| status(&error))?;
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

/// How many blocks a volume of this size has.
fn blocks(size: ByteCount) -> u64 {
    size.0.div_ceil(HASHED_BLOCK.0)
}

fn status(error: &ReadError) -> Status {
    Status::failed_precondition(crate::source::chain(error))
}

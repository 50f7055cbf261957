//! What the target's point holds, block by block, as hashes: so that a scan ships only what differs, and an audit finds what
//! tracking missed. Or what its seed holds, where it has no point yet.
//!
//! The target tells of blocks in order, ahead of what is asked for. A cut wire is dialled again: nothing is lost but time.

use std::{collections::VecDeque, fmt, time::Duration};

use bytes::Bytes;
use farshore_blocks::{BlockHash, ByteCount, Extent, HASHED_BLOCK, Sequence, VolumeIndex};
use farshore_proto::v1::{self, replication_client::ReplicationClient};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{link::ANSWER_LIMIT, reach::Reach};
use crate::{assignment::Assignment, convert, pauses::Pauses};

/// How long a target that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A gap of more blocks than this is cheaper to ask anew behind than to hear: 1 GiB of the disk.
const MOST_PASSED_OVER: u64 = 16 * 1024;

/// From what the target makes its hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// What it noted when the bytes came.
    Noted,
    /// The bytes as they can be read there now.
    Read,
}

/// With what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    Point(Sequence),
    Seed,
}

impl fmt::Display for Compared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Point(point) => write!(out, "point {point}"),
            Self::Seed => out.write_str("seed"),
        }
    }
}

/// Why it cannot be told what differs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComparisonError {
    #[error("the target's address {endpoint} cannot be used")]
    Address {
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("the target does not tell what its {of} holds: {status}")]
    Refused { of: Compared, status: Box<Status> },
    #[error("the target ended its hashes of volume {volume} at block {at}, before block {wanted}")]
    Ended {
        volume: VolumeIndex,
        at: u64,
        wanted: u64,
    },
    #[error("the target tells hashes from block {told} on where block {due} was due")]
    OutOfOrder { told: u64, due: u64 },
}

impl ComparisonError {
    /// Whether the same question may be answered at another time.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Refused { status, .. } => is_passing(status),
            Self::Address { .. } | Self::Ended { .. } | Self::OutOfOrder { .. } => false,
        }
    }
}

/// Asks for the hashes of one point, or of a seed.
pub(crate) struct Comparison {
    client: ReplicationClient<Channel>,
    request: v1::CompareRequest,
    /// How many blocks are asked for at once.
    at_once: u64,
    told: Option<Told>,
    /// How large each volume is in the point, by index: what lies behind is zero there. None: as large as what is asked.
    sizes: Option<Vec<ByteCount>>,
}

/// What the target is telling.
struct Told {
    volume: VolumeIndex,
    /// The block of the first hash that was heard and not yet used.
    next: u64,
    heard: VecDeque<BlockHash>,
    incoming: Streaming<v1::BlockHashes>,
}

impl Comparison {
    /// With `point` of the assignment's chain. Nothing is dialled before the first question.
    pub(crate) fn with(
        (assignment, reach): (&Assignment, &Reach),
        point: Sequence,
        proof: Proof,
    ) -> Result<Self, ComparisonError> {
        let hashed_from = match proof {
            Proof::Noted => v1::HashedFrom::Index,
            Proof::Read => v1::HashedFrom::Data,
        };
        Self::of((assignment, reach), point, hashed_from)
    }

    /// With the seeds of the assignment's chain, as they are now.
    pub(crate) fn with_seed(assignment: &Assignment, reach: &Reach) -> Result<Self, ComparisonError> {
        Self::of((assignment, reach), Sequence(0), v1::HashedFrom::Seed)
    }

    fn of(
        (assignment, reach): (&Assignment, &Reach),
        point: Sequence,
        hashed_from: v1::HashedFrom,
    ) -> Result<Self, ComparisonError> {
        let channel = reach
            .connect_when_needed()
            .map_err(|source| ComparisonError::Address {
                endpoint: reach.to_string(),
                source,
            })?;
        Ok(Self {
            client: ReplicationClient::new(channel),
            request: v1::CompareRequest {
                chain: assignment.chain.as_bytes().to_vec().into(),
                epoch: Some(convert::epoch_out(assignment.epoch)),
                point: point.0,
                hashed_from: hashed_from.into(),
                ..v1::CompareRequest::default()
            },
            at_once: u64::MAX,
            told: None,
            sizes: None,
        })
    }

    /// The volumes are so large in the point; the disks may have grown since.
    pub(crate) fn of_volumes(self, sizes: Vec<ByteCount>) -> Self {
        Self {
            sizes: Some(sizes),
            ..self
        }
    }

    /// From now on with another point, asking for so many blocks at once and not for all.
    pub(crate) fn turn_to(&mut self, point: Sequence, at_once: u64) {
        self.request.point = point.0;
        self.at_once = at_once;
        self.told = None;
    }

    /// What was told ahead is not believed any more.
    pub(crate) fn ask_anew(&mut self) {
        self.told = None;
    }

    /// Which parts of `raw`, the bytes of whole blocks at `extent`, the point does not hold.
    pub(crate) async fn differing(
        &mut self,
        volume: VolumeIndex,
        extent: Extent,
        raw: &Bytes,
    ) -> Result<Vec<(Extent, Bytes)>, ComparisonError> {
        let mut rest = raw.clone();
        let mut differing = Vec::new();
        for block in extent.pieces(HASHED_BLOCK) {
            let length = usize::try_from(block.length().0).unwrap_or(usize::MAX);
            let bytes = rest.split_to(length.min(rest.len()));
            let there = self.hash(volume, block.start().0 / HASHED_BLOCK.0).await?;
            if !there.agrees_with(BlockHash::of(&bytes)) {
                differing.push((block, bytes));
            }
        }
        Ok(differing)
    }

    /// Which parts of `extent`, whole blocks that are known to be zero, the point holds otherwise.
    pub(crate) async fn not_zero(
        &mut self,
        volume: VolumeIndex,
        extent: Extent,
    ) -> Result<Vec<Extent>, ComparisonError> {
        let mut differing = Vec::new();
        for block in extent.pieces(HASHED_BLOCK) {
            let there = self.hash(volume, block.start().0 / HASHED_BLOCK.0).await?;
            if !there.agrees_with(BlockHash::Zero) {
                differing.push(block);
            }
        }
        Ok(differing)
    }

    async fn hash(&mut self, volume: VolumeIndex, block: u64) -> Result<BlockHash, ComparisonError> {
        if let Some(sizes) = &self.sizes {
            let size = sizes.get(volume.as_usize()).map_or(0, |size| size.0);
            if block.saturating_mul(HASHED_BLOCK.0) >= size {
                return Ok(BlockHash::Zero);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut pauses = Pauses::between(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let status = match self.try_hash(volume, block).await {
                Ok(hash) => return Ok(hash),
                Err(Unheard::For(error)) => return Err(error),
                Err(Unheard::Wire(status)) => status,
            };
            self.told = None;
            if !is_passing(&status) || Instant::now() >= deadline {
                return Err(ComparisonError::Refused {
                    of: match self.request.hashed_from() {
                        v1::HashedFrom::Seed => Compared::Seed,
                        v1::HashedFrom::Index | v1::HashedFrom::Data | v1::HashedFrom::Unspecified => {
                            Compared::Point(Sequence(self.request.point))
                        }
                    },
                    status,
                });
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    async fn try_hash(&mut self, volume: VolumeIndex, block: u64) -> Result<BlockHash, Unheard> {
        let mut told = match self.told.take().filter(|told| told.leads_to(volume, block)) {
            Some(told) => told,
            None => self.ask(volume, block).await?,
        };
        let hash = told.hear(block).await?;
        self.told = Some(told);
        Ok(hash)
    }

    async fn ask(&mut self, volume: VolumeIndex, first_block: u64) -> Result<Told, Unheard> {
        let request = v1::CompareRequest {
            volume: volume.0,
            first_block,
            blocks: self.at_once,
            ..self.request.clone()
        };
        let answer = timeout(ANSWER_LIMIT, self.client.compare(request)).await;
        let incoming = answer.map_err(|_| silent())??.into_inner();
        Ok(Told {
            volume,
            next: first_block,
            heard: VecDeque::new(),
            incoming,
        })
    }
}

impl Told {
    fn leads_to(&self, volume: VolumeIndex, block: u64) -> bool {
        self.volume == volume && (self.next..=self.next.saturating_add(MOST_PASSED_OVER)).contains(&block)
    }

    async fn hear(&mut self, block: u64) -> Result<BlockHash, Unheard> {
        loop {
            while let Some(hash) = self.heard.pop_front() {
                let at = self.next;
                self.next = self.next.saturating_add(1);
                if at == block {
                    return Ok(hash);
                }
            }
            let message = timeout(ANSWER_LIMIT, self.incoming.message()).await;
            let Some(message) = message.map_err(|_| silent())?? else {
                return Err(Unheard::For(ComparisonError::Ended {
                    volume: self.volume,
                    at: self.next,
                    wanted: block,
                }));
            };
            if message.first_block != self.next {
                return Err(Unheard::For(ComparisonError::OutOfOrder {
                    told: message.first_block,
                    due: self.next,
                }));
            }
            let (hashes, _) = message.hashes.as_chunks::<{ BlockHash::LENGTH }>();
            self.heard
                .extend(hashes.iter().copied().map(BlockHash::from_bytes));
        }
    }
}

/// Why a hash was not heard.
enum Unheard {
    /// It will not be, either.
    For(ComparisonError),
    /// The wire, or the target's side of it.
    Wire(Box<Status>),
}

impl From<Status> for Unheard {
    fn from(status: Status) -> Self {
        Self::Wire(Box::new(status))
    }
}

fn silent() -> Status {
    Status::deadline_exceeded(format!("no hash came within {ANSWER_LIMIT:?}"))
}

/// Whether asking again may help.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::DeadlineExceeded
    )
}

//! One source's session as its own thread sees it: every vault write of the chain happens here, in order.
//!
//! Acknowledgements are sent after a sync and name only what it made durable. A sync is made when nothing more waits,
//! or when enough has piled up, so that a busy stream shares one sync among many messages.

mod incoming;
mod seeded;

use std::thread;

use farshore_blocks::{ByteCount, ChainId, Epoch, clock::WallTime};
use farshore_proto::v1::{self, target_message::Body};
use farshore_transfer::{Bounds, Early, PointHead, Share};
use farshore_vault::{
    ChainWriter, CycleBegin, CycleKind, OpenCycle, PointRecord, SealRequest, VolumeDescription,
};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use incoming::CarriedChanges;
pub(crate) use incoming::{Incoming, SealWords};

use super::{
    Targets,
    carriers::{self, SessionId},
    earliest_here,
    refusal::Refusal,
    seats::Seat,
    seeds::OpenSeeds,
};
use crate::convert;

/// How much may be written before it is synced although more is waiting.
const SYNC_BYTES: ByteCount = ByteCount(8 * 1024 * 1024);
/// How many unacknowledged bytes a source may have under way at most, if few are.
const WINDOW: ByteCount = ByteCount(32 * 1024 * 1024);
/// What sources have under way waits in memory here: this much of all, and no less of each than two messages.
pub(super) const WINDOWS: Bounds = Bounds {
    total: ByteCount(256 * 1024 * 1024),
    least: ByteCount(2 * 1024 * 1024),
    most: WINDOW,
};

/// What the hello settled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionStart {
    /// Of the protocol.
    pub(crate) version: u32,
    pub(crate) session: SessionId,
    pub(crate) chain: ChainId,
    pub(crate) epoch: Epoch,
    pub(crate) hello_received_at: WallTime,
}

/// A session's thread, to be waited for.
pub(crate) struct SessionThread {
    ended: oneshot::Receiver<()>,
}

type Answers = mpsc::Sender<Result<v1::TargetMessage, Status>>;

/// The thread's state.
struct Session {
    targets: Targets,
    start: SessionStart,
    writer: ChainWriter,
    /// None once a point is sealed.
    seeds: OpenSeeds,
    answers: Answers,
    unsynced: ByteCount,
    early: Early<CarriedChanges>,
    carried: Carried,
    /// While a cycle is under way.
    share: Option<Share>,
}

/// How changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// In the session's stream.
    InOrder,
    /// On several connections: they may overtake one another.
    Apart,
}

/// The source went away: nobody is left to answer.
#[derive(Debug, Clone, Copy)]
struct SourceGone;

/// Why a session ends before its messages do.
enum Ending {
    Refused(Refusal),
    SourceGone,
}

impl From<SourceGone> for Ending {
    fn from(SourceGone: SourceGone) -> Self {
        Self::SourceGone
    }
}

impl<R: Into<Refusal>> From<R> for Ending {
    fn from(refused: R) -> Self {
        Self::Refused(refused.into())
    }
}

/// Starts the thread; it holds the seat until it ends, which it does when `waiting` is closed.
pub(crate) fn spawn(
    targets: Targets,
    start: SessionStart,
    seat: Seat,
    waiting: mpsc::Receiver<Incoming>,
    answers: Answers,
) -> SessionThread {
    let (done, ended) = oneshot::channel();
    thread::spawn(move || {
        let chain = start.chain;
        targets.change(chain, |standing| standing.source_connected = true);
        if let Err(Ending::Refused(refusal)) = serve(&targets, start, waiting, &answers) {
            tracing::warn!(%chain, reason = refusal.reason.as_str_name(), refusal.message, "a session ends");
            if refusal.reason == v1::RefusalReason::Fenced {
                targets.change(chain, |standing| {
                    standing.refused_fenced = standing.refused_fenced.saturating_add(1);
                });
            }
            let _ = answer(&answers, Body::Refused(refusal.into_message()));
        }
        targets.change(chain, |standing| standing.source_connected = false);
        drop(seat);
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    SessionThread { ended }
}

/// Waits until the thread has ended.
pub(crate) async fn join(thread: SessionThread) {
    // An error says that the thread is gone, which is what is waited for.
    let _ = thread.ended.await;
}

fn serve(
    targets: &Targets,
    start: SessionStart,
    mut waiting: mpsc::Receiver<Incoming>,
    answers: &Answers,
) -> Result<(), Ending> {
    let writer = targets.vault.chain_writer(start.chain)?;
    let mut session = Session {
        targets: targets.clone(),
        start,
        writer,
        seeds: targets.open_seeds(start.chain)?,
        answers: answers.clone(),
        unsynced: ByteCount(0),
        early: Early::new(WINDOW),
        carried: Carried::InOrder,
        share: None,
    };
    session.welcome()?;
    while let Some(first) = waiting.blocking_recv() {
        session.handle(first)?;
        while session.unsynced < SYNC_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            session.handle(next)?;
        }
        session.acknowledge()?;
    }
    Ok(())
}

fn answer(answers: &Answers, body: Body) -> Result<(), SourceGone> {
    answers
        .blocking_send(Ok(v1::TargetMessage { body: Some(body) }))
        .map_err(|_| SourceGone)
}

impl Session {
    fn welcome(&self) -> Result<(), SourceGone> {
        let head = self.writer.head();
        let welcome = v1::Welcome {
            protocol_version: self.start.version,
            vault_incarnation: self.targets.incarnation().as_bytes().to_vec().into(),
            newest: head.newest.as_ref().map(point_head),
            open: head.open.as_ref().map(open_out),
            hello_received_at: Some(convert::time_out(self.start.hello_received_at)),
            sent_at: Some(convert::time_out(WallTime::now())),
            window_bytes: self.targets.windows.next().0,
            volumes: self.writer.volumes().iter().map(volume_out).collect(),
            newest_sizes: match head.newest {
                Some(_) => self.writer.volumes_of_newest(),
                None => Vec::new(),
            }
            .iter()
            .map(|volume| volume.size.0)
            .collect(),
            seeds: self.seeds.told(),
            session: self.start.session.to_vec().into(),
            carriers: carriers::MOST,
        };
        answer(&self.answers, Body::Welcome(welcome))
    }

    fn handle(&mut self, incoming: Incoming) -> Result<(), Ending> {
        match incoming {
            Incoming::Begin {
                cycle,
                kind,
                base,
                volumes,
            } => {
                let epoch = self.start.epoch;
                if !volumes.is_empty() {
                    self.writer.set_volumes(epoch, &volumes)?;
                }
                let open = self.writer.begin(&CycleBegin {
                    epoch,
                    cycle,
                    base,
                    kind,
                })?;
                self.unsynced = ByteCount(0);
                self.early.begin_behind(open.last_message);
                let windows = &self.targets.windows;
                let share = self.share.get_or_insert_with(|| windows.join());
                let window_bytes = share.bytes().0;
                answer(
                    &self.answers,
                    Body::Begun(v1::CycleBegun {
                        open: Some(open_out(&open)),
                        window_bytes,
                    }),
                )?;
            }
            Incoming::Changes(changes) => self.take(changes)?,
            Incoming::CarrierJoined => self.carried = Carried::Apart,
            Incoming::Seal(words) => self.seal(*words)?,
            Incoming::Abandon { cycle } => {
                self.writer.abandon(self.start.epoch, cycle)?;
                self.unsynced = ByteCount(0);
                self.share = None;
                answer(&self.answers, Body::Abandoned(v1::Abandoned { cycle }))?;
            }
            Incoming::StillValid {
                through,
                offset_nanoseconds,
                uncertainty,
            } => {
                // Only the holder of the epoch may say what is still true.
                self.check_fence()?;
                let here = earliest_here(through, offset_nanoseconds, uncertainty);
                let newest = self.writer.head().newest.map(|point| point.sequence);
                self.targets.still_valid(self.start.chain, newest, here);
            }
        }
        Ok(())
    }

    /// Takes a message in when it is its turn, and those that waited for it.
    fn take(&mut self, changes: CarriedChanges) -> Result<(), Ending> {
        let number = changes.number;
        if self.carried == Carried::Apart && !self.early.is_due(number) {
            return Ok(self.early.keep(number, (changes.held(), changes))?);
        }
        self.append(changes)?;
        self.early.took(number);
        while let Some((next, changes)) = self.early.pop_due() {
            self.append(changes)?;
            self.early.took(next);
        }
        Ok(())
    }

    fn append(&mut self, changes: CarriedChanges) -> Result<(), Ending> {
        let frames = match seeded::with_bytes(changes.changes, &self.seeds) {
            Ok(frames) => frames,
            Err(refusal) => {
                // What came before it need not travel again.
                self.acknowledge()?;
                return Err(Ending::Refused(refusal));
            }
        };
        let epoch = self.start.epoch;
        self.writer
            .append(epoch, changes.number, &frames, &changes.watermarks)?;
        // A message counts even if it is empty or was held already: its acknowledgement is owed.
        let bytes = frames
            .iter()
            .map(|frame| frame.raw_length().0)
            .fold(1, u64::saturating_add);
        self.unsynced = ByteCount(self.unsynced.0.saturating_add(bytes));
        Ok(())
    }

    fn seal(&mut self, words: SealWords) -> Result<(), Ending> {
        let request = SealRequest {
            epoch: self.start.epoch,
            cycle: words.cycle,
            sequence: words.sequence,
            captured_at: words.captured_at,
            clock_offset_nanoseconds: words.offset_nanoseconds,
            clock_uncertainty: words.uncertainty,
            kind: words.kind,
            machine: words.machine,
            parent: words.parent,
            changes: words.changes,
            messages: words.messages,
        };
        let point = self.writer.seal(&request)?;
        self.unsynced = ByteCount(0);
        self.share = None;
        self.targets.sealed(self.start.chain, &point);
        if point.cycle_kind == CycleKind::Base {
            self.end_seeds();
        }
        answer(
            &self.answers,
            Body::Sealed(v1::Sealed {
                point: Some(point_head(&point)),
            }),
        )?;
        Ok(())
    }

    /// From the first point on there is no use for them.
    fn end_seeds(&mut self) {
        self.seeds = OpenSeeds::default();
        if let Err(error) = self.targets.forget_seeds(self.start.chain) {
            // They are not used any more, and a restart forgets them.
            let error = crate::source::chain(&error);
            tracing::warn!(chain = %self.start.chain, error, "the seeds of a chain are not forgotten");
        }
    }

    fn acknowledge(&mut self) -> Result<(), Ending> {
        if self.unsynced == ByteCount(0) {
            return Ok(());
        }
        let durable = self.writer.sync()?;
        self.unsynced = ByteCount(0);
        let cycle = self.writer.head().open.map_or(0, |open| open.cycle);
        let acknowledged = v1::Acknowledged {
            cycle,
            durable_through_message: durable.message_number,
            window_bytes: self.share.as_ref().map_or(0, |share| share.bytes().0),
        };
        answer(&self.answers, Body::Acknowledged(acknowledged))?;
        Ok(())
    }

    fn check_fence(&self) -> Result<(), Ending> {
        let current = self.targets.vault.current_epoch(self.start.chain)?;
        if current == Some(self.start.epoch) {
            return Ok(());
        }
        Err(Ending::Refused(Refusal {
            reason: v1::RefusalReason::Fenced,
            message: format!("epoch {} is no longer the chain's", self.start.epoch),
            current: current.map(convert::epoch_out),
        }))
    }
}

fn volume_out(volume: &VolumeDescription) -> v1::Volume {
    v1::Volume {
        name: volume.name.clone(),
        size_bytes: volume.size.0,
    }
}

fn point_head(point: &PointRecord) -> v1::PointHead {
    convert::point_head_out(PointHead {
        sequence: point.sequence,
        digest: point.digest,
    })
}

fn open_out(open: &OpenCycle) -> v1::OpenCycle {
    let kind = match open.kind {
        CycleKind::Base => v1::CycleKind::Base,
        CycleKind::Delta => v1::CycleKind::Delta,
        CycleKind::Resync => v1::CycleKind::Resync,
    };
    let watermarks = (0u32..).zip(&open.watermarks);
    v1::OpenCycle {
        cycle: open.cycle,
        kind: kind.into(),
        sequence: open.sequence.0,
        durable_through_message: open.last_message,
        watermarks: watermarks
            .map(|(volume, mark)| v1::Watermark {
                volume,
                scanned_through_bytes: mark.0,
            })
            .collect(),
        changes: open.changes.iter().copied().map(convert::change_out).collect(),
    }
}

//! The threads that ask the export: a few at a time per connection, each working off what is queued.
//!
//! A thread that was woken goes on until nothing is queued. Reads that take only the processors' time are done by one
//! thread per processor: more of them would take turns for nothing. Reads that wait for a disk are done side by side by
//! more threads; which of the two they are is seen by how long they take.
//!
//! Threads never wait for a client: every reply has its place in the connection's queue of replies, because it holds a
//! share of the connection's bounds.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::admission::Work;
use super::answers;
use super::buffers::Buffers;
use super::pieces::Part;
use crate::bounds::Share;
use crate::export::Export;
use crate::wire::error_code::ErrorCode;

/// Threads of one connection at a time while reads wait for a disk. More of them would find the same disk busy.
const LANES_MAXIMUM: usize = 8;

/// A read that takes longer than this, and than its bytes take, has waited: in memory, it is a matter of microseconds.
const QUICK_READ: Duration = Duration::from_micros(60);

/// What its bytes may take: checking and copying them is several times as fast.
const QUICK_BYTE: Duration = Duration::from_nanos(1);

/// What a thread does before others get their turn: without such a bound, some clients that ask without end could keep
/// all threads of the process.
const JOBS_PER_TURN: usize = 64;

/// A question to the export, with its share of the bounds.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) part: Part,
    pub(super) share: Share,
}

/// A reply on its way, with its share of the bounds.
pub(super) struct Reply {
    pub(super) bytes: Bytes,
    pub(super) part: Part,
    pub(super) share: Share,
}

/// The threads of one connection. When this is dropped, they do what is queued, and then the queue of replies ends.
pub(super) struct Lanes {
    shared: Arc<Shared>,
}

struct Shared {
    export: Arc<dyn Export>,
    buffers: Buffers,
    queue: Mutex<Queue>,
    processors: usize,
    replies: mpsc::Sender<Reply>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
    pace: Pace,
}

/// Whether reads wait for a disk, as far as the last one shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pace {
    #[default]
    Quick,
    Slow,
}

impl Pace {
    fn of(work: &Work, took: Duration) -> Self {
        if took > QUICK_READ + QUICK_BYTE * work.length {
            Self::Slow
        } else {
            Self::Quick
        }
    }
}

impl Lanes {
    /// `replies` must have room for one reply of every share.
    pub(super) fn new(export: Arc<dyn Export>, buffers: Buffers, replies: mpsc::Sender<Reply>) -> Self {
        Self {
            shared: Arc::new(Shared {
                export,
                buffers,
                queue: Mutex::default(),
                processors: available_parallelism().map_or(1, usize::from),
                replies,
            }),
        }
    }

    /// Queues a job, for which a thread is woken unless enough of them are at work.
    pub(super) fn push(&self, job: Job) {
        let mut queue = self.shared.queue();
        queue.waiting.push_back(job);
        let wake = self.shared.wakes_another(&mut queue);
        drop(queue);
        if wake {
            Shared::start(&self.shared);
        }
    }
}

impl Shared {
    /// Starts a lane that is counted already.
    fn start(shared: &Arc<Self>) {
        let lane = Arc::clone(shared);
        tokio::task::spawn_blocking(move || Self::run(&lane));
    }

    fn run(shared: &Arc<Self>) {
        for _ in 0..JOBS_PER_TURN {
            let Some(job) = shared.next_job() else {
                return;
            };
            let began = Instant::now();
            let bytes = shared.answer(&job.work);
            let pace = Pace::of(&job.work, began.elapsed());
            let Job { part, share, .. } = job;
            let sent = shared.replies.blocking_send(Reply { bytes, part, share });
            let mut queue = shared.queue();
            queue.pace = pace;
            if sent.is_err() {
                // The connection is gone, and nobody wants the rest.
                queue.waiting.clear();
            }
        }
        Self::start(shared);
    }

    /// The next job, for which another lane is woken if there are more; without one, this lane ends.
    fn next_job(self: &Arc<Self>) -> Option<Job> {
        let mut queue = self.queue();
        let Some(job) = queue.waiting.pop_front() else {
            queue.running -= 1;
            return None;
        };
        let wake = self.wakes_another(&mut queue);
        drop(queue);
        if wake {
            Self::start(self);
        }
        Some(job)
    }

    /// Whether one more lane is to be started; it is counted then.
    fn wakes_another(&self, queue: &mut Queue) -> bool {
        let lanes = match queue.pace {
            Pace::Quick => self.processors.min(LANES_MAXIMUM),
            Pace::Slow => LANES_MAXIMUM,
        };
        let wakes = !queue.waiting.is_empty() && queue.running < lanes;
        if wakes {
            queue.running += 1;
        }
        wakes
    }

    fn answer(&self, work: &Work) -> Bytes {
        let answered = catch_unwind(AssertUnwindSafe(|| {
            answers::answer(self.export.as_ref(), work, &self.buffers)
        }));
        answered.unwrap_or_else(|_| {
            tracing::error!(
                offset = work.offset,
                length = work.length,
                "an NBD export panicked"
            );
            answers::error(work.envelope, ErrorCode::INPUT_OUTPUT, "the export failed")
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while the lock is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

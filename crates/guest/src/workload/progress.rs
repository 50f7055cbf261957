//! What the workload has done so far: the one state that writers, reporter and server share.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{latency::Latencies, record::Stream, status::BootVerdict, witness::Acknowledged};

/// Errors that wait for the reporter; beyond that the oldest go, and the count still tells.
const ERRORS_KEPT: usize = 64;

/// The shared state.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    acknowledged: Acknowledged,
    io_errors: u64,
    unreported_errors: VecDeque<String>,
    longest_write: Duration,
    /// Of the regions' writes, since they were last taken.
    latencies: Latencies,
    region_write_since: Option<Instant>,
    journal_write_since: Option<Instant>,
}

/// What `GET /status` shows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) acknowledged: Acknowledged,
    pub(super) io_errors: u64,
    pub(super) longest_write: Duration,
}

impl Progress {
    pub(super) fn starting_from(verdict: &BootVerdict) -> Self {
        let state = State {
            acknowledged: Acknowledged {
                region_a: verdict.region_a_last,
                region_b: verdict.region_b_last,
                journal: verdict.ext4_last,
            },
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Performs the write of one record: times it, and keeps its acknowledgement or its error.
    pub(super) fn record(
        &self,
        stream: Stream,
        number: u64,
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let begun = Instant::now();
        *self.state().since(stream) = Some(begun);
        let result = write();
        let mut state = self.state();
        let took = begun.elapsed();
        state.longest_write = state.longest_write.max(took);
        *state.since(stream) = None;
        match &result {
            Ok(()) => state.acknowledge(stream, number, took),
            Err(error) => state.fail(format!("{stream:?}, record {number}: {error}")),
        }
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Waits until there is something that `told` does not say, and takes the errors.
    pub(super) fn news_since(&self, told: Acknowledged) -> (Acknowledged, Vec<String>) {
        let nothing_new =
            |state: &mut State| state.acknowledged == told && state.unreported_errors.is_empty();
        let mut state = self
            .changed
            .wait_while(self.state(), nothing_new)
            .unwrap_or_else(PoisonError::into_inner);
        (state.acknowledged, state.unreported_errors.drain(..).collect())
    }

    /// How long the regions' writes took since this was last asked.
    pub(super) fn take_latencies(&self) -> Latencies {
        mem::take(&mut self.state().latencies)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let under_way = [state.region_write_since, state.journal_write_since];
        let longest_under_way = under_way.into_iter().flatten().map(|since| since.elapsed()).max();
        Snapshot {
            acknowledged: state.acknowledged,
            io_errors: state.io_errors,
            longest_write: state.longest_write.max(longest_under_way.unwrap_or_default()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn since(&mut self, stream: Stream) -> &mut Option<Instant> {
        match stream {
            Stream::RegionA | Stream::RegionB => &mut self.region_write_since,
            Stream::Journal => &mut self.journal_write_since,
        }
    }

    fn acknowledge(&mut self, stream: Stream, number: u64, took: Duration) {
        let last = match stream {
            Stream::RegionA => &mut self.acknowledged.region_a,
            Stream::RegionB => &mut self.acknowledged.region_b,
            Stream::Journal => &mut self.acknowledged.journal,
        };
        *last = number;
        if stream != Stream::Journal {
            self.latencies.add(took);
        }
    }

    fn fail(&mut self, error: String) {
        self.io_errors += 1;
        if self.unreported_errors.len() == ERRORS_KEPT {
            self.unreported_errors.pop_front();
        }
        self.unreported_errors.push_back(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_counted_told_once_and_acknowledges_nothing() {
        let progress = Progress::default();
        progress.record(Stream::RegionA, 1, || Ok(())).unwrap();
        progress
            .record(Stream::RegionB, 1, || Err(io::Error::other("broken")))
            .unwrap_err();
        let (acknowledged, errors) = progress.news_since(Acknowledged::default());
        assert_eq!(
            acknowledged,
            Acknowledged {
                region_a: 1,
                region_b: 0,
                journal: 0
            }
        );
        assert_eq!(errors, ["RegionB, record 1: broken"]);
        assert_eq!(progress.take_latencies().count(), 1);
        assert_eq!(progress.take_latencies().count(), 0);
        assert_eq!(progress.snapshot().io_errors, 1);
    }

    #[test]
    fn a_write_that_has_not_ended_counts_as_a_stall_already() {
        let progress = Progress::default();
        let seen = |snapshot: Snapshot| snapshot.longest_write;
        progress
            .record(Stream::Journal, 1, || {
                let first = seen(progress.snapshot());
                while seen(progress.snapshot()) <= first {}
                Ok(())
            })
            .unwrap();
        assert!(seen(progress.snapshot()) > Duration::ZERO);
    }
}

//! How fast maintenance may work, and whether it may go on.

use std::{
    num::NonZeroU64,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use farshore_blocks::ByteCount;

/// Bounds the work of maintenance. It is asked before each file that is written and about every MiB, and may wait
/// before it answers.
pub trait Pace {
    /// So many bytes were read, written or both. What was begun is given up when this says stop: nothing is lost,
    /// and the next pass begins it again.
    fn spend(&mut self, bytes: ByteCount) -> Go;
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// Yes.
    On,
    /// No.
    Stop,
}

/// As fast as the disks are, to the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Pace for Unlimited {
    fn spend(&mut self, _bytes: ByteCount) -> Go {
        Go::On
    }
}

/// At most so many bytes a second, until it is told to stop.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: NonZeroU64,
    switch: StopSwitch,
    /// When what was spent so far is paid for.
    paid_at: Option<Instant>,
}

/// Stops a [`Throttle`], also while it waits.
#[derive(Debug, Clone, Default)]
pub struct StopSwitch {
    shared: Arc<(Mutex<Stopped>, Condvar)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stopped {
    #[default]
    NotYet,
    Now,
}

impl Throttle {
    /// A pace of at most so many bytes a second.
    #[must_use]
    pub fn new(bytes_per_second: NonZeroU64, switch: StopSwitch) -> Self {
        Self {
            bytes_per_second,
            switch,
            paid_at: None,
        }
    }

    fn cost(&self, bytes: ByteCount) -> Duration {
        let nanoseconds =
            u128::from(bytes.0).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

impl Pace for Throttle {
    fn spend(&mut self, bytes: ByteCount) -> Go {
        let now = Instant::now();
        // Time in which nothing was spent is not saved up.
        let from = self.paid_at.map_or(now, |paid_at| paid_at.max(now));
        let paid_at = from.checked_add(self.cost(bytes));
        self.paid_at = paid_at;
        self.switch
            .wait(paid_at.map_or(Duration::MAX, |paid_at| paid_at.saturating_duration_since(now)))
    }
}

impl StopSwitch {
    /// Stops whoever waits now or asks later.
    pub fn stop(&self) {
        let (stopped, changed) = &*self.shared;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = Stopped::Now;
        changed.notify_all();
    }

    fn wait(&self, longest: Duration) -> Go {
        let (stopped, changed) = &*self.shared;
        let held = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(held, longest, |stopped| *stopped == Stopped::NotYet);
        let (stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match *stopped {
            Stopped::NotYet => Go::On,
            Stopped::Now => Go::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_takes_as_long_as_its_rate_says() {
        let mut pace = Throttle::new(NonZeroU64::new(1_000_000).unwrap(), StopSwitch::default());
        let begun = Instant::now();
        for _ in 0..10 {
            assert_eq!(pace.spend(ByteCount(5_000)), Go::On);
        }
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_throttle_that_waits_is_stopped_at_once() {
        let switch = StopSwitch::default();
        let mut pace = Throttle::new(NonZeroU64::new(1).unwrap(), switch.clone());
        let begun = Instant::now();
        let waiting = std::thread::spawn(move || pace.spend(ByteCount(3_600)));
        switch.stop();
        assert_eq!(waiting.join().unwrap(), Go::Stop);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

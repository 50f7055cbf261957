//! Time as the control plane sees it: a parameter, so that tests need not wait.

use std::{future::Future, pin::Pin};

use farshore_blocks::clock::WallTime;

/// A wait under way.
pub type Sleeping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells the time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// What it is now.
    fn now(&self) -> WallTime;

    /// Returns when it is this time or later.
    fn sleep_until(&self, time: WallTime) -> Sleeping;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> WallTime {
        WallTime::now()
    }

    fn sleep_until(&self, time: WallTime) -> Sleeping {
        Box::pin(tokio::time::sleep(time.since(WallTime::now())))
    }
}

//! The upkeep of a vault by its owner, on a thread of its own: what the policies let go goes, its space is given back,
//! and all that is kept is read again and again.
//!
//! Nothing here brings the replicator down. What fails is logged once, with its chain, and tried again later.

mod round;
mod scrubbing;
#[cfg(test)]
mod tests;
mod troubles;

use std::{
    io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use farshore_blocks::{ByteCount, clock::WallTime};
use farshore_vault::{Go, Pace, StopSwitch, Throttle};

use super::Targets;
use crate::{configuration::VaultUpkeep, metrics::VaultMetrics};
use round::Rounds;

/// How long nothing is done between two rounds.
const PAUSE: Duration = Duration::from_secs(3);

/// The thread. Dropped, it ends soon; [`stop`](Self::stop) also waits for it.
#[derive(Debug)]
pub(crate) struct Upkeep {
    switch: StopSwitch,
    thread: Option<JoinHandle<()>>,
    /// The thread waits on the other end, and ends when this one is gone.
    stay: Option<SyncSender<()>>,
}

/// What both kinds of work need.
#[derive(Clone)]
struct Means {
    targets: Targets,
    rates: VaultUpkeep,
    metrics: VaultMetrics,
    switch: StopSwitch,
    uptime: Uptime,
}

/// How long the process has been up; a test has one that it moves.
type Uptime = Arc<dyn Fn() -> Duration + Send + Sync>;

impl Means {
    fn pace(&self) -> Throttle {
        Throttle::new(self.rates.maintenance_rate.0, self.switch.clone())
    }

    fn is_stopped(&self) -> bool {
        // Nothing is spent, so nothing is waited for.
        self.pace().spend(ByteCount(0)) == Go::Stop
    }
}

impl Upkeep {
    /// Starts the thread, which first does a round.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(crate) fn start(targets: Targets, rates: VaultUpkeep, metrics: VaultMetrics) -> io::Result<Self> {
        let begun = Instant::now();
        let switch = StopSwitch::default();
        let mut rounds = Rounds::new(Means {
            targets,
            rates,
            metrics,
            switch: switch.clone(),
            uptime: Arc::new(move || begun.elapsed()),
        });
        let (stay, gone) = sync_channel::<()>(0);
        let thread = thread::Builder::new()
            .name("vault-upkeep".to_owned())
            .spawn(move || {
                loop {
                    rounds.go(WallTime::now());
                    match gone.recv_timeout(PAUSE) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            })?;
        Ok(Self {
            switch,
            thread: Some(thread),
            stay: Some(stay),
        })
    }

    /// Ends the thread and waits for it: it goes on to the next MiB at most.
    pub(crate) async fn stop(mut self) {
        self.let_go();
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the upkeep of the vault ended by a defect");
        }
    }

    fn let_go(&mut self) {
        self.switch.stop();
        self.stay = None;
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.let_go();
    }
}

//! Takes the time of every command that a replicator gives a VM's monitor.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use farshore_tests::monitor_proxy::{Heard, MonitorProxy, Next, Onlooker};

/// A command and how long QEMU took to answer.
#[derive(Debug, Clone)]
pub(crate) struct Timed {
    pub(crate) command: String,
    /// Its length.
    pub(crate) bytes: usize,
    pub(crate) took: Duration,
}

/// The tap; it ends with the value.
pub(crate) struct MonitorTap {
    proxy: MonitorProxy,
    seen: Arc<Mutex<Vec<Timed>>>,
}

/// What the tap does with what passes.
struct Timing {
    /// Commands without an answer yet, by their identifier.
    under_way: HashMap<String, (String, usize, Instant)>,
    seen: Arc<Mutex<Vec<Timed>>>,
}

impl MonitorTap {
    /// Listens at `path` for clients of `monitor`, one at a time.
    pub(crate) fn start(path: PathBuf, monitor: &Path) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let timing = Timing {
            under_way: HashMap::new(),
            seen: Arc::clone(&seen),
        };
        let proxy = MonitorProxy::start(path, monitor, timing)?;
        Ok(Self { proxy, seen })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        self.proxy.path()
    }

    /// Every command that was answered since this was last asked, in the order of the answers.
    pub(crate) fn take(&self) -> Vec<Timed> {
        std::mem::take(&mut *locked(&self.seen))
    }
}

impl Onlooker for Timing {
    fn connected(&mut self) {
        self.under_way.clear();
    }

    fn asked(&mut self, command: &Heard) -> Next {
        if let Some(name) = command.command() {
            let asked = (name.to_owned(), command.bytes, command.at);
            self.under_way.insert(command.id.clone(), asked);
        }
        Next::GoOn
    }

    fn answered(&mut self, answer: &Heard) -> Next {
        if let Some((command, bytes, began)) = self.under_way.remove(&answer.id) {
            let took = answer.at.saturating_duration_since(began);
            locked(&self.seen).push(Timed { command, bytes, took });
        }
        Next::GoOn
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

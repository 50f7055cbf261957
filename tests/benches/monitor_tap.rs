//! Sits between a replicator and a VM's monitor, and takes the time of every command on the wire.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

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
    pub(crate) path: PathBuf,
    seen: Arc<Mutex<Vec<Timed>>>,
    serving: JoinHandle<()>,
}

/// What the tap reads of a line; other fields are passed over.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    execute: String,
}

/// Commands without an answer yet, by their identifier.
type UnderWay = Arc<Mutex<HashMap<String, (String, usize, Instant)>>>;

impl MonitorTap {
    /// Listens at `path` for clients of `monitor`, one at a time.
    pub(crate) fn start(path: PathBuf, monitor: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        let monitor = monitor.to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = UnixStream::connect(&monitor).await {
                    pass(client, server, &shared).await;
                }
            }
        });
        Ok(Self { path, seen, serving })
    }

    /// Every command that was answered since this was last asked, in the order of the answers.
    pub(crate) fn take(&self) -> Vec<Timed> {
        std::mem::take(&mut *locked(&self.seen))
    }
}

impl Drop for MonitorTap {
    fn drop(&mut self) {
        self.serving.abort();
        // The bench's directory goes anyway.
        let _ = fs::remove_file(&self.path);
    }
}

/// Passes lines both ways until either side ends.
async fn pass(client: UnixStream, server: UnixStream, seen: &Mutex<Vec<Timed>>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let under_way = UnderWay::default();
    let asked = |line: Line, bytes: usize| {
        locked(&under_way).insert(line.id.to_string(), (line.execute, bytes, Instant::now()));
    };
    let answered = |line: Line, _: usize| {
        if let Some((command, bytes, began)) = locked(&under_way).remove(&line.id.to_string()) {
            let took = began.elapsed();
            locked(seen).push(Timed { command, bytes, took });
        }
    };
    tokio::select! {
        () = copy(from_client, to_server, asked) => {}
        () = copy(from_server, to_client, answered) => {}
    }
}

/// What is no line of JSON, and events, pass unseen.
async fn copy(from: OwnedReadHalf, mut to: OwnedWriteHalf, hear: impl Fn(Line, usize)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        if let Ok(heard) = serde_json::from_slice(&line) {
            hear(heard, line.len());
        }
        if to.write_all(&line).await.is_err() {
            return;
        }
        line.clear();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

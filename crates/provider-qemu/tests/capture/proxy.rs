//! Stands between a source and its monitor and cuts the line at the n-th command.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// When the line is cut. A command that never arrives is the same as the one before it having been the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The command arrives, and the line is cut at once: it may or may not run.
    Racing,
    /// The command runs, its answer never arrives.
    After,
}

pub(crate) struct Proxy {
    pub(crate) path: PathBuf,
    commands: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Serves one client, on `path`; cuts at command number `at` (from 1), if there is one.
    pub(crate) fn start(path: PathBuf, monitor: PathBuf, at: usize, cut: Cut) -> Self {
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path).unwrap();
        let commands = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::new(AtomicUsize::new(0));
        let counts = (Arc::clone(&commands), Arc::clone(&bytes));
        let task = tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            drop(listener);
            let server = UnixStream::connect(monitor).await.unwrap();
            relay(client, server, counts, (at, cut)).await;
        });
        Self {
            path,
            commands,
            bytes,
            task,
        }
    }

    /// How many commands came.
    pub(crate) fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }

    /// How long they were together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

async fn relay(
    client: UnixStream,
    server: UnixStream,
    (commands, bytes): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    (at, cut): (usize, Cut),
) {
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut requests = BufReader::new(from_client);
    let mut answers = BufReader::new(from_server);
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    let mut outstanding = 0_usize;
    loop {
        tokio::select! {
            read = requests.read_until(b'\n', &mut request) => {
                if read.unwrap_or(0) == 0 { return; }
                let number = commands.fetch_add(1, Ordering::SeqCst) + 1;
                bytes.fetch_add(request.len(), Ordering::SeqCst);
                if to_server.write_all(&request).await.is_err() { return; }
                request.clear();
                outstanding += 1;
                if number == at && cut == Cut::Racing { return; }
                if number == at && cut == Cut::After {
                    while outstanding > 0 {
                        answer.clear();
                        if answers.read_until(b'\n', &mut answer).await.unwrap_or(0) == 0 { return; }
                        outstanding -= usize::from(is_answer(&answer));
                    }
                    return;
                }
            }
            read = answers.read_until(b'\n', &mut answer) => {
                if read.unwrap_or(0) == 0 { return; }
                outstanding = outstanding.saturating_sub(usize::from(is_answer(&answer)));
                if to_client.write_all(&answer).await.is_err() { return; }
                answer.clear();
            }
        }
    }
}

fn is_answer(line: &[u8]) -> bool {
    let line: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    line.get("id").is_some()
}

/// A peer that takes connections and says nothing.
pub(crate) fn mute(path: &std::path::Path) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut nothing = Vec::new();
        drop(client.read_to_end(&mut nothing).await);
    })
}

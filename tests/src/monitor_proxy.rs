//! Stands between a client and a VM's monitor: passes lines both ways, and lets an onlooker see each command and each
//! answer, and cut the line after any of them.

pub mod killer;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    time::timeout,
};

/// How long a client that was killed may take until its end of the line is closed.
const DEATH: Duration = Duration::from_secs(10);

/// A command that passed, or the answer to one.
#[derive(Debug)]
pub struct Heard {
    /// By which an answer belongs to its command.
    pub id: String,
    /// The whole line.
    pub line: Value,
    /// The line's length.
    pub bytes: usize,
    /// When it was heard.
    pub at: Instant,
}

impl Heard {
    /// Its name, if it is a command.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.line.get("execute")?.as_str()
    }

    /// What is no JSON, and what has no identifier (greetings, events), is nobody's business.
    fn of(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        Some(Self {
            id: value.get("id")?.to_string(),
            bytes: line.len(),
            line: value,
            at: Instant::now(),
        })
    }
}

/// What becomes of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    GoOn,
    /// No further command passes, so that this one was the last that QEMU got.
    HoldCommands,
    /// Nothing passes any more; the monitor sees the end of the line once the client has closed it.
    AwaitEnd,
}

/// Sees what passes.
pub trait Onlooker: Send + 'static {
    /// A client connects.
    fn connected(&mut self);

    /// A command has just been passed on.
    fn asked(&mut self, command: &Heard) -> Next;

    /// An answer is about to be passed on: it is not if the line ends.
    fn answered(&mut self, answer: &Heard) -> Next;
}

/// The proxy; it ends with the value.
#[derive(Debug)]
pub struct MonitorProxy {
    path: PathBuf,
    /// Its own, so that tests that block and benchmarks that do not can have it alike.
    runtime: Option<Runtime>,
}

impl MonitorProxy {
    /// Listens at `path` for clients of `monitor`, one at a time, as QEMU does.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start(path: PathBuf, monitor: &Path, mut onlooker: impl Onlooker) -> io::Result<Self> {
        let monitor = monitor.to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let listener = UnixListener::bind(&path)?;
        drop(guard);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = UnixStream::connect(&monitor).await {
                    onlooker.connected();
                    pass(client, server, &mut onlooker).await;
                }
            }
        });
        Ok(Self {
            path,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MonitorProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // The directory around it goes anyway.
        let _ = fs::remove_file(&self.path);
    }
}

/// Passes lines both ways until either side ends.
async fn pass(client: UnixStream, server: UnixStream, onlooker: &mut impl Onlooker) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut line = Line {
        commands: BufReader::new(from_client),
        to_client,
        answers: BufReader::new(from_server),
        to_server,
    };
    // An error is the end of the line, too.
    if let Ok(Passed::ClientIsToEnd) = line.pass(onlooker).await {
        let mut unheard = Vec::new();
        let _ = timeout(DEATH, line.commands.read_to_end(&mut unheard)).await;
    }
}

/// Why nothing passes any more.
enum Passed {
    Ended,
    ClientIsToEnd,
}

/// One client's way to the monitor and back.
struct Line {
    commands: BufReader<OwnedReadHalf>,
    to_client: OwnedWriteHalf,
    answers: BufReader<OwnedReadHalf>,
    to_server: OwnedWriteHalf,
}

impl Line {
    async fn pass(&mut self, onlooker: &mut impl Onlooker) -> io::Result<Passed> {
        let (mut command, mut answer) = (Vec::new(), Vec::new());
        let mut next = Next::GoOn;
        loop {
            tokio::select! {
                read = self.commands.read_until(b'\n', &mut command), if next == Next::GoOn => {
                    if read? == 0 {
                        return Ok(Passed::Ended);
                    }
                    let heard = Heard::of(&command);
                    self.to_server.write_all(&command).await?;
                    command.clear();
                    next = heard.map_or(Next::GoOn, |heard| onlooker.asked(&heard));
                }
                read = self.answers.read_until(b'\n', &mut answer) => {
                    if read? == 0 {
                        return Ok(Passed::Ended);
                    }
                    let heard = Heard::of(&answer);
                    if heard.is_some_and(|heard| onlooker.answered(&heard) == Next::AwaitEnd) {
                        next = Next::AwaitEnd;
                    } else {
                        self.to_client.write_all(&answer).await?;
                    }
                    answer.clear();
                }
            }
            if next == Next::AwaitEnd {
                return Ok(Passed::ClientIsToEnd);
            }
        }
    }
}

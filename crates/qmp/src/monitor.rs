//! A monitor: connecting to it, and commands that are answered, refused or given up at a deadline.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    net::UnixStream,
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    connection::{Connection, ConnectionLoss, Request},
    message::{Answer, Event, Greeting, Refusal, Version, is_of_a_session},
};

/// How long a command may take unless the caller says otherwise.
pub const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests that wait to be written: callers of one monitor are few, and each waits for its answer.
const QUEUED_REQUESTS: usize = 16;

/// Numbers of more than 53 bits do not survive every reader of JSON.
const EXACT_IN_ANY_JSON: u32 = 64 - 53;

/// Events that a slow listener may be behind before it misses some.
const BUFFERED_EVENTS: usize = 256;

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub struct ConnectOptions {
    /// How long connecting, greeting and negotiation may take together.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_COMMAND_TIMEOUT,
        }
    }
}

/// A command and its arguments (an object, or null for none).
#[derive(Debug, Clone)]
pub struct Command {
    /// Like `query-status`.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
}

impl Command {
    /// The command of this name with these arguments.
    pub fn new(name: impl Into<String>, arguments: Value) -> Self {
        Self {
            name: name.into(),
            arguments,
        }
    }
}

/// Why a monitor could not be used.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody answers at the socket.
    #[error("cannot connect to the monitor at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The peer said nothing: it hangs, or serves another client (a monitor serves one at a time).
    #[error("the monitor at {path} gave no greeting within {within:?}: it hangs or serves another client")]
    NoGreeting {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        within: Duration,
    },
    /// The peer did not greet as a monitor does.
    #[error("the peer at {path} did not greet as a monitor does")]
    Greeting {
        /// The socket.
        path: PathBuf,
        /// What it did.
        #[source]
        source: ConnectionLoss,
    },
    /// No answer came in time. Whether the command ran is not known.
    #[error("the monitor did not answer `{command}` within {within:?}")]
    Timeout {
        /// Which command.
        command: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// The connection was lost. Whether the command ran is not known.
    #[error("the connection was lost before `{command}` was answered")]
    Closed {
        /// Which command.
        command: String,
        /// How it was lost.
        #[source]
        source: Arc<ConnectionLoss>,
    },
    /// The hypervisor refused it.
    #[error("`{command}` was refused: {desc} ({class})")]
    Refused {
        /// Which command.
        command: String,
        /// The class of the error, like `GenericError`.
        class: String,
        /// The hypervisor's words.
        desc: String,
    },
}

/// A connection to a monitor, ready for commands. Dropping it closes the connection.
#[derive(Debug)]
pub struct Monitor {
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Event>,
    lost: watch::Receiver<Option<Arc<ConnectionLoss>>>,
    next_id: AtomicU64,
    version: Version,
    listener: Option<i32>,
    task: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Connects to the monitor's unix socket, awaits its greeting and leaves negotiation mode.
    ///
    /// # Errors
    /// [`QmpError::Connect`], [`QmpError::NoGreeting`], [`QmpError::Greeting`], or what negotiation gives.
    pub async fn connect(path: &Path, options: ConnectOptions) -> Result<Self, QmpError> {
        let within = options.timeout;
        timeout(within, Self::connect_unbounded(path, within))
            .await
            .unwrap_or_else(|_| {
                Err(QmpError::NoGreeting {
                    path: path.to_owned(),
                    within,
                })
            })
    }

    async fn connect_unbounded(path: &Path, within: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| QmpError::Connect {
                path: path.to_owned(),
                source,
            })?;
        let listener = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let mut connection = Connection::new(stream);
        let version = greeting(&mut connection)
            .await
            .map_err(|source| QmpError::Greeting {
                path: path.to_owned(),
                source,
            })?;
        let monitor = Self::serve(connection, version, listener);
        monitor
            .execute_within("qmp_capabilities", Value::Null, within)
            .await?;
        monitor.next_id.store(1, Ordering::Relaxed);
        Ok(monitor)
    }

    fn serve(connection: Connection, version: Version, listener: Option<i32>) -> Self {
        let (requests, incoming) = mpsc::channel(QUEUED_REQUESTS);
        let (events, _) = broadcast::channel(BUFFERED_EVENTS);
        let (loss, lost) = watch::channel(None);
        let task = tokio::spawn(connection.serve(incoming, events.clone(), loss));
        Self {
            requests,
            events,
            lost,
            next_id: AtomicU64::new(unused_id()),
            version,
            listener,
            task,
        }
    }

    /// The hypervisor's version, as it greeted.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The process that made the socket listen, as far as the kernel tells: the hypervisor, or whoever handed it the socket.
    #[must_use]
    pub fn listener(&self) -> Option<i32> {
        self.listener
    }

    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Runs a command and gives what it returned, within [`DEFAULT_COMMAND_TIMEOUT`].
    ///
    /// # Errors
    /// [`QmpError::Refused`], [`QmpError::Timeout`] or [`QmpError::Closed`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_within(command, arguments, DEFAULT_COMMAND_TIMEOUT)
            .await
    }

    /// As [`Monitor::execute`], with another deadline.
    ///
    /// # Errors
    /// As [`Monitor::execute`].
    pub async fn execute_within(
        &self,
        command: &str,
        arguments: Value,
        within: Duration,
    ) -> Result<Value, QmpError> {
        let command = Command::new(command, arguments);
        let answers = self.pipeline(std::slice::from_ref(&command), within).await;
        let lost = || Err(self.closed(&command.name));
        answers.into_iter().next().unwrap_or_else(lost)
    }

    /// Writes all commands in one piece and gives their answers in the same order. The peer runs them one after
    /// another and does not stop at one that it refuses. The deadline is for all of them together.
    pub async fn execute_pipelined(
        &self,
        commands: &[Command],
        within: Duration,
    ) -> Vec<Result<Value, QmpError>> {
        self.pipeline(commands, within).await
    }

    async fn pipeline(&self, commands: &[Command], within: Duration) -> Vec<Result<Value, QmpError>> {
        let mut bytes = Vec::new();
        let mut waiting = Vec::with_capacity(commands.len());
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            bytes.extend_from_slice(line(command, id).as_bytes());
            let (answer, answered) = oneshot::channel();
            waiting.push((id, answer));
            answers.push((&command.name, answered));
        }
        let deadline = tokio::time::Instant::now() + within;
        // If nobody takes it, the answers' senders are dropped with it, and each caller below learns of the loss.
        drop(tokio::time::timeout_at(deadline, self.requests.send(Request { bytes, waiting })).await);
        let mut results = Vec::with_capacity(answers.len());
        for (name, answered) in answers {
            let answered = tokio::time::timeout_at(deadline, answered).await;
            results.push(self.result(name, within, answered.ok()));
        }
        results
    }

    fn result(
        &self,
        command: &str,
        within: Duration,
        answered: Option<Result<Answer, oneshot::error::RecvError>>,
    ) -> Result<Value, QmpError> {
        match answered {
            Some(Ok(Ok(value))) => Ok(value),
            Some(Ok(Err(Refusal { class, desc }))) => Err(QmpError::Refused {
                command: command.to_owned(),
                class,
                desc,
            }),
            Some(Err(_)) if self.lost.borrow().is_some() => Err(self.closed(command)),
            Some(Err(_)) | None => Err(QmpError::Timeout {
                command: command.to_owned(),
                within,
            }),
        }
    }

    fn closed(&self, command: &str) -> QmpError {
        QmpError::Closed {
            command: command.to_owned(),
            source: self
                .lost
                .borrow()
                .clone()
                .unwrap_or_else(|| Arc::new(ConnectionLoss::Ended)),
        }
    }
}

/// What comes before the greeting was meant for the client before: a command that it did not wait for has ended.
async fn greeting(connection: &mut Connection) -> Result<Version, ConnectionLoss> {
    loop {
        let line = connection.read_line().await?;
        match serde_json::from_slice::<Greeting>(&line) {
            Ok(greeting) => return Ok(greeting.qmp.version.qemu),
            Err(_) if is_of_a_session(&line) => {}
            Err(error) => return Err(ConnectionLoss::Malformed(error)),
        }
    }
}

/// An identifier that no other client used. The last command of the client before may be answered after our greeting,
/// but not after our first answer, because a monitor runs one command after another.
fn unused_id() -> u64 {
    RandomState::new().build_hasher().finish() >> EXACT_IN_ANY_JSON
}

fn line(command: &Command, id: u64) -> String {
    let mut message = json!({"execute": command.name, "id": id});
    if let (Value::Object(fields), false) = (&mut message, command.arguments.is_null()) {
        fields.insert("arguments".to_owned(), command.arguments.clone());
    }
    format!("{message}\n")
}

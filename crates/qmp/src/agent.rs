//! The agent in a guest, over its channel's unix socket: freezing and thawing of file systems, with limits.
//!
//! The channel is no connection: the guest's end may be closed, asleep, or still busy with what a client before us asked
//! for. So each command is preceded by a `guest-sync-delimited` with a number that nobody used, and what came before its
//! answer is passed over. The guest is not trusted: an answer is short, or it is none.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout_at},
};

/// Comes before the answer to a synchronisation, and in no JSON text.
const DELIMITER: u8 = 0xff;

/// The longest answer that is accepted: a number, a word, or a refusal in some sentences.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Identifiers are 31 bits wide: some agents keep them in a signed integer.
const IDENTIFIER_BITS: u32 = 31;

/// Whether the guest's file systems take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeStatus {
    /// They do.
    Thawed,
    /// They wait until they are thawed, for ever if need be.
    Frozen,
}

/// Why the agent could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody serves the channel.
    #[error("cannot connect to the guest agent's channel at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer came in time. Whether the command ran is not known.
    #[error("no guest agent answered `{command}` within {within:?}: it does not run, or it is busy")]
    Silent {
        /// Which command.
        command: &'static str,
        /// How long it was waited for.
        within: Duration,
    },
    /// The channel failed. Whether the command ran is not known.
    #[error("the guest agent's channel failed at `{command}`")]
    Channel {
        /// Which command.
        command: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The answer was not one.
    #[error("the guest agent answered `{command}` with what is no answer to it")]
    Malformed {
        /// Which command.
        command: &'static str,
    },
    /// The agent refused it.
    #[error("the guest agent refused `{command}`: {desc}")]
    Refused {
        /// Which command.
        command: &'static str,
        /// Its words.
        desc: String,
    },
}

/// The guest agent's channel, which serves one client at a time. Dropping it closes the channel and thaws nothing.
#[derive(Debug)]
pub struct GuestAgent {
    stream: UnixStream,
    received: Vec<u8>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    desc: String,
}

impl GuestAgent {
    /// Connects to the channel. Whether an agent listens at its other end is seen at the first command.
    ///
    /// # Errors
    /// [`AgentError::Connect`].
    pub async fn connect(path: &Path) -> Result<Self, AgentError> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Self {
                stream,
                received: Vec::new(),
            }),
            Err(source) => Err(AgentError::Connect {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Whether the file systems are frozen.
    ///
    /// # Errors
    /// Any [`AgentError`] but [`AgentError::Connect`].
    pub async fn freeze_status(&mut self, within: Duration) -> Result<FreezeStatus, AgentError> {
        let command = "guest-fsfreeze-status";
        match self.execute(command, within).await?.as_str() {
            Some("thawed") => Ok(FreezeStatus::Thawed),
            Some("frozen") => Ok(FreezeStatus::Frozen),
            Some(_) | None => Err(AgentError::Malformed { command }),
        }
    }

    /// Flushes and freezes all file systems; gives how many. They stay frozen until someone thaws them, so that whoever
    /// calls this has arranged for that before. An error does not say that nothing was frozen.
    ///
    /// # Errors
    /// Any [`AgentError`] but [`AgentError::Connect`].
    pub async fn freeze(&mut self, within: Duration) -> Result<u64, AgentError> {
        self.count("guest-fsfreeze-freeze", within).await
    }

    /// Thaws all file systems; gives how many were frozen. Thawing what is thawed is no error.
    ///
    /// # Errors
    /// Any [`AgentError`] but [`AgentError::Connect`].
    pub async fn thaw(&mut self, within: Duration) -> Result<u64, AgentError> {
        self.count("guest-fsfreeze-thaw", within).await
    }

    async fn count(&mut self, command: &'static str, within: Duration) -> Result<u64, AgentError> {
        let answer = self.execute(command, within).await?;
        answer.as_u64().ok_or(AgentError::Malformed { command })
    }

    async fn execute(&mut self, command: &'static str, within: Duration) -> Result<Value, AgentError> {
        let deadline = Instant::now() + within;
        match timeout_at(deadline, self.synchronise_and_ask(command)).await {
            Ok(Ok(answer)) => match (answer.error, answer.returned) {
                (Some(Refusal { desc }), _) => Err(AgentError::Refused { command, desc }),
                (None, Some(value)) => Ok(value),
                (None, None) => Err(AgentError::Malformed { command }),
            },
            Ok(Err(source)) if source.kind() == io::ErrorKind::InvalidData => {
                Err(AgentError::Malformed { command })
            }
            Ok(Err(source)) => Err(AgentError::Channel { command, source }),
            Err(_) => Err(AgentError::Silent { command, within }),
        }
    }

    async fn synchronise_and_ask(&mut self, command: &str) -> io::Result<Answer> {
        self.synchronise().await?;
        let line = format!("{}\n", json!({"execute": command}));
        self.stream.write_all(line.as_bytes()).await?;
        let line = self.read_until(b'\n', Kept::All).await?;
        serde_json::from_slice(&line).map_err(io::Error::from)
    }

    /// The delimiter before the command makes the agent forget half a command of someone else's.
    async fn synchronise(&mut self) -> io::Result<()> {
        let id = RandomState::new().build_hasher().finish() >> (u64::BITS - IDENTIFIER_BITS);
        let command = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
        let mut bytes = vec![DELIMITER];
        bytes.extend_from_slice(format!("{command}\n").as_bytes());
        self.stream.write_all(&bytes).await?;
        loop {
            self.read_until(DELIMITER, Kept::Nothing).await?;
            let line = self.read_until(b'\n', Kept::All).await?;
            // Another number answers a synchronisation of a client before.
            let answer: Option<Answer> = serde_json::from_slice(&line).ok();
            if answer.and_then(|answer| answer.returned) == Some(id.into()) {
                return Ok(());
            }
        }
    }

    /// What comes before the next `end`, which is taken, too.
    async fn read_until(&mut self, end: u8, kept: Kept) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == end) {
                let rest = self.received.split_off(at.saturating_add(1));
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            match kept {
                Kept::All if self.received.len() > MAX_ANSWER_BYTES => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Kept::All => {}
                Kept::Nothing => self.received.clear(),
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// What becomes of bytes before the one that is waited for.
#[derive(Debug, Clone, Copy)]
enum Kept {
    All,
    Nothing,
}

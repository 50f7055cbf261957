//! The guest agent's client against an agent of its own, which can be as good and as bad as a guest likes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its own helpers"
)]

use std::{path::PathBuf, time::Duration};

use farshore_qmp::{AgentError, FreezeStatus, GuestAgent};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// What the agent is like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Good,
    /// Half an answer to somebody, and whole ones, come before.
    Stale,
    /// It knows synchronisation and refuses everything else.
    Refusing,
    /// It answers nothing but synchronisations.
    Asleep,
    /// It answers without end.
    Endless,
    /// It answers with what is no number.
    Wrong,
}

struct Agent {
    path: PathBuf,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    fn start(manner: Manner) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let task = tokio::spawn(async move {
            let mut frozen = false;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that left is no reason to stop.
                drop(serve(stream, manner, &mut frozen).await);
            }
        });
        Self {
            path,
            task,
            _directory: directory,
        }
    }

    async fn client(&self) -> GuestAgent {
        GuestAgent::connect(&self.path).await.unwrap()
    }
}

async fn serve(stream: UnixStream, manner: Manner, frozen: &mut bool) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if manner == Manner::Stale {
        stream
            .write_all(b"{\"return\": 3}\n\xff{\"return\": 7}\n{\"ret")
            .await?;
    }
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = line.strip_prefix(&[0xff]).unwrap_or(&line);
        let command: Value = serde_json::from_slice(text).unwrap();
        let answer = match (command["execute"].as_str().unwrap(), manner) {
            ("guest-sync-delimited", _) => {
                let id = &command["arguments"]["id"];
                let answer = format!("{}\n", json!({"return": id}));
                stream.write_all(&[&[0xff], answer.as_bytes()].concat()).await?;
                continue;
            }
            (_, Manner::Asleep) => continue,
            (_, Manner::Endless) => loop {
                stream.write_all(&[b'x'; 4096]).await?;
            },
            (_, Manner::Refusing) => json!({"error": {"class": "GenericError", "desc": "not allowed here"}}),
            (_, Manner::Wrong) => json!({"return": {"what": "ever"}}),
            ("guest-fsfreeze-freeze", _) => {
                *frozen = true;
                json!({"return": 2})
            }
            ("guest-fsfreeze-thaw", _) => json!({"return": if std::mem::take(frozen) { 2 } else { 0 }}),
            (_, _) => json!({"return": if *frozen { "frozen" } else { "thawed" }}),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

#[tokio::test]
async fn file_systems_are_frozen_and_thawed_also_past_what_others_left() {
    for manner in [Manner::Good, Manner::Stale] {
        let agent = Agent::start(manner);
        let mut client = agent.client().await;
        assert_eq!(client.freeze_status(LONG).await.unwrap(), FreezeStatus::Thawed);
        assert_eq!(client.freeze(LONG).await.unwrap(), 2);
        assert_eq!(client.freeze_status(LONG).await.unwrap(), FreezeStatus::Frozen);
        drop(client);
        // Whoever comes after a client that died sees it and ends it.
        let mut successor = agent.client().await;
        assert_eq!(successor.freeze_status(LONG).await.unwrap(), FreezeStatus::Frozen);
        assert_eq!(successor.thaw(LONG).await.unwrap(), 2);
        assert_eq!(successor.thaw(LONG).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_refusal_has_the_agents_words() {
    let agent = Agent::start(Manner::Refusing);
    let refused = agent.client().await.freeze(LONG).await;
    assert!(
        matches!(&refused, Err(AgentError::Refused { desc, .. }) if desc == "not allowed here"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_agent_that_sleeps_or_is_not_there_ends_at_the_deadline() {
    let agent = Agent::start(Manner::Asleep);
    let silent = agent.client().await.freeze(SHORT).await;
    assert!(matches!(silent, Err(AgentError::Silent { .. })), "{silent:?}");
    // A channel whose other end nobody opened takes what is written and says nothing.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let silent = GuestAgent::connect(&path)
        .await
        .unwrap()
        .freeze_status(SHORT)
        .await;
    assert!(matches!(silent, Err(AgentError::Silent { .. })), "{silent:?}");
    drop(listener);
    let nobody = GuestAgent::connect(&path.with_extension("none")).await;
    assert!(matches!(nobody, Err(AgentError::Connect { .. })), "{nobody:?}");
}

#[tokio::test]
async fn a_guest_that_lies_gets_neither_memory_nor_belief() {
    for manner in [Manner::Endless, Manner::Wrong] {
        let agent = Agent::start(manner);
        let mut client = agent.client().await;
        let frozen = client.freeze(LONG).await;
        assert!(matches!(frozen, Err(AgentError::Malformed { .. })), "{frozen:?}");
        if manner == Manner::Wrong {
            let status = client.freeze_status(LONG).await;
            assert!(matches!(status, Err(AgentError::Malformed { .. })), "{status:?}");
        }
    }
}

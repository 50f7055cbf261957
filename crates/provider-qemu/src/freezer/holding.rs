//! What the process does that holds a guest frozen. Its arguments are the channel and the limit in milliseconds.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use farshore_qmp::{AgentError, GuestAgent};
use tokio::{
    runtime,
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

/// Said when the guest is frozen.
pub(super) const FROZEN: &str = "frozen";
/// Said, with the reason behind it, when it is not.
pub(super) const REFUSED: &str = "refused:";
/// Said when it was thawed because that was asked for.
pub(super) const THAWED: &str = "thawed";
/// Said when it was thawed because the limit was over.
pub(super) const OVERRUN: &str = "overrun";

/// How long one attempt to thaw may take.
const THAW_ATTEMPT: Duration = Duration::from_secs(2);
/// Between two of them.
const THAW_PAUSE: Duration = Duration::from_millis(100);
/// A guest that cannot be thawed by then has no agent any more.
const THAW_PATIENCE: Duration = Duration::from_secs(600);

/// Holds a guest frozen; the arguments are the channel's socket and the limit in milliseconds.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let channel = arguments.next().map(PathBuf::from);
    let limit = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .map(Duration::from_millis);
    let (Some(channel), Some(limit), None) = (channel, limit, arguments.next()) else {
        return ExitCode::from(2);
    };
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let said = runtime.block_on(hold(&channel, limit));
    say(&said);
    ExitCode::SUCCESS
}

/// Whoever is meant may be dead; the guest matters more.
fn say(line: &str) {
    let mut output = io::stdout().lock();
    drop(writeln!(output, "{line}").and_then(|()| output.flush()));
}

async fn hold(channel: &Path, limit: Duration) -> String {
    let deadline = Instant::now() + limit;
    // Armed before anything is frozen.
    let asked = input_ends();
    let mut agent = match GuestAgent::connect(channel).await {
        Ok(agent) => agent,
        Err(error) => return format!("{REFUSED} {}", with_causes(&error)),
    };
    if let Err(error) = agent.freeze(limit).await {
        match &error {
            // It froze nothing, or somebody else did, who will want to thaw it.
            AgentError::Refused { .. } | AgentError::Connect { .. } => {}
            AgentError::Silent { .. } | AgentError::Channel { .. } | AgentError::Malformed { .. } => {
                thaw(agent, channel).await;
            }
        }
        return format!("{REFUSED} {}", with_causes(&error));
    }
    say(FROZEN);
    let ended = timeout_at(deadline, asked).await;
    thaw(agent, channel).await;
    match ended {
        Ok(_) => THAWED.to_owned(),
        Err(_) => OVERRUN.to_owned(),
    }
}

/// Until it is done, over fresh connections if need be.
async fn thaw(agent: GuestAgent, channel: &Path) {
    let deadline = Instant::now() + THAW_PATIENCE;
    let mut agent = Some(agent);
    while Instant::now() < deadline {
        let thawed = match &mut agent {
            Some(agent) => agent.thaw(THAW_ATTEMPT).await.is_ok(),
            None => false,
        };
        if thawed {
            return;
        }
        // Closed before it is opened again: the channel serves one client.
        drop(agent.take());
        sleep(THAW_PAUSE).await;
        agent = GuestAgent::connect(channel).await.ok();
    }
}

/// Answers when a byte came, or when whoever would have written it is gone.
fn input_ends() -> oneshot::Receiver<()> {
    let (ended, ends) = oneshot::channel();
    thread::spawn(move || {
        drop(io::stdin().lock().read(&mut [0]));
        // If nobody waits any more, the process is about to end.
        ended.send(()).ok();
    });
    ends
}

fn with_causes(error: &AgentError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

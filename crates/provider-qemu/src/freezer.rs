//! Keeps a guest's file systems frozen for an instant, and never longer than a limit: a process of its own, so that they
//! are thawed whatever becomes of us.
//!
//! A frozen guest waits for ever if nobody thaws it, and its agent's channel serves one client at a time. So the process
//! that holds the channel is the one that must not fail: it freezes, says `frozen`, and thaws when its input ends, gets a
//! byte, or the limit is over, whichever is first. If we die, its input ends; if we hang, the limit is over; if it dies
//! itself, we see its output end and thaw over the channel, which is free then. Only if both are killed at once does the
//! guest stay frozen, until the next attachment of its source thaws it.

mod holding;

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

pub use holding::main;

use farshore_qmp::{FreezeStatus, GuestAgent};
use holding::{FROZEN, OVERRUN, REFUSED, THAWED};

/// How long the process may take beyond the limit to say something: it starts, and the agent wakes up.
const GRACE: Duration = Duration::from_secs(5);

/// How a guest's agent is reached, and what freezes it.
#[derive(Debug, Clone)]
pub struct GuestAgentConfig {
    /// The unix socket of its channel, which nobody else uses.
    pub channel: PathBuf,
    /// The program that runs [`freezer_main`](crate::freezer_main) with what comes after `leading_arguments`.
    pub freezer: PathBuf,
    /// What makes the program do so.
    pub leading_arguments: Vec<OsString>,
    /// How long the guest may be frozen, freezing included.
    pub limit: Duration,
}

/// A frozen guest. Dropping it thaws the guest, too.
#[derive(Debug)]
pub(crate) struct Frozen {
    config: GuestAgentConfig,
    /// Its end is what the process waits for.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    process: Child,
}

impl Frozen {
    /// Freezes the guest, or says in words why not.
    pub(crate) async fn freeze(config: &GuestAgentConfig) -> Result<Self, String> {
        let mut process = Command::new(&config.freezer)
            .args(&config.leading_arguments)
            .arg(&config.channel)
            .arg(config.limit.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What ends our process group must not end it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("its freezer could not be started: {error}"))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("its freezer has no pipes".to_owned());
        };
        let mut frozen = Self {
            config: config.clone(),
            input,
            output: BufReader::new(output),
            process,
        };
        match frozen.next_line().await?.as_str() {
            FROZEN => Ok(frozen),
            line => Err(line.strip_prefix(REFUSED).unwrap_or(line).trim().to_owned()),
        }
    }

    /// Thaws the guest; says in words why it was not frozen until now.
    pub(crate) async fn thaw(self) -> Result<(), String> {
        let Self {
            config,
            input,
            mut output,
            mut process,
        } = self;
        drop(input);
        let line = said(&mut output, config.limit).await;
        // It has nothing left to do; if it hangs nonetheless, it is nobody's business here.
        drop(timeout(GRACE, process.wait()).await);
        match line.as_deref() {
            Ok(THAWED) => Ok(()),
            Ok(OVERRUN) => Err(format!(
                "the guest was thawed after the limit of {:?}, perhaps before the instant",
                config.limit
            )),
            Ok(other) => Err(other.to_owned()),
            Err(ended) => {
                thaw_left_over(&config).await;
                Err(ended.clone())
            }
        }
    }

    /// What the process says next; if it died, the guest is thawed here.
    async fn next_line(&mut self) -> Result<String, String> {
        let line = said(&mut self.output, self.config.limit).await;
        if line.is_err() {
            thaw_left_over(&self.config).await;
        }
        line
    }
}

async fn said(output: &mut BufReader<ChildStdout>, limit: Duration) -> Result<String, String> {
    let mut line = String::new();
    match timeout(limit.saturating_add(GRACE), output.read_line(&mut line)).await {
        Ok(Ok(length)) if length > 0 => Ok(line.trim_end().to_owned()),
        Ok(Ok(_)) => Err("its freezer ended unasked".to_owned()),
        Ok(Err(error)) => Err(format!("its freezer cannot be heard: {error}")),
        Err(_) => Err("its freezer says nothing".to_owned()),
    }
}

/// Thaws a guest that a freezer left frozen when it was killed, and says whether that is settled now.
pub(crate) async fn thaw_left_over(config: &GuestAgentConfig) -> LeftOver {
    let thaw = async {
        let mut agent = GuestAgent::connect(&config.channel).await?;
        match agent.freeze_status(config.limit).await? {
            FreezeStatus::Thawed => Ok(0),
            FreezeStatus::Frozen => agent.thaw(config.limit).await,
        }
    };
    match thaw.await {
        Ok(0) => LeftOver::Settled,
        Ok(count) => {
            tracing::warn!(count, "file systems that were left frozen are thawed");
            LeftOver::Settled
        }
        Err(error) => {
            tracing::warn!(%error, "whether the guest was left frozen cannot be asked");
            LeftOver::Unknown
        }
    }
}

/// What is known of a guest that may have been left frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOver {
    /// It is thawed.
    Settled,
    /// Its agent did not say.
    Unknown,
}

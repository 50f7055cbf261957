//! Keeps a guest's file systems frozen for an instant, and never longer than a limit: a process of its own, so that they
//! are thawed whatever becomes of us.
//!
//! A frozen guest waits for ever if nobody thaws it, and its agent's channel serves one client at a time. So the process
//! that holds the channel is the one that must not fail: it freezes, says `frozen`, and thaws when its input ends, gets a
//! byte, or the limit is over, whichever is first. If we die, its input ends; if we hang, the limit is over; if it dies
//! itself, we see its output end and thaw over the channel, which is free then; if it hangs, we hear nothing when the limit is over,
//! kill it, and thaw likewise. Only if both are killed at once does the guest stay frozen, until the next attachment of
//! its source thaws it.

mod holding;

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

pub use holding::main;

use farshore_qmp::{FreezeStatus, GuestAgent};
use holding::{FROZEN, OVERRUN, REFUSED, THAWED};

/// How long the process may take beyond the limit to say something. A guest is frozen for no longer than the limit and this, and what it
/// takes to thaw it.
const GRACE: Duration = Duration::from_secs(1);
/// How long it may take to end when it has nothing left to do.
const ENDING: Duration = Duration::from_secs(5);
/// How often it is tried to thaw a guest whose process failed. What is left to do then is done by the next attachment.
const ATTEMPTS: u32 = 5;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);

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
    /// When the process must have thawed it.
    deadline: Instant,
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
        let deadline = Instant::now() + config.limit.saturating_add(GRACE);
        let mut frozen = Self {
            config: config.clone(),
            input,
            output: BufReader::new(output),
            process,
            deadline,
        };
        match said(&mut frozen.output, deadline).await {
            Ok(line) if line == FROZEN => Ok(frozen),
            Ok(line) => Err(line.strip_prefix(REFUSED).unwrap_or(&line).trim().to_owned()),
            Err(ended) => {
                thaw_in_its_place(&frozen.config, frozen.process).await;
                Err(ended)
            }
        }
    }

    /// Thaws the guest; says in words why it was not frozen until now.
    pub(crate) async fn thaw(self) -> Result<(), String> {
        let Self {
            config,
            input,
            mut output,
            mut process,
            deadline,
        } = self;
        drop(input);
        match said(&mut output, deadline).await.as_deref() {
            Ok(line) => {
                // If it hangs nonetheless, it must not keep the channel.
                if timeout(ENDING, process.wait()).await.is_err() {
                    drop(process.kill().await);
                }
                match line {
                    THAWED => Ok(()),
                    OVERRUN => Err(format!(
                        "the guest was thawed after the limit of {:?}, perhaps before the instant",
                        config.limit
                    )),
                    other => Err(other.to_owned()),
                }
            }
            Err(ended) => {
                thaw_in_its_place(&config, process).await;
                Err(ended.clone())
            }
        }
    }
}

/// What the process says next.
async fn said(output: &mut BufReader<ChildStdout>, deadline: Instant) -> Result<String, String> {
    let mut line = String::new();
    match timeout_at(deadline, output.read_line(&mut line)).await {
        Ok(Ok(length)) if length > 0 => Ok(line.trim_end().to_owned()),
        Ok(Ok(_)) => Err("its freezer ended unasked".to_owned()),
        Ok(Err(error)) => Err(format!("its freezer cannot be heard: {error}")),
        Err(_) => Err("its freezer hung, and was killed".to_owned()),
    }
}

/// Thaws a guest whose freezer died or hangs. The channel serves one client, so that one that hangs has to go first.
async fn thaw_in_its_place(config: &GuestAgentConfig, mut process: Child) {
    drop(process.kill().await);
    for _ in 0..ATTEMPTS {
        if thaw_left_over(config).await == LeftOver::Settled {
            return;
        }
        sleep(BETWEEN_ATTEMPTS).await;
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

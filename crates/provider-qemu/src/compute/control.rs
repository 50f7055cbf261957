//! This provider's own monitor of a recovered VM: what it does, and ending it. Every question has a limit.

use std::{error::Error, io, path::Path, time::Duration};

use farshore_provider::{ComputeError, RecoveryId, VmCondition};
use farshore_qmp::{ConnectOptions, Monitor, QmpError};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    directory::RecoveryDirectory,
    process::{Hypervisor, Wait},
};

/// A monitor answers within milliseconds; on a loaded host, or while a disk is slow, later.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often a socket that is not there yet is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// What QEMU says it is doing (QEMU's qapi/run-state.json, `RunState`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunState {
    /// The guest runs.
    Running,
    /// It has not been started yet.
    Waiting,
    /// A disk failed; it goes on when it is told to.
    DiskError,
    /// The guest has switched itself off.
    Off,
    /// Anything else in which it does not run.
    Halted(String),
}

impl RunState {
    fn parse(status: &str) -> Self {
        match status {
            "running" => Self::Running,
            "prelaunch" => Self::Waiting,
            "io-error" => Self::DiskError,
            "shutdown" => Self::Off,
            other => Self::Halted(other.to_owned()),
        }
    }

    /// As a probe says it.
    pub(crate) fn condition(&self) -> VmCondition {
        match self {
            Self::Running => VmCondition::Running,
            Self::Off => VmCondition::Ended,
            Self::Waiting | Self::DiskError | Self::Halted(_) => VmCondition::Suspended,
        }
    }
}

/// Why the monitor could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Connecting or a command failed.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// The process ended meanwhile.
    #[error("the hypervisor ended")]
    Ended,
    /// The process could not be watched.
    #[error("the hypervisor cannot be watched")]
    Watch(#[source] io::Error),
    /// It answered something that was not expected.
    #[error("the monitor's answer to `{command}` is not understood: {answer}")]
    Answer { command: &'static str, answer: String },
}

impl ControlError {
    /// This, as it happened to `id`.
    pub(crate) fn of(self, id: &RecoveryId) -> ComputeError {
        let source: Box<dyn Error + Send + Sync> = Box::new(self);
        ComputeError::Monitor {
            id: id.clone(),
            source,
        }
    }
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "node-name")]
    name: Option<String>,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
}

/// A connection to the monitor.
#[derive(Debug)]
pub(crate) struct Control(Monitor);

impl Control {
    /// Connects. A socket that is not there yet (QEMU makes it as it starts) is waited for, as long as the process lives.
    pub(crate) async fn connect(
        files: &RecoveryDirectory,
        hypervisor: &Hypervisor,
    ) -> Result<Self, ControlError> {
        let path = files.control();
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let options = ConnectOptions { timeout: left };
            let failure = match Monitor::connect(Path::new(&path), options).await {
                Ok(monitor) => return Ok(Self(monitor)),
                Err(failure) => failure,
            };
            let wait = hypervisor.ended_within(RETRY_INTERVAL).await;
            if wait.map_err(ControlError::Watch)? == Wait::Ended {
                return Err(ControlError::Ended);
            }
            let may_come = matches!(failure, QmpError::Connect { .. });
            if !may_come || Instant::now() >= deadline {
                return Err(failure.into());
            }
        }
    }

    /// What the VM does.
    pub(crate) async fn run_state(&self) -> Result<RunState, ControlError> {
        let status: Status = self.ask("query-status", Value::Null).await?;
        Ok(RunState::parse(&status.status))
    }

    /// Lets the processors run (again).
    pub(crate) async fn run(&self) -> Result<(), ControlError> {
        let _nothing: Value = self.ask("cont", Value::Null).await?;
        Ok(())
    }

    /// The sizes of all named nodes, in bytes.
    pub(crate) async fn node_sizes(&self) -> Result<Vec<(String, u64)>, ControlError> {
        let nodes: Vec<Node> = self.ask("query-named-block-nodes", json!({"flat": true})).await?;
        let sized = |node: Node| Some((node.name?, node.image.virtual_size));
        Ok(nodes.into_iter().filter_map(sized).collect())
    }

    /// Tells QEMU to end, within `limit`; what it says to that does not matter.
    pub(crate) async fn quit(&self, limit: Duration) {
        drop(self.0.execute_within("quit", Value::Null, limit).await);
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<T, ControlError> {
        let answer = self.0.execute_within(command, arguments, ANSWER_LIMIT).await?;
        T::deserialize(&answer).map_err(|_misfit| ControlError::Answer {
            command,
            answer: answer.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_counts_as_running() {
        for (status, condition) in [
            ("running", VmCondition::Running),
            ("shutdown", VmCondition::Ended),
            ("paused", VmCondition::Suspended),
            ("io-error", VmCondition::Suspended),
            ("prelaunch", VmCondition::Suspended),
            ("guest-panicked", VmCondition::Suspended),
            ("something-new", VmCondition::Suspended),
        ] {
            assert_eq!(RunState::parse(status).condition(), condition, "{status}");
        }
    }
}

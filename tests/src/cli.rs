//! The command line, run as a user runs it.

use std::{
    process::{Command, Output},
    time::Duration,
};

use farshore_blocks::clock::WallTime;
use serde_json::Value;

use crate::{daemon::binary, eventually};

/// How one command ended.
#[derive(Debug)]
pub struct Answer {
    /// The exit status.
    pub status: i32,
    /// The answer.
    pub stdout: String,
    /// The talk.
    pub stderr: String,
}

impl Answer {
    /// It, if the command was done.
    ///
    /// # Panics
    /// When it was not.
    #[must_use]
    pub fn done(self) -> Self {
        assert_eq!(self.status, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Its answer as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The command line, talking to one orchestrator from inside a namespace.
#[derive(Debug, Clone)]
pub struct Cli {
    namespace: String,
    server: String,
}

impl Cli {
    /// Talks to `server` from `namespace`.
    #[must_use]
    pub fn new(namespace: &str, server: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            server: server.to_owned(),
        }
    }

    /// Runs `farshore` with these arguments.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Answer {
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg("--")
            .arg(binary())
            .args(["--server", &self.server])
            .args(arguments)
            .output()
            .unwrap()
            .into()
    }

    /// The VM, as `get vms` shows it; `None` while the orchestrator does not answer.
    #[must_use]
    pub fn vm(&self, name: &str) -> Option<Value> {
        let answer = self.run(&["get", "vms", name, "-o", "json"]);
        (answer.status == 0).then(|| answer.json())
    }

    /// Waits until the VM is in `state`.
    pub fn vm_in(&self, name: &str, state: &str, patience: Duration) -> Value {
        self.vm_when(name, &format!("state {state}"), patience, |vm| {
            vm["state"] == state
        })
    }

    /// Waits until `reached` is true of the VM.
    ///
    /// # Panics
    /// When it is not within `patience`.
    pub fn vm_when(
        &self,
        name: &str,
        what: &str,
        patience: Duration,
        mut reached: impl FnMut(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(patience, what, || {
                last = self.vm(name)?;
                reached(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("VM {name} did not reach {what}; it is {last:#}"))
    }

    /// How many points the VM has.
    #[must_use]
    pub fn points(&self, name: &str) -> u64 {
        self.vm(name).and_then(|vm| vm["points"].as_u64()).unwrap_or(0)
    }

    /// The sequence of the newest point: `latest` may be another one at each command.
    ///
    /// # Panics
    /// When there is no point.
    #[must_use]
    pub fn newest(&self, name: &str) -> String {
        let vm = self.vm(name).unwrap();
        vm["newestPoint"]["sequence"].as_u64().unwrap().to_string()
    }

    /// Waits for a point whose instant is after now, and gives its sequence: it holds all that is acknowledged now.
    #[must_use]
    pub fn point_after_now(&self, name: &str, patience: Duration) -> String {
        let now = WallTime::now().to_rfc3339();
        let vm = self.vm_when(name, &format!("a point after {now}"), patience, |vm| {
            vm["newestPoint"]["capturedAt"]
                .as_str()
                .is_some_and(|captured| captured > now.as_str())
        });
        vm["newestPoint"]["sequence"].as_u64().unwrap_or(0).to_string()
    }

    /// Waits for at least `count` points.
    pub fn points_at_least(&self, name: &str, count: u64, patience: Duration) -> Value {
        self.vm_when(name, &format!("{count} points"), patience, |vm| {
            vm["points"].as_u64().is_some_and(|points| points >= count)
        })
    }
}

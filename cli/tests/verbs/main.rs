//! The binary's verbs against an orchestrator that answers by a strict script: exit statuses, what goes to stdout and
//! what to stderr, and the shape of JSON answers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it does not expect shall stop there"
)]

mod apply;
mod errors;
mod failovers;
mod groups;
mod lists;
mod points;
mod script;

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Nothing here takes long; a verb that hangs shall fail its test.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// What a run of the binary left.
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }

    #[track_caller]
    fn ended_with(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }
}

async fn farshore(arguments: &[&str]) -> Run {
    farshore_reading("", arguments).await
}

async fn farshore_reading(input: &str, arguments: &[&str]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_farshore"))
        .args(arguments)
        .env_remove("FARSHORE_SERVER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = timeout(LONGEST_RUN, child.wait_with_output())
        .await
        .expect("the verb ends")
        .unwrap();
    Run {
        status: output.status.code().expect("it exits by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

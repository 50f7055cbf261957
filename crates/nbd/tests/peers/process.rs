//! Runs the peers: tools to their end, servers until they are dropped.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use farshore_nbd::{Client, ClientError, ClientTimeouts};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a tool that must succeed and returns what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// Starts a server, which is killed when dropped.
pub(crate) fn start(program: &str, arguments: &[&str]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Connects as soon as the server listens.
pub(crate) async fn connect(socket: &Path, export: &str, contexts: &[&str]) -> Client {
    connect_within(socket, export, contexts, ClientTimeouts::default()).await
}

/// Connects as soon as the server listens.
pub(crate) async fn connect_within(
    socket: &Path,
    export: &str,
    contexts: &[&str],
    timeouts: ClientTimeouts,
) -> Client {
    let attempts = async {
        let mut pace = interval(Duration::from_millis(10));
        loop {
            pace.tick().await;
            match Client::connect_unix_within(socket, export, contexts, timeouts).await {
                Ok(client) => return client,
                Err(ClientError::Dial { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    timeout(LIMIT, attempts).await.unwrap()
}

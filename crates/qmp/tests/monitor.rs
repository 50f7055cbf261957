//! The client against a real QEMU and against peers that lie, hang or vanish.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its own helpers"
)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use farshore_qmp::{Command, ConnectOptions, ConnectionLoss, MAX_LINE_BYTES, Monitor, QmpError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

const GREETING: &str =
    r#"{"QMP":{"version":{"qemu":{"micro":1,"minor":2,"major":9},"package":""},"capabilities":[],"new":1}}"#;
const SHORT: ConnectOptions = ConnectOptions {
    timeout: Duration::from_millis(300),
};

struct Qemu {
    process: Child,
    directory: tempfile::TempDir,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Qemu {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = std::process::Command::new("qemu-system-x86_64")
            .args(["-machine", "none", "-nodefaults", "-display", "none", "-qmp"])
            .arg(format!(
                "unix:{}/qmp,server=on,wait=off",
                directory.path().display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let qemu = Self { process, directory };
        for _ in 0..500 {
            if qemu.socket().exists() {
                return qemu;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("QEMU made no monitor socket within 10 s");
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("qmp")
    }

    async fn monitor(&self) -> Monitor {
        let options = ConnectOptions {
            timeout: Duration::from_secs(10),
        };
        Monitor::connect(&self.socket(), options).await.unwrap()
    }
}

/// A peer that does `behave` with its first client.
fn peer<F, Done>(path: &Path, behave: F)
where
    F: FnOnce(UnixStream) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send,
{
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        behave(stream).await;
    });
}

async fn greet(stream: UnixStream) -> BufReader<UnixStream> {
    let mut stream = BufReader::new(stream);
    stream
        .write_all(format!("{GREETING}\r\n").as_bytes())
        .await
        .unwrap();
    let id = next_id(&mut stream).await;
    stream
        .write_all(format!("{{\"return\":{{}},\"id\":{id}}}\r\n").as_bytes())
        .await
        .unwrap();
    stream
}

async fn next_id(stream: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let mut command: Value = serde_json::from_str(&line).unwrap();
    command.get_mut("id").unwrap().take()
}

#[tokio::test]
async fn a_real_monitor_answers_refuses_and_tells_its_version() {
    let qemu = Qemu::start().await;
    let monitor = qemu.monitor().await;
    assert!(monitor.version().major >= 7);
    let status = monitor.execute("query-status", Value::Null).await.unwrap();
    assert!(status.get("status").is_some(), "{status}");
    let refused = monitor.execute("no-such-command", json!({})).await;
    assert!(
        matches!(&refused, Err(QmpError::Refused { class, .. }) if class == "CommandNotFound"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order_past_a_refused_one() {
    let qemu = Qemu::start().await;
    let monitor = qemu.monitor().await;
    let mut commands = vec![Command::new("no-such-command", Value::Null)];
    // More than the eight commands that QEMU queues before it stops reading.
    for index in 0..40 {
        let node = json!({"driver": "null-co", "node-name": format!("n{index}"), "size": 4096});
        commands.push(Command::new("blockdev-add", node));
    }
    commands.push(Command::new("query-named-block-nodes", Value::Null));
    let answers = monitor
        .execute_pipelined(&commands, Duration::from_secs(10))
        .await;
    assert_eq!(answers.len(), commands.len());
    assert!(matches!(answers.first(), Some(Err(QmpError::Refused { .. }))));
    let nodes = answers.last().unwrap().as_ref().unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn events_are_heard_and_the_end_of_the_vm_is_an_error() {
    let qemu = Qemu::start().await;
    let monitor = qemu.monitor().await;
    let mut events = monitor.subscribe();
    monitor.execute("quit", Value::Null).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.name, "SHUTDOWN");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while monitor.execute("query-status", Value::Null).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline);
    }
    let ended = monitor.execute("query-status", Value::Null).await;
    assert!(matches!(ended, Err(QmpError::Closed { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_second_client_of_a_monitor_is_told_that_it_is_in_use() {
    let qemu = Qemu::start().await;
    let first = qemu.monitor().await;
    let second = Monitor::connect(&qemu.socket(), SHORT).await;
    assert!(matches!(second, Err(QmpError::NoGreeting { .. })), "{second:?}");
    drop(first);
    qemu.monitor().await;
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let result = Monitor::connect(&directory.path().join("none"), SHORT).await;
    assert!(matches!(result, Err(QmpError::Connect { .. })), "{result:?}");
}

#[tokio::test]
async fn a_peer_that_greets_wrongly_is_refused() {
    for (words, kind) in [
        ("", "ended"),
        ("HTTP/1.1 400 Bad Request\r\n", "malformed"),
        ("{\"hello\":{}}\r\n", "malformed"),
        ("{\"return\":{}}\r\n", "ended"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        peer(&path, async move |mut stream: UnixStream| {
            stream.write_all(words.as_bytes()).await.unwrap()
        });
        match Monitor::connect(&path, SHORT).await {
            Err(QmpError::Greeting {
                source: ConnectionLoss::Ended,
                ..
            }) => assert_eq!(kind, "ended"),
            Err(QmpError::Greeting {
                source: ConnectionLoss::Malformed(_),
                ..
            }) => assert_eq!(kind, "malformed"),
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_meant_for_the_client_before_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    peer(&path, async |mut stream: UnixStream| {
        let before = concat!(
            "{\"return\":{},\"id\":7}\r\n",
            "{\"event\":\"BLOCK_EXPORT_DELETED\",\"data\":{}}\r\n"
        );
        // Also after the greeting, and with an identifier that a client is likely to use first.
        let after = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"theirs\"},\"id\":1}\r\n";
        let words = format!("{before}{GREETING}\r\n{after}");
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut stream = BufReader::new(stream);
        for answer in ["{}", "\"ours\""] {
            let id = next_id(&mut stream).await;
            let line = format!("{{\"return\":{answer},\"id\":{id}}}\r\n");
            stream.write_all(line.as_bytes()).await.unwrap();
        }
        drop(next_id(&mut stream).await);
    });
    let monitor = Monitor::connect(&path, SHORT).await.unwrap();
    assert_eq!(
        monitor.execute("first", Value::Null).await.unwrap(),
        json!("ours")
    );
}

#[tokio::test]
async fn a_line_without_an_end_does_not_eat_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    peer(&path, async |mut stream: UnixStream| {
        let piece = vec![b'x'; 1 << 20];
        while stream.write_all(&piece).await.is_ok() {}
    });
    let options = ConnectOptions {
        timeout: Duration::from_secs(30),
    };
    let result = Monitor::connect(&path, options).await;
    assert!(
        matches!(
            result,
            Err(QmpError::Greeting {
                source: ConnectionLoss::LineTooLong,
                ..
            })
        ),
        "{MAX_LINE_BYTES} {result:?}"
    );
}

#[tokio::test]
async fn a_command_that_is_not_answered_ends_at_its_deadline_and_its_late_answer_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    peer(&path, async |stream: UnixStream| {
        let mut stream = greet(stream).await;
        let late = next_id(&mut stream).await;
        let asked = next_id(&mut stream).await;
        let answers = format!(
            "{{\"return\":\"late\",\"id\":{late}}}\r\n{{\"return\":1,\"id\":99999}}\r\n{{\"return\":\"own\",\"id\":{asked}}}\r\n"
        );
        stream.write_all(answers.as_bytes()).await.unwrap();
        drop(next_id(&mut stream).await);
    });
    let monitor = Monitor::connect(&path, SHORT).await.unwrap();
    let first = monitor
        .execute_within("first", Value::Null, Duration::from_millis(50))
        .await;
    assert!(matches!(first, Err(QmpError::Timeout { .. })), "{first:?}");
    assert_eq!(
        monitor.execute("second", Value::Null).await.unwrap(),
        json!("own")
    );
}

#[tokio::test]
async fn what_is_no_qmp_in_mid_connection_ends_it_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    peer(&path, async |stream: UnixStream| {
        let mut stream = greet(stream).await;
        drop(next_id(&mut stream).await);
        stream.write_all(b"%%%\r\n").await.unwrap();
    });
    let monitor = Monitor::connect(&path, SHORT).await.unwrap();
    let result = monitor.execute("anything", Value::Null).await;
    let Err(QmpError::Closed { source, .. }) = &result else {
        panic!("{result:?}");
    };
    assert!(matches!(**source, ConnectionLoss::Malformed(_)), "{source:?}");
}

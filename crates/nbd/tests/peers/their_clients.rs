//! Our server, read by libnbd's tools and by QEMU.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farshore_nbd::{Client, ClientError, Exports, Listener, serve_connections};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, UNIT};
use super::process::run;

const PICTURE: &str = "DD..zzD.DzD.....D";

struct Server {
    directory: TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    fn start(picture: &str, connections_maximum: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("nbd")).unwrap();
        let (shutdown, task) = serving(Listener::Unix(listener), picture, connections_maximum);
        Self {
            directory,
            shutdown,
            task,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("nbd")
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn address(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(10), self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

fn serving(
    listener: Listener,
    picture: &str,
    connections_maximum: usize,
) -> (CancellationToken, JoinHandle<()>) {
    let exports = Exports::builder()
        .add("first", Arc::new(Disk::drawn(picture)))
        .and_then(|builder| builder.add("second", Arc::new(Disk::drawn("D."))))
        .unwrap()
        .build();
    let shutdown = CancellationToken::new();
    let maximum = NonZeroUsize::new(connections_maximum).unwrap();
    let task = tokio::spawn(serve_connections(
        listener,
        Arc::new(exports),
        maximum,
        shutdown.clone(),
    ));
    (shutdown, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_sees_every_extent_as_it_is() {
    let server = Server::start(PICTURE, 8);
    let printed = run("nbdinfo", &["--map", &server.address("first")]).await;
    let seen: Vec<Vec<u64>> = printed
        .lines()
        .map(|line| {
            line.split_whitespace()
                .take(3)
                .map(|word| word.parse().unwrap())
                .collect()
        })
        .collect();
    let mut expected: Vec<Vec<u64>> = Vec::new();
    for (index, letter) in PICTURE.chars().enumerate() {
        let flags = match letter {
            'D' => 0,
            'z' => 2,
            _ => 3,
        };
        let unit = UNIT as u64;
        match expected.last_mut() {
            Some(last) if last[2] == flags => last[1] += unit,
            _ => expected.push(vec![index as u64 * unit, unit, flags]),
        }
    }
    assert_eq!(seen, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_lists_all_exports_in_order_with_their_properties() {
    let server = Server::start(PICTURE, 8);
    let printed = run("nbdinfo", &["--list", &server.address("")]).await;
    let first = printed.find("export=\"first\"").unwrap();
    let second = printed.find("export=\"second\"").unwrap();
    assert!(first < second, "{printed}");
    for property in [
        "is_read_only: true",
        "can_multi_conn: true",
        "can_df: true",
        "base:allocation",
    ] {
        assert!(printed.contains(property), "{property} is missing in {printed}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_copies_every_byte() {
    let server = Server::start(&PICTURE.repeat(20), 8);
    let copy = server.file("copy");
    run(
        "nbdcopy",
        &[
            "--connections=4",
            "--request-size=131072",
            &server.address("first"),
            &copy,
        ],
    )
    .await;
    assert!(std::fs::read(&copy).unwrap() == Disk::drawn(&PICTURE.repeat(20)).content);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_copies_every_byte_over_tcp() {
    let directory = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (shutdown, task) = serving(Listener::Tcp(listener), PICTURE, 8);
    let copy = directory.path().join("copy");
    let source = format!("nbd://127.0.0.1:{port}/first");
    run("nbdcopy", &[&source, copy.to_str().unwrap()]).await;
    assert!(std::fs::read(&copy).unwrap() == Disk::drawn(PICTURE).content);
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_finds_no_difference_and_sees_the_holes() {
    let server = Server::start(PICTURE, 8);
    let file = server.file("same");
    std::fs::write(&file, Disk::drawn(PICTURE).content).unwrap();
    let address = server.address("first");
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &address, &file],
    )
    .await;

    let printed = run("qemu-img", &["map", "--output=json", "-f", "raw", &address]).await;
    let mut holes = 0;
    for entry in printed.lines().filter(|line| line.contains("\"zero\": true")) {
        let length = entry
            .split("\"length\": ")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap();
        holes += length.parse::<usize>().unwrap();
    }
    assert_eq!(
        holes,
        PICTURE.chars().filter(|letter| *letter != 'D').count() * UNIT,
        "{printed}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_io_reads_what_is_there_and_may_not_write() {
    let server = Server::start("D.D", 8);
    let address = server.address("first");
    let hole = format!("read -P 0 {UNIT} {UNIT}");
    let printed = run(
        "qemu-io",
        &["-r", "-f", "raw", "-c", &hole, "-c", "flush", &address],
    )
    .await;
    assert!(!printed.contains("Pattern verification failed"), "{printed}");
    let wrong = format!("read -P 0 0 {UNIT}");
    let output = tokio::process::Command::new("qemu-io")
        .args(["-r", "-f", "raw", "-c", &wrong, &address])
        .output()
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("Pattern verification failed"));
    let writer = tokio::process::Command::new("qemu-io")
        .args(["-f", "raw", "-c", "write 0 4096", &address])
        .output()
        .await
        .unwrap();
    assert!(
        !writer.status.success(),
        "a read-only export was opened for writing"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_beyond_the_bound_waits_until_another_leaves() {
    let server = Server::start("D", 1);
    let first = Client::connect_unix(&server.socket(), "first", &[])
        .await
        .unwrap();
    let socket = server.socket();
    let mut second = tokio::spawn(async move { Client::connect_unix(&socket, "second", &[]).await });
    // The first works while the second is kept waiting.
    for _ in 0..20 {
        first.read(0, 4096).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(200), &mut second).await.is_err());
    first.disconnect().await;
    let second = timeout(Duration::from_secs(10), second)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(second.size(), 2 * UNIT as u64);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_open_connections() {
    let server = Server::start("D", 4);
    let client = Client::connect_unix(&server.socket(), "first", &[])
        .await
        .unwrap();
    client.read(0, 1).await.unwrap();
    server.stop().await;
    assert!(matches!(client.read(0, 1).await, Err(ClientError::Lost(_))));
}

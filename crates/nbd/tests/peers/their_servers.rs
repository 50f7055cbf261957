//! Our client, reading from nbdkit and from QEMU.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_nbd::wire::error_code::ErrorCode;
use farshore_nbd::{Client, ClientError, ClientTimeouts, ConnectionLoss, StatusDescriptor};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::timeout;

use super::disk::{Disk, UNIT, noise};
use super::process::{connect, connect_within, run, start};

const ALLOCATION: &str = "base:allocation";

struct Server {
    directory: TempDir,
    child: Child,
}

impl Server {
    fn nbdkit(arguments: &[&str]) -> Self {
        Self::nbdkit_in(TempDir::new().unwrap(), arguments)
    }

    fn nbdkit_in(directory: TempDir, arguments: &[&str]) -> Self {
        let socket = directory.path().join("nbd");
        let mut all = vec![
            "--foreground",
            "--exit-with-parent",
            "--unix",
            socket.to_str().unwrap(),
        ];
        all.extend_from_slice(arguments);
        let child = start("nbdkit", &all);
        Self { directory, child }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("nbd")
    }
}

/// A sparse file with the disk's content.
fn sparse_file(path: &Path, disk: &Disk) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(disk.content.len() as u64).unwrap();
    for (index, unit) in disk.content.chunks(UNIT).enumerate() {
        if unit.iter().any(|byte| *byte != 0) {
            file.write_all_at(unit, (index * UNIT) as u64).unwrap();
        }
    }
    file.sync_all().unwrap();
}

/// Every byte, by reads that straddle the units.
async fn whole(client: &Client) -> Vec<u8> {
    let mut content = Vec::new();
    while (content.len() as u64) < client.size() {
        let left = client.size() - content.len() as u64;
        let length = left.min(100_001) as u32;
        content.extend_from_slice(&client.read(content.len() as u64, length).await.unwrap());
    }
    content
}

fn run_of(length: usize, flags: u32) -> StatusDescriptor {
    StatusDescriptor {
        length: length as u64,
        flags,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_of_nbdkit_is_read_whole_with_its_holes() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("disk");
    let disk = Disk::drawn("D..DD.");
    sparse_file(&file, &disk);
    let server = Server::nbdkit_in(directory, &["--readonly", "file", file.to_str().unwrap()]);
    let client = connect(&server.socket(), "", &[ALLOCATION]).await;
    assert!(whole(&client).await == disk.content);
    assert_eq!(client.contexts().collect::<Vec<_>>(), [ALLOCATION]);
    let status = client.block_status(ALLOCATION, 0, client.size()).await.unwrap();
    assert_eq!(
        status,
        [
            run_of(UNIT, 0),
            run_of(2 * UNIT, 3),
            run_of(2 * UNIT, 0),
            run_of(UNIT, 3)
        ]
    );
    let middle = client
        .block_status(ALLOCATION, UNIT as u64 / 2, UNIT as u64)
        .await
        .unwrap();
    assert_eq!(middle, [run_of(UNIT / 2, 0), run_of(UNIT / 2, 3)]);
    client.disconnect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_disk_beyond_32_bits_is_complete() {
    let server = Server::nbdkit(&["data", "@0x200000000 1 @0x280000000 2", "size=16G"]);
    let client = connect(&server.socket(), "", &[ALLOCATION]).await;
    let status = client.block_status(ALLOCATION, 0, client.size()).await.unwrap();
    assert_eq!(status.iter().map(|run| run.length).sum::<u64>(), 16 << 30);
    let data: Vec<_> = status.iter().filter(|run| run.flags == 0).collect();
    assert_eq!(data.len(), 2, "{status:?}");
    assert!(
        status.windows(2).all(|pair| pair[0].flags != pair[1].flags),
        "{status:?}"
    );
    assert_eq!(client.read(0x2_0000_0000, 2).await.unwrap().as_ref(), [1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_structured_replies_is_read_but_has_no_contexts() {
    let server = Server::nbdkit(&["--no-sr", "data", "0x11 0x22 0x33", "size=1M"]);
    let client = connect(&server.socket(), "", &[]).await;
    assert_eq!(client.read(1, 4).await.unwrap().as_ref(), [0x22, 0x33, 0, 0]);
    let refused = Client::connect_unix(&server.socket(), "", &[ALLOCATION]).await;
    assert!(matches!(refused, Err(ClientError::ContextNotGranted { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn block_sizes_that_a_server_insists_on_are_kept() {
    let server = Server::nbdkit(&[
        "--filter=blocksize-policy",
        "data",
        "@0x1234 0x55 @0x5fff 0x66",
        "size=1M",
        "blocksize-minimum=4096",
        "blocksize-maximum=8192",
        "blocksize-error-policy=error",
    ]);
    let client = connect(&server.socket(), "", &[ALLOCATION]).await;
    assert_eq!(client.read(0x1234, 1).await.unwrap().as_ref(), [0x55]);
    let long = client.read(0x1233, 0x8000).await.unwrap();
    assert_eq!(long.len(), 0x8000);
    assert_eq!((long[0], long[1], long[0x5fff - 0x1233]), (0, 0x55, 0x66));
    assert_eq!(long.iter().filter(|byte| **byte != 0).count(), 2);
    let status = client.block_status(ALLOCATION, 1, 5).await.unwrap();
    assert_eq!(status.iter().map(|run| run.length).sum::<u64>(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_in_flight_do_not_wait_for_one_another() {
    let server = Server::nbdkit(&["--filter=delay", "pattern", "size=1M", "rdelay=250ms"]);
    let client = connect(&server.socket(), "", &[]).await;
    let reads = async {
        let each = |index: u64| {
            let client = &client;
            async move {
                let position = index * 8;
                assert_eq!(
                    client.read(position, 8).await.unwrap().as_ref(),
                    position.to_be_bytes()
                );
            }
        };
        let mut pinned: Vec<_> = (0..32).map(|index| Box::pin(each(index))).collect();
        std::future::poll_fn(|waker| {
            pinned.retain_mut(|read| read.as_mut().poll(waker).is_pending());
            if pinned.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    };
    // One after the other they would take eight seconds.
    timeout(Duration::from_secs(4), reads).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_server_concerns_one_request() {
    let directory = TempDir::new().unwrap();
    let trigger = directory.path().join("trigger");
    let when = format!("error-pread-file={}", trigger.display());
    let arguments = [
        "--filter=error",
        "memory",
        "1M",
        "error-pread=EIO",
        "error-pread-rate=100%",
        &when,
    ];
    let server = Server::nbdkit_in(directory, &arguments);
    let client = connect(&server.socket(), "", &[]).await;
    std::fs::write(&trigger, []).unwrap();
    match client.read(8192, 512).await {
        Err(ClientError::Refused { code, .. }) => assert_eq!(code, ErrorCode::INPUT_OUTPUT),
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(&trigger).unwrap();
    assert_eq!(client.read(0, 512).await.unwrap().as_ref(), [0; 512]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_before_it_is_sent() {
    let server = Server::nbdkit(&["memory", "1M"]);
    let client = connect(&server.socket(), "", &[ALLOCATION]).await;
    let beyond = client.read((1 << 20) - 1, 2).await;
    assert!(matches!(
        beyond,
        Err(ClientError::OutOfRange { size: 0x10_0000, .. })
    ));
    let beyond = client.block_status(ALLOCATION, u64::MAX, 2).await;
    assert!(matches!(beyond, Err(ClientError::OutOfRange { .. })));
    let unknown = client.block_status("qemu:dirty-bitmap:none", 0, 1).await;
    assert!(matches!(unknown, Err(ClientError::ContextNotGranted { .. })));
    assert_eq!(client.read(0, 0).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_ends_what_is_in_flight() {
    let mut server = Server::nbdkit(&["--filter=delay", "memory", "1M", "rdelay=60"]);
    let client = connect(&server.socket(), "", &[]).await;
    let (read, ()) = tokio::join!(client.read(0, 512), async {
        server.child.kill().await.unwrap();
    });
    match read {
        Err(ClientError::Lost(loss)) => {
            assert!(
                matches!(*loss, ConnectionLoss::Closed | ConnectionLoss::Stream(_)),
                "{loss:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.read(0, 512).await, Err(ClientError::Lost(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_server_is_given_up() {
    let server = Server::nbdkit(&["--filter=delay", "memory", "1M", "rdelay=60"]);
    let timeouts = ClientTimeouts {
        connect: Duration::from_secs(10),
        request: Duration::from_millis(300),
    };
    let client = connect_within(&server.socket(), "", &[], timeouts).await;
    match timeout(Duration::from_secs(10), client.read(0, 512))
        .await
        .unwrap()
    {
        Err(ClientError::Lost(loss)) => assert!(matches!(*loss, ConnectionLoss::Silent { .. }), "{loss:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_greets_is_given_up() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("nbd");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let timeouts = ClientTimeouts {
        connect: Duration::from_millis(200),
        request: Duration::from_secs(10),
    };
    let refused = Client::connect_unix_within(&socket, "", &[], timeouts).await;
    assert!(matches!(refused, Err(ClientError::ConnectTimeout { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_export_of_qemu_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("disk");
    sparse_file(&file, &Disk::drawn("D."));
    let socket = directory.path().join("nbd");
    let (file, address) = (file.to_str().unwrap(), socket.to_str().unwrap());
    let _server = start(
        "qemu-nbd",
        &[
            "--read-only",
            "--persistent",
            "-f",
            "raw",
            "-x",
            "disk",
            "-k",
            address,
            file,
        ],
    );
    let client = connect(&socket, "disk", &[ALLOCATION]).await;
    assert!(whole(&client).await == Disk::drawn("D.").content);
    let status = client.block_status(ALLOCATION, 0, client.size()).await.unwrap();
    assert_eq!(status, [run_of(UNIT, 0), run_of(UNIT, 3)]);
    client.disconnect().await;
    match Client::connect_unix(&socket, "other", &[]).await {
        Err(ClientError::Handshake { export, .. }) => assert_eq!(export, "other"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("an export that does not exist was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dirty_bitmap_of_qemu_tells_what_was_written() {
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("disk.qcow2");
    let socket = directory.path().join("nbd");
    let (file, address) = (image.to_str().unwrap(), socket.to_str().unwrap());
    run("qemu-img", &["create", "-q", "-f", "qcow2", file, "8M"]).await;
    run("qemu-img", &["bitmap", "--add", "-g", "4096", file, "changes"]).await;
    run(
        "qemu-io",
        &[
            "-f",
            "qcow2",
            "-c",
            "write -P 7 1M 8k",
            "-c",
            "write -P 9 4096k 4k",
            file,
        ],
    )
    .await;
    let _server = start(
        "qemu-nbd",
        &[
            "--read-only",
            "--persistent",
            "-f",
            "qcow2",
            "-B",
            "changes",
            "-k",
            address,
            file,
        ],
    );
    let context = "qemu:dirty-bitmap:changes";
    let client = connect(&socket, "", &[ALLOCATION, context]).await;
    let status = client.block_status(context, 0, client.size()).await.unwrap();
    let expected = [
        run_of(1 << 20, 0),
        run_of(8192, 1),
        run_of((3 << 20) - 8192, 0),
        run_of(4096, 1),
        run_of((4 << 20) - 4096, 0),
    ];
    assert_eq!(status, expected);
    assert_eq!(client.read(1 << 20, 4).await.unwrap().as_ref(), [7; 4]);
    assert!(
        client
            .read(0, 8 << 20)
            .await
            .unwrap()
            .iter()
            .filter(|byte| **byte != 0)
            .count()
            == 12288
    );
    assert!(
        noise(0) != noise(1),
        "the drawn disks must differ from unit to unit"
    );
    client.disconnect().await;
}

//! The server against clients that ask for too much, take nothing, or want everything at once: what they may cost, and
//! that nobody else pays for it.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Listener, serve_connections};
use crate::client::{Client, ClientError};
use crate::export::{Export, ExportExtent, Exports, ExtentState};
use crate::wire::READ_BYTES_MAXIMUM;
use crate::wire::error_code::ErrorCode;
use crate::wire::handshake::{OptionCode, OptionHeader};
use crate::wire::options::ExportChoice;
use crate::wire::reply::{ChunkHeader, ChunkKind, ErrorReport};
use crate::wire::request::{Command, FLAG_DO_NOT_FRAGMENT, Request};

const SIZE: u64 = 256 << 20;
const BROKEN_AT: u64 = 128 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Were there no bound, more would happen within this.
const A_WHILE: Duration = Duration::from_millis(200);

/// Every byte says where it is; reads wait while the gate is closed.
#[derive(Default)]
struct Gated {
    reads: AtomicUsize,
    longest: AtomicUsize,
    inside: AtomicUsize,
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

fn byte_at(position: u64) -> u8 {
    (position / 4096).to_le_bytes()[0] ^ (position / 4096).to_le_bytes()[1]
}

impl Export for Gated {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.longest.fetch_max(buffer.len(), Ordering::SeqCst);
        self.inside.fetch_add(1, Ordering::SeqCst);
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if (offset..offset + buffer.len() as u64).contains(&BROKEN_AT) {
            return Err(io::Error::other("block 512 of point 7 is damaged"));
        }
        for (position, byte) in (offset..).zip(buffer) {
            *byte = byte_at(position);
        }
        Ok(())
    }

    fn extents(&self, _: u64, length: u64) -> io::Result<Vec<ExportExtent>> {
        let state = ExtentState::Data;
        Ok(vec![ExportExtent { length, state }])
    }
}

/// A server on a socket of its own.
struct Served {
    export: Arc<Gated>,
    directory: tempfile::TempDir,
    _shutdown: tokio_util::sync::DropGuard,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("sock")).unwrap();
        let export = Arc::new(Gated::default());
        let exports = Exports::builder().add("disk", export.clone()).unwrap().build();
        let shutdown = CancellationToken::new();
        let connections = NonZeroUsize::new(20).unwrap();
        tokio::spawn(serve_connections(
            Listener::Unix(listener),
            Arc::new(exports),
            connections,
            shutdown.clone(),
        ));
        Self {
            export,
            directory,
            _shutdown: shutdown.drop_guard(),
        }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("sock")
    }

    async fn client(&self) -> Client {
        Client::connect_unix(&self.socket(), "disk", &[]).await.unwrap()
    }

    async fn reached(&self, what: impl Fn(&Gated) -> bool) {
        let enough = async {
            while !what(&self.export) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, enough).await.unwrap();
    }
}

/// A client that writes what it likes.
struct Rude(UnixStream);

impl Rude {
    async fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.read_exact(&mut [0; 18]).await.unwrap();
        stream.write_u32(3).await.unwrap();
        let mut choice = BytesMut::new();
        let facts = Vec::new();
        let name = "disk".to_owned();
        ExportChoice { name, facts }.put(&mut choice).unwrap();
        for (option, data) in [
            (OptionCode::STRUCTURED_REPLY, BytesMut::new()),
            (OptionCode::GO, choice),
        ] {
            let mut message = BytesMut::new();
            let data_bytes = u32::try_from(data.len()).unwrap();
            OptionHeader { option, data_bytes }.put(&mut message);
            message.extend_from_slice(&data);
            stream.write_all(&message).await.unwrap();
        }
        // Acknowledged; then size, block sizes, acknowledged.
        stream
            .read_exact(&mut [0; 20 + 20 + 12 + 20 + 14 + 20])
            .await
            .unwrap();
        Self(stream)
    }

    /// Asks as often, at one offset after the other, as far as the server takes it within a while.
    async fn flood(&mut self, count: u64, length: u32) {
        let mut message = BytesMut::new();
        for cookie in 0..count {
            let offset = cookie * u64::from(length) % (SIZE / 4);
            Request {
                flags: 0,
                command: Command::READ,
                cookie,
                offset,
                length,
            }
            .put(&mut message);
        }
        let _ = timeout(A_WHILE, self.0.write_all(&message)).await;
    }

    async fn ask(&mut self, flags: u16, offset: u64, length: u32) {
        let mut message = BytesMut::new();
        let (command, cookie) = (Command::READ, 42);
        Request {
            flags,
            command,
            cookie,
            offset,
            length,
        }
        .put(&mut message);
        self.0.write_all(&message).await.unwrap();
    }

    async fn chunk(&mut self) -> (ChunkHeader, Vec<u8>) {
        assert_eq!(self.0.read_u32().await.unwrap(), 0x668e_33ef);
        let mut rest = [0; 16];
        self.0.read_exact(&mut rest).await.unwrap();
        let header = ChunkHeader::decode(&rest).unwrap();
        let mut payload = vec![0; header.payload_bytes as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        (header, payload)
    }
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_not_served_without_bound() {
    let served = Served::start();
    let mut rude = Rude::connect(&served.socket()).await;
    rude.flood(100, 1 << 20).await;
    // 2 MiB in memory, and what the socket holds (less than one piece where nobody changed it).
    served
        .reached(|export| export.reads.load(Ordering::SeqCst) >= 8)
        .await;
    let _ = timeout(A_WHILE, std::future::pending::<()>()).await;
    let before = served.export.reads.load(Ordering::SeqCst);
    assert!(
        before <= 16,
        "{before} pieces were read for a client that took nothing"
    );

    let mut covered = HashMap::new();
    let mut ended = 0;
    while ended < 100 {
        let (header, payload) = timeout(LIMIT, rude.chunk()).await.unwrap();
        if header.kind == ChunkKind::OFFSET_DATA {
            *covered.entry(header.cookie).or_insert(0) += payload.len() - 8;
            let offset = u64::from_be_bytes(*payload.first_chunk().unwrap());
            assert_eq!(payload[8], byte_at(offset));
        }
        if header.is_last() {
            ended += 1;
            assert_eq!(covered[&header.cookie], 1 << 20);
        }
    }
    assert_eq!(covered.len(), 100);
}

#[tokio::test]
async fn a_flood_of_short_requests_is_taken_only_as_far_as_its_answers_are() {
    let served = Served::start();
    let mut rude = Rude::connect(&served.socket()).await;
    rude.flood(1000, 4096).await;
    served
        .reached(|export| export.reads.load(Ordering::SeqCst) >= 64)
        .await;
    let _ = timeout(A_WHILE, std::future::pending::<()>()).await;
    // 64 in flight, and what the socket takes (212 KiB where nobody changed it).
    let before = served.export.reads.load(Ordering::SeqCst);
    assert!(
        before < 500,
        "{before} reads were done for a client that took nothing"
    );
    for _ in 0..1000 {
        let (header, payload) = timeout(LIMIT, rude.chunk()).await.unwrap();
        assert!(header.is_last() && payload.len() == 8 + 4096);
        assert_eq!(payload[8], byte_at(header.cookie * 4096 % (SIZE / 4)));
    }
}

#[test]
fn clients_that_take_nothing_hold_up_nobody_else() {
    // Fewer threads than such clients: were one of them to wait for its client, the last one would never be served.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let served = Served::start();
        let mut rude = Vec::new();
        for length in [
            4096,
            1 << 20,
            READ_BYTES_MAXIMUM,
            4096,
            1 << 20,
            READ_BYTES_MAXIMUM,
        ] {
            let mut client = Rude::connect(&served.socket()).await;
            client.flood(1000, length).await;
            rude.push(client);
        }
        let client = served.client().await;
        for offset in (0..SIZE / 4).step_by(1 << 20) {
            let read = timeout(LIMIT, client.read(offset, 65_536)).await;
            assert_eq!(read.unwrap().unwrap()[0], byte_at(offset));
        }
    });
}

#[tokio::test]
async fn the_longest_read_is_worked_on_in_pieces() {
    let served = Served::start();
    let client = served.client().await;
    let read = client.read(4096, READ_BYTES_MAXIMUM).await.unwrap();
    let right = (4096..)
        .zip(&read)
        .all(|(position, byte)| *byte == byte_at(position));
    assert!(right && read.len() == READ_BYTES_MAXIMUM as usize);
    assert_eq!(served.export.longest.load(Ordering::SeqCst), 256 << 10);
}

#[tokio::test]
async fn a_long_read_that_must_be_whole_is_refused_as_too_long() {
    let served = Served::start();
    let mut rude = Rude::connect(&served.socket()).await;
    rude.ask(FLAG_DO_NOT_FRAGMENT, 0, (2 << 20) + 1).await;
    let (header, payload) = rude.chunk().await;
    assert!(header.kind.is_error() && header.is_last());
    assert_eq!(ErrorReport::decode(&payload).unwrap().code, ErrorCode::OVERFLOW);
    rude.ask(FLAG_DO_NOT_FRAGMENT, 0, 2 << 20).await;
    assert_eq!(rude.chunk().await.1.len(), 8 + (2 << 20));
    assert_eq!(served.export.longest.load(Ordering::SeqCst), 2 << 20);
}

#[tokio::test]
async fn a_piece_that_cannot_be_read_fails_its_request_and_no_other() {
    let served = Served::start();
    let client = served.client().await;
    let (broken, whole) = tokio::join!(
        client.read(BROKEN_AT - (1 << 20), 4 << 20),
        client.read(BROKEN_AT + (1 << 20), 4 << 20),
    );
    assert_eq!(whole.unwrap().len(), 4 << 20);
    let Err(ClientError::Refused { code, message }) = broken else {
        panic!("{broken:?}");
    };
    assert_eq!(code, ErrorCode::INPUT_OUTPUT);
    assert_eq!(message, "block 512 of point 7 is damaged");
}

#[tokio::test]
async fn slow_reads_of_one_connection_are_done_side_by_side() {
    let served = Served::start();
    let client = served.client().await;
    served.export.close();
    let first = async {
        let opening = async {
            served
                .reached(|export| export.inside.load(Ordering::SeqCst) == 1)
                .await;
            // The disk takes its time.
            let _ = timeout(A_WHILE, std::future::pending::<()>()).await;
            served.export.open();
        };
        tokio::join!(client.read(0, 4096), opening).0
    };
    first.await.unwrap();

    served.export.close();
    let mut reads = tokio::task::JoinSet::new();
    let client = Arc::new(client);
    for number in 0..8 {
        let client = Arc::clone(&client);
        reads.spawn(async move { client.read(number * 4096, 4096).await });
    }
    served
        .reached(|export| export.inside.load(Ordering::SeqCst) == 8)
        .await;
    served.export.open();
    while let Some(read) = reads.join_next().await {
        assert_eq!(read.unwrap().unwrap().len(), 4096);
    }
}

//! The server against clients that speak in bytes, well or badly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{ServeError, Service, serve};
use crate::export::{Export, ExportExtent, Exports, ExtentState};
use crate::wire::error_code::ErrorCode;
use crate::wire::handshake::{OptionCode, OptionHeader, OptionReply, OptionReplyHeader};
use crate::wire::options::{BASE_ALLOCATION, ContextQueries, ExportChoice};
use crate::wire::reply::{ChunkHeader, ChunkKind, ErrorReport, block_status};
use crate::wire::request::{Command, FLAG_DO_NOT_FRAGMENT, FLAG_ONE_DESCRIPTOR, Request};
use crate::wire::{OPTION_BYTES_MAXIMUM, READ_BYTES_MAXIMUM};

const SIZE: u64 = 64 << 20;
const HOLE_AT: u64 = 1 << 20;
const BROKEN_AT: u64 = 2 << 20;
const PANICS_AT: u64 = 3 << 20;

/// Data 0xda, but a hole in the second MiB, and two places where reading fails.
#[derive(Default)]
struct Picky {
    reads: AtomicUsize,
}

impl Export for Picky {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match offset {
            BROKEN_AT => return Err(io::Error::other("block 512 of point 7 is damaged")),
            PANICS_AT => panic!("an export with a bug"),
            _ => {}
        }
        for (position, byte) in (offset..).zip(buffer) {
            *byte = if (HOLE_AT..BROKEN_AT).contains(&position) {
                0
            } else {
                0xda
            };
        }
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64) -> io::Result<Vec<ExportExtent>> {
        let mut extents = Vec::new();
        for (start, end, state) in [
            (0, HOLE_AT, ExtentState::Data),
            (HOLE_AT, BROKEN_AT, ExtentState::Hole),
            (BROKEN_AT, SIZE, ExtentState::Data),
        ] {
            let length = end.min(offset + length).saturating_sub(start.max(offset));
            extents.push(ExportExtent { length, state });
        }
        Ok(extents)
    }
}

/// A client that sends and receives bytes.
struct Raw {
    stream: DuplexStream,
    server: JoinHandle<Result<(), ServeError>>,
    export: Arc<Picky>,
}

impl Raw {
    async fn greeted(flags: u32) -> Self {
        let export = Arc::new(Picky::default());
        let exports = Exports::builder().add("disk", export.clone()).unwrap();
        let exports = exports.add("other", Arc::new(Picky::default())).unwrap().build();
        let (mut stream, theirs) = tokio::io::duplex(256 * 1024);
        let server = tokio::spawn(serve(theirs, Arc::new(exports)));
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_u32(flags).await.unwrap();
        Self {
            stream,
            server,
            export,
        }
    }

    /// With structured replies, `base:allocation` of `context_of`, and the export `disk`.
    async fn structured(context_of: &str) -> Self {
        let mut raw = Self::greeted(3).await;
        assert_eq!(
            raw.option(OptionCode::STRUCTURED_REPLY, &[]).await,
            [OptionReply::ACKNOWLEDGED]
        );
        raw.option(
            OptionCode::SET_META_CONTEXT,
            &queries(context_of, &[BASE_ALLOCATION]),
        )
        .await;
        raw.option(OptionCode::GO, &choice("disk")).await;
        raw
    }

    /// Sends an option and reads the kinds of all answers to it.
    async fn option(&mut self, option: OptionCode, data: &[u8]) -> Vec<OptionReply> {
        let mut message = BytesMut::new();
        OptionHeader {
            option,
            data_bytes: u32::try_from(data.len()).unwrap(),
        }
        .put(&mut message);
        message.put_slice(data);
        self.stream.write_all(&message).await.unwrap();
        let mut replies = Vec::new();
        loop {
            let mut header = [0; 20];
            self.stream.read_exact(&mut header).await.unwrap();
            let header = OptionReplyHeader::decode(&header).unwrap();
            assert_eq!(header.option, option);
            let mut data = vec![0; header.data_bytes as usize];
            self.stream.read_exact(&mut data).await.unwrap();
            replies.push(header.reply);
            if header.reply.is_refusal() || header.reply == OptionReply::ACKNOWLEDGED {
                return replies;
            }
        }
    }

    async fn request(&mut self, command: Command, flags: u16, offset: u64, length: u32) {
        let mut message = BytesMut::new();
        Request {
            flags,
            command,
            cookie: 42,
            offset,
            length,
        }
        .put(&mut message);
        self.stream.write_all(&message).await.unwrap();
    }

    async fn chunk(&mut self) -> (ChunkHeader, Vec<u8>) {
        assert_eq!(self.stream.read_u32().await.unwrap(), 0x668e_33ef);
        let mut rest = [0; 16];
        self.stream.read_exact(&mut rest).await.unwrap();
        let header = ChunkHeader::decode(&rest).unwrap();
        assert_eq!(header.cookie, 42);
        let mut payload = vec![0; header.payload_bytes as usize];
        self.stream.read_exact(&mut payload).await.unwrap();
        (header, payload)
    }

    async fn refusal(&mut self) -> ErrorReport {
        let (header, payload) = self.chunk().await;
        assert!(header.kind == ChunkKind::ERROR && header.is_last());
        ErrorReport::decode(&payload).unwrap()
    }

    async fn error_of(&mut self, command: Command, flags: u16, offset: u64, length: u32) -> ErrorCode {
        self.request(command, flags, offset, length).await;
        self.refusal().await.code
    }

    async fn leave(mut self) {
        self.request(Command::DISCONNECT, 0, 0, 0).await;
        self.ended().await.unwrap();
    }

    async fn ended(self) -> Result<(), ServeError> {
        timeout(Duration::from_secs(10), self.server)
            .await
            .unwrap()
            .unwrap()
    }
}

fn choice(name: &str) -> BytesMut {
    let mut data = BytesMut::new();
    ExportChoice {
        name: name.to_owned(),
        facts: Vec::new(),
    }
    .put(&mut data)
    .unwrap();
    data
}

fn queries(export: &str, queries: &[&str]) -> BytesMut {
    let queries = queries.iter().map(|query| (*query).to_owned()).collect();
    let mut data = BytesMut::new();
    ContextQueries {
        export: export.to_owned(),
        queries,
    }
    .put(&mut data)
    .unwrap();
    data
}

#[tokio::test]
async fn options_are_refused_by_the_reason_that_fits() {
    let mut raw = Raw::greeted(3).await;
    assert_eq!(
        raw.option(OptionCode(4711), b"whatever").await,
        [OptionReply::UNSUPPORTED]
    );
    assert_eq!(raw.option(OptionCode(5), &[]).await, [OptionReply::UNSUPPORTED]);
    assert_eq!(
        raw.option(OptionCode::INFO, &choice("none")).await,
        [OptionReply::UNKNOWN]
    );
    // Two exports: nobody can say which one the empty name means.
    assert_eq!(
        raw.option(OptionCode::GO, &choice("")).await,
        [OptionReply::UNKNOWN]
    );
    assert_eq!(raw.option(OptionCode::GO, b"\0\0").await, [OptionReply::INVALID]);
    assert_eq!(
        raw.option(OptionCode::GO, b"\0\0\x10\x01").await,
        [OptionReply::TOO_BIG]
    );
    assert_eq!(raw.option(OptionCode::LIST, b"x").await, [OptionReply::INVALID]);
    let early = raw
        .option(OptionCode::SET_META_CONTEXT, &queries("disk", &[BASE_ALLOCATION]))
        .await;
    assert_eq!(early, [OptionReply::INVALID]);
    let listed = raw.option(OptionCode::LIST, &[]).await;
    assert_eq!(
        listed,
        [
            OptionReply::SERVER,
            OptionReply::SERVER,
            OptionReply::ACKNOWLEDGED
        ]
    );
    assert_eq!(
        raw.option(OptionCode::ABORT, &[]).await,
        [OptionReply::ACKNOWLEDGED]
    );
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn contexts_are_listed_by_name_namespace_or_all() {
    let mut raw = Raw::greeted(3).await;
    raw.option(OptionCode::STRUCTURED_REPLY, &[]).await;
    let found = [OptionReply::META_CONTEXT, OptionReply::ACKNOWLEDGED];
    for query in [&[][..], &["base:"], &[BASE_ALLOCATION], &["x:y", "base:"]] {
        assert_eq!(
            raw.option(OptionCode::LIST_META_CONTEXT, &queries("disk", query))
                .await,
            found
        );
    }
    let nothing = [OptionReply::ACKNOWLEDGED];
    assert_eq!(
        raw.option(OptionCode::LIST_META_CONTEXT, &queries("disk", &["x:"]))
            .await,
        nothing
    );
    // To agree on contexts, each has to be named in full.
    assert_eq!(
        raw.option(OptionCode::SET_META_CONTEXT, &queries("disk", &["base:"]))
            .await,
        nothing
    );
    assert_eq!(
        raw.option(OptionCode::SET_META_CONTEXT, &queries("disk", &[]))
            .await,
        nothing
    );
}

#[tokio::test]
async fn a_client_without_structured_replies_gets_simple_ones() {
    let mut raw = Raw::greeted(1).await;
    let mut message = BytesMut::new();
    OptionHeader {
        option: OptionCode::EXPORT_NAME,
        data_bytes: 4,
    }
    .put(&mut message);
    message.put_slice(b"disk");
    raw.stream.write_all(&message).await.unwrap();
    assert_eq!(raw.stream.read_u64().await.unwrap(), SIZE);
    assert_eq!(raw.stream.read_u16().await.unwrap(), 1 | 2 | 4 | 256);
    let mut padding = [1; 124];
    raw.stream.read_exact(&mut padding).await.unwrap();
    assert_eq!(padding, [0; 124]);

    raw.request(Command::READ, 0, HOLE_AT - 2, 4).await;
    let mut reply = [0; 20];
    raw.stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply, *b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x2a\xda\xda\0\0");
    for (command, flags, error) in [
        (Command::TRIM, 0, 1),
        (Command::BLOCK_STATUS, 0, 22),
        (Command::READ, FLAG_DO_NOT_FRAGMENT, 22),
    ] {
        raw.request(command, flags, 0, 512).await;
        let mut reply = [0; 16];
        raw.stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[4..8], [0, 0, 0, error]);
    }
    raw.leave().await;
}

#[tokio::test]
async fn a_read_tells_its_holes_unless_it_must_be_whole() {
    let mut raw = Raw::structured("disk").await;
    let half = 32_768;
    raw.request(Command::READ, 0, HOLE_AT - 32_768, 2 * half).await;
    let (header, payload) = raw.chunk().await;
    assert!(header.kind == ChunkKind::OFFSET_DATA && !header.is_last());
    assert_eq!(payload[..8], (HOLE_AT - 32_768).to_be_bytes());
    assert!(payload.len() == 8 + 32_768 && payload[8..].iter().all(|byte| *byte == 0xda));
    let (header, payload) = raw.chunk().await;
    assert!(header.kind == ChunkKind::OFFSET_HOLE && header.is_last());
    assert_eq!(
        payload,
        [&HOLE_AT.to_be_bytes()[..], &half.to_be_bytes()].concat()
    );

    for (flags, length) in [(FLAG_DO_NOT_FRAGMENT, 2 * half), (0, half + 1)] {
        raw.request(Command::READ, flags, HOLE_AT - 32_768, length).await;
        let (header, payload) = raw.chunk().await;
        assert!(header.kind == ChunkKind::OFFSET_DATA && header.is_last());
        assert_eq!(payload.len(), 8 + length as usize);
        assert!(payload[8 + 32_768..].iter().all(|byte| *byte == 0));
    }
    raw.leave().await;
}

#[tokio::test]
async fn what_would_change_the_export_is_not_permitted_and_the_connection_goes_on() {
    let mut raw = Raw::structured("disk").await;
    raw.request(Command::WRITE, 0, 0, 3).await;
    raw.stream.write_all(b"abc").await.unwrap();
    assert_eq!(raw.refusal().await.code, ErrorCode::NOT_PERMITTED);
    assert_eq!(
        raw.error_of(Command::TRIM, 0, 0, 4096).await,
        ErrorCode::NOT_PERMITTED
    );
    assert_eq!(
        raw.error_of(Command::WRITE_ZEROES, 0, 0, 4096).await,
        ErrorCode::NOT_PERMITTED
    );
    raw.request(Command::FLUSH, 0, 0, 0).await;
    assert_eq!(raw.chunk().await.0.kind, ChunkKind::NONE);
    raw.leave().await;
}

#[tokio::test]
async fn what_is_out_of_bounds_or_unknown_is_invalid() {
    let mut raw = Raw::structured("disk").await;
    for (command, flags, offset, length) in [
        (Command::READ, 0, SIZE, 1),
        (Command::READ, 0, SIZE - 1, 2),
        (Command::READ, 0, u64::MAX, u32::MAX),
        (Command::READ, 0, 0, 0),
        (Command::READ, 0, 0, READ_BYTES_MAXIMUM + 1),
        (Command::READ, FLAG_DO_NOT_FRAGMENT, 0, u32::MAX),
        (Command::READ, 1 << 15, 0, 1),
        (Command::BLOCK_STATUS, 0, SIZE, 1),
        (Command::BLOCK_STATUS, 1 << 15, 0, 1),
        (Command(4711), 0, 0, 1),
    ] {
        let error = raw.error_of(command, flags, offset, length).await;
        assert_eq!(error, ErrorCode::INVALID, "{command:?} {flags} {offset} {length}");
    }
    assert_eq!(raw.export.reads.load(Ordering::SeqCst), 0);
    raw.leave().await;
}

#[tokio::test]
async fn block_status_is_told_whole_or_by_one_descriptor() {
    let mut raw = Raw::structured("disk").await;
    raw.request(Command::BLOCK_STATUS, 0, 0, u32::try_from(SIZE).unwrap())
        .await;
    let lengths = |payload: &[u8]| -> Vec<u32> {
        block_status(payload)
            .unwrap()
            .1
            .iter()
            .map(|descriptor| descriptor.length)
            .collect()
    };
    assert_eq!(lengths(&raw.chunk().await.1), [1 << 20, 1 << 20, 62 << 20]);
    raw.request(Command::BLOCK_STATUS, FLAG_ONE_DESCRIPTOR, 512, 1 << 21)
        .await;
    assert_eq!(lengths(&raw.chunk().await.1), [(1 << 20) - 512]);
    raw.leave().await;
}

#[tokio::test]
async fn a_context_of_another_export_counts_for_nothing() {
    let mut raw = Raw::structured("other").await;
    assert_eq!(
        raw.error_of(Command::BLOCK_STATUS, 0, 0, 512).await,
        ErrorCode::INVALID
    );
    raw.leave().await;
}

#[tokio::test]
async fn an_export_that_fails_costs_one_request() {
    let mut raw = Raw::structured("disk").await;
    raw.request(Command::READ, 0, BROKEN_AT, 512).await;
    let report = raw.refusal().await;
    assert_eq!(report.code, ErrorCode::INPUT_OUTPUT);
    assert_eq!(report.message, "block 512 of point 7 is damaged");
    assert_eq!(
        raw.error_of(Command::READ, 0, PANICS_AT, 512).await,
        ErrorCode::INPUT_OUTPUT
    );
    raw.request(Command::READ, 0, 0, 512).await;
    assert_eq!(raw.chunk().await.0.kind, ChunkKind::OFFSET_DATA);
    raw.leave().await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_let_go() {
    let raw = Raw::greeted(0).await;
    assert!(matches!(
        raw.ended().await,
        Err(ServeError::ClientFlags { flags: 0 })
    ));
    let raw = Raw::greeted(1 << 9 | 1).await;
    assert!(matches!(raw.ended().await, Err(ServeError::ClientFlags { .. })));

    let mut raw = Raw::greeted(3).await;
    let mut message = BytesMut::new();
    OptionHeader {
        option: OptionCode::GO,
        data_bytes: OPTION_BYTES_MAXIMUM + 1,
    }
    .put(&mut message);
    raw.stream.write_all(&message).await.unwrap();
    assert!(matches!(raw.ended().await, Err(ServeError::OptionTooLong { .. })));

    let mut raw = Raw::structured("disk").await;
    raw.request(Command::WRITE, 0, 0, u32::MAX).await;
    assert!(matches!(raw.ended().await, Err(ServeError::WriteTooLong { .. })));

    let mut raw = Raw::structured("disk").await;
    raw.stream.write_all(&[0x55; 28]).await.unwrap();
    assert!(matches!(raw.ended().await, Err(ServeError::Wire(_))));
}

#[tokio::test]
async fn a_client_that_dawdles_in_the_handshake_is_let_go() {
    let (_open, theirs) = tokio::io::duplex(4096);
    let mut service = Service::new(Arc::default());
    service.handshake_limit = Duration::from_millis(20);
    let (reader, writer) = tokio::io::split(theirs);
    let ended = timeout(Duration::from_secs(10), service.serve(reader, writer))
        .await
        .unwrap();
    assert!(matches!(ended, Err(ServeError::HandshakeTimeout { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_server_panic_or_wait(
        options in proptest::collection::vec((0..12u32, proptest::collection::vec(any::<u8>(), 0..60)), 0..4),
        requests in proptest::collection::vec((any::<u16>(), 0..9u16, 0..SIZE + 9, any::<u16>()), 0..6),
        rest in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = BytesMut::new();
        bytes.put_u32(3);
        for (option, data) in options {
            OptionHeader { option: OptionCode(option), data_bytes: u32::try_from(data.len()).unwrap() }.put(&mut bytes);
            bytes.put_slice(&data);
        }
        let go = choice("disk");
        OptionHeader { option: OptionCode::GO, data_bytes: u32::try_from(go.len()).unwrap() }.put(&mut bytes);
        bytes.put_slice(&go);
        for (flags, command, offset, length) in requests {
            Request { flags, command: Command(command), cookie: 1, offset, length: length.into() }.put(&mut bytes);
        }
        bytes.put_slice(&rest);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let exports = Exports::builder().add("disk", Arc::new(Picky::default())).unwrap().build();
            let (stream, theirs) = tokio::io::duplex(4096);
            let (mut reader, mut writer) = tokio::io::split(stream);
            let server = serve(theirs, Arc::new(exports));
            let client = async {
                let _ = writer.write_all(&bytes).await;
                let _ = writer.shutdown().await;
                let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
            };
            timeout(Duration::from_secs(20), async { tokio::join!(server, client) }).await.unwrap()
        }).0.ok();
    }
}

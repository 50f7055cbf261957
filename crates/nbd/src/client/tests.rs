//! The client against servers that are not what they should be.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Client, ClientError, ClientTimeouts, ConnectionLoss, HandshakeError, Violation};
use crate::wire::handshake::{OptionCode, OptionReply, OptionReplyHeader, put_greeting};
use crate::wire::options::{ContextGrant, ExportFact};
use crate::wire::reply::{ChunkHeader, ChunkKind};

const SIZE: u64 = 1 << 20;
const TIMEOUTS: ClientTimeouts = ClientTimeouts {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(5),
};

fn put_answer(bytes: &mut BytesMut, option: OptionCode, reply: OptionReply, data: &[u8]) {
    OptionReplyHeader {
        option,
        reply,
        data_bytes: u32::try_from(data.len()).unwrap(),
    }
    .put(bytes);
    bytes.put_slice(data);
}

/// A handshake in which everything is granted; a client does not wait for it to be sent bit by bit.
fn agreeable() -> BytesMut {
    let mut bytes = BytesMut::new();
    put_greeting(&mut bytes, 3);
    put_answer(
        &mut bytes,
        OptionCode::STRUCTURED_REPLY,
        OptionReply::ACKNOWLEDGED,
        &[],
    );
    let mut grant = BytesMut::new();
    ContextGrant {
        id: 5,
        name: "x:y".to_owned(),
    }
    .put(&mut grant);
    put_answer(
        &mut bytes,
        OptionCode::SET_META_CONTEXT,
        OptionReply::META_CONTEXT,
        &grant,
    );
    put_answer(
        &mut bytes,
        OptionCode::SET_META_CONTEXT,
        OptionReply::ACKNOWLEDGED,
        &[],
    );
    let mut fact = BytesMut::new();
    ExportFact::Export {
        size_bytes: SIZE,
        flags: 1,
    }
    .put(&mut fact);
    put_answer(&mut bytes, OptionCode::GO, OptionReply::INFO, &fact);
    put_answer(&mut bytes, OptionCode::GO, OptionReply::ACKNOWLEDGED, &[]);
    bytes
}

/// A server that sends `bytes` whatever it is asked, and reads on until the client leaves.
fn saying(bytes: BytesMut) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        let mut sink = Vec::new();
        let _ = reader.read_to_end(&mut sink).await;
    });
    ours
}

async fn connect(bytes: BytesMut) -> Result<Client, ClientError> {
    Client::connect_over(saying(bytes), "disk", &["x:y"], TIMEOUTS).await
}

/// Reads from a server that answers the first request by these bytes, and tells how the connection ended.
async fn loss_after(header: ChunkHeader, payload: &[u8]) -> Arc<ConnectionLoss> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut bytes = BytesMut::new();
    header.put(&mut bytes);
    bytes.put_slice(payload);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(theirs);
        writer.write_all(&agreeable()).await.unwrap();
        // Everything up to the request, whose magic number occurs nowhere before.
        let mut seen = Vec::new();
        while !seen
            .windows(4)
            .any(|window| window == 0x2560_9513_u32.to_be_bytes())
        {
            seen.push(reader.read_u8().await.unwrap());
        }
        writer.write_all(&bytes).await.unwrap();
        let _ = reader.read_to_end(&mut seen).await;
    });
    let client = Client::connect_over(ours, "disk", &["x:y"], TIMEOUTS)
        .await
        .unwrap();
    match client.read(4096, 512).await {
        Err(ClientError::Lost(loss)) => loss,
        other => panic!("{other:?}"),
    }
}

async fn violation_after(header: ChunkHeader, payload: &[u8]) -> Violation {
    let loss = loss_after(header, payload).await;
    let ConnectionLoss::Violation(violation) = &*loss else {
        panic!("{loss:?}")
    };
    violation.clone()
}

/// The first request has the cookie 1.
fn last_chunk(kind: ChunkKind, payload_bytes: u32) -> ChunkHeader {
    ChunkHeader {
        flags: 1,
        kind,
        cookie: 1,
        payload_bytes,
    }
}

#[tokio::test]
async fn a_read_that_ends_before_its_bytes_came_is_not_taken_for_zeroes() {
    assert_eq!(
        violation_after(last_chunk(ChunkKind::NONE, 0), &[]).await,
        Violation::Incomplete
    );
    let mut hole = BytesMut::new();
    hole.put_u64(4096);
    hole.put_u32(511);
    assert_eq!(
        violation_after(last_chunk(ChunkKind::OFFSET_HOLE, 12), &hole).await,
        Violation::Incomplete
    );
}

#[tokio::test]
async fn bytes_outside_of_what_was_asked_end_the_connection() {
    let mut data = BytesMut::new();
    data.put_u64(4096);
    data.put_bytes(1, 513);
    let found = violation_after(last_chunk(ChunkKind::OFFSET_DATA, 8 + 513), &data).await;
    assert_eq!(
        found,
        Violation::Piece {
            offset: 4096,
            length: 513
        }
    );
}

#[tokio::test]
async fn an_answer_to_nothing_ends_the_connection() {
    let header = ChunkHeader {
        cookie: 77,
        ..last_chunk(ChunkKind::NONE, 0)
    };
    assert_eq!(
        violation_after(header, &[]).await,
        Violation::UnknownCookie { cookie: 77 }
    );
}

#[tokio::test]
async fn lengths_that_only_a_liar_claims_are_refused_before_anything_is_allocated() {
    let error = last_chunk(ChunkKind::ERROR, u32::MAX);
    assert_eq!(
        violation_after(error, &[]).await,
        Violation::ChunkLength {
            payload_bytes: u32::MAX
        }
    );
    let data = last_chunk(ChunkKind::OFFSET_DATA, 7);
    assert_eq!(
        violation_after(data, &[]).await,
        Violation::ChunkLength { payload_bytes: 7 }
    );
    let status = last_chunk(ChunkKind::BLOCK_STATUS, 12);
    assert_eq!(violation_after(status, &[0; 12]).await, Violation::WrongKind);
}

#[tokio::test]
async fn a_server_that_never_ends_its_list_is_given_up() {
    let mut bytes = BytesMut::new();
    put_greeting(&mut bytes, 3);
    put_answer(
        &mut bytes,
        OptionCode::STRUCTURED_REPLY,
        OptionReply::ACKNOWLEDGED,
        &[],
    );
    let mut grant = BytesMut::new();
    ContextGrant {
        id: 5,
        name: "x:y".to_owned(),
    }
    .put(&mut grant);
    for _ in 0..1000 {
        put_answer(
            &mut bytes,
            OptionCode::SET_META_CONTEXT,
            OptionReply::META_CONTEXT,
            &grant,
        );
    }
    match connect(bytes).await {
        Err(ClientError::Handshake {
            source: HandshakeError::UnexpectedAnswer { .. },
            ..
        }) => {}
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("connected"),
    }
}

#[tokio::test]
async fn a_peer_that_is_no_nbd_server_is_told_apart() {
    match connect(BytesMut::from(&b"SSH-2.0-OpenSSH_9.2p1 Debian-2"[..])).await {
        Err(ClientError::Handshake {
            source: HandshakeError::Wire(_),
            export,
        }) => assert_eq!(export, "disk"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("connected"),
    }
}

/// Runs the future to its end; a hang fails the test.
fn ends<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), future)
            .await
            .unwrap()
    })
}

proptest! {
    #[test]
    fn no_handshake_makes_the_client_panic_or_wait(
        cut in 0..200usize,
        flipped in proptest::option::of((0..200usize, any::<u8>())),
        rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = agreeable();
        if let Some((position, byte)) = flipped {
            let position = position % bytes.len();
            bytes[position] = byte;
        }
        bytes.truncate(cut);
        bytes.extend_from_slice(&rest);
        let _ = ends(connect(bytes));
    }

    #[test]
    fn no_reply_makes_the_client_panic_or_wait(
        chunks in proptest::collection::vec(
            (any::<u16>(), prop_oneof![0..6u16, 0x8000..0x8004u16], 0..4u64, 0..40u32, any::<[u8; 24]>()),
            0..8,
        ),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = agreeable();
        for (flags, kind, cookie, payload_bytes, payload) in chunks {
            ChunkHeader { flags, kind: ChunkKind(kind), cookie, payload_bytes }.put(&mut bytes);
            bytes.extend(payload.iter().cycle().take(payload_bytes as usize));
        }
        bytes.extend_from_slice(&rest);
        ends(async {
            if let Ok(client) = connect(bytes).await {
                let (read, status) = tokio::join!(client.read(0, 512), client.block_status("x:y", 0, SIZE));
                // The server says nothing that could make a whole read.
                assert!(read.is_err() || status.is_err());
                client.disconnect().await;
            }
        });
    }
}

//! Moves requests from the stream to the export's threads, and replies back in the order in which they are ready.
//!
//! Memory is bounded by two semaphores: how many requests are in flight, and how many bytes their answers may take.
//! Both are held until the reply is written, so that a client that does not read stops being read from.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ServeError;
use super::admission::{Admission, Work, admit};
use super::answers;
use super::negotiation::Agreement;
use crate::bounds::{Bounds, Share};
use crate::export::Export;
use crate::wire::READ_BYTES_MAXIMUM;
use crate::wire::error_code::ErrorCode;
use crate::wire::reply::ReplyForm;
use crate::wire::request::{REQUEST_BYTES, Request};

/// Requests of one connection that are worked on at a time: what QEMU and nbdcopy keep in flight.
const REQUESTS_IN_FLIGHT_MAXIMUM: usize = 16;

/// Answers of one connection that may be in memory at a time: one of the longest reads, and some shorter ones.
const ANSWER_BYTES_IN_FLIGHT_MAXIMUM: u32 = 2 * READ_BYTES_MAXIMUM;

/// More than an answer without data takes.
const SHORT_ANSWER_BYTES: u32 = 4096;

/// How long a client that said goodbye may take to fetch what it asked for before.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(10);

/// A reply on its way, with its share of the bounds.
struct Reply {
    bytes: Bytes,
    _share: Share,
}

/// Serves requests until the client leaves.
pub(super) async fn transmit<R, W>(reader: R, writer: W, agreement: Agreement) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (replies, queue) = mpsc::channel(REQUESTS_IN_FLIGHT_MAXIMUM);
    let mut sending = std::pin::pin!(send_replies(writer, queue));
    let receiving = std::pin::pin!(receive_requests(reader, &agreement, replies));
    tokio::select! {
        ended = receiving => {
            ended?;
            timeout(LAST_ANSWERS_LIMIT, sending).await.map_err(|_| ServeError::AnswersNotTaken)??;
            Ok(())
        }
        // While requests are received the queue cannot end, so this is a failure to write.
        sent = &mut sending => Ok(sent?),
    }
}

async fn send_replies<W>(mut writer: W, mut queue: mpsc::Receiver<Reply>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some(reply) = queue.recv().await {
        writer.write_all(&reply.bytes).await?;
    }
    writer.shutdown().await
}

async fn receive_requests<R>(
    mut reader: R,
    agreement: &Agreement,
    replies: mpsc::Sender<Reply>,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
{
    let bounds = Bounds::new(REQUESTS_IN_FLIGHT_MAXIMUM, ANSWER_BYTES_IN_FLIGHT_MAXIMUM);
    let mut workers = JoinSet::new();
    loop {
        while workers.try_join_next().is_some() {}
        let Some(request) = next_request(&mut reader).await? else {
            return Ok(());
        };
        let ready = match admit(&request, agreement) {
            Admission::Answer(bytes) => bytes,
            Admission::DiscardThenAnswer {
                payload_bytes,
                answer,
            } => {
                discard(&mut reader, u64::from(payload_bytes)).await?;
                answer
            }
            Admission::Work(work) => {
                let share = bounds
                    .share(work.answer_bytes())
                    .await
                    .map_err(io::Error::other)?;
                workers.spawn(run(
                    work,
                    Arc::clone(&agreement.export),
                    agreement.form,
                    share,
                    replies.clone(),
                ));
                continue;
            }
            Admission::Disconnect => break,
            Admission::Hang => {
                return Err(ServeError::WriteTooLong {
                    length_bytes: request.length,
                });
            }
        };
        let share = bounds.share(SHORT_ANSWER_BYTES).await.map_err(io::Error::other)?;
        if replies
            .send(Reply {
                bytes: ready,
                _share: share,
            })
            .await
            .is_err()
        {
            return Ok(());
        }
    }
    let finished = async { while workers.join_next().await.is_some() {} };
    timeout(LAST_ANSWERS_LIMIT, finished)
        .await
        .map_err(|_| ServeError::AnswersNotTaken)
}

async fn run(
    work: Work,
    export: Arc<dyn Export>,
    form: ReplyForm,
    share: Share,
    replies: mpsc::Sender<Reply>,
) {
    let answered = tokio::task::spawn_blocking(move || answers::answer(export.as_ref(), &work)).await;
    let bytes = answered.unwrap_or_else(|failure| {
        tracing::error!(offset = work.offset, length = work.length, error = %failure, "an NBD export panicked");
        answers::error(form, work.cookie, ErrorCode::INPUT_OUTPUT, "the export failed")
    });
    // When nobody takes replies any more, the connection is ending.
    let _ = replies.send(Reply { bytes, _share: share }).await;
}

/// The next request, or nothing when the client went away between two.
async fn next_request<R>(reader: &mut R) -> Result<Option<Request>, ServeError>
where
    R: AsyncRead + Unpin,
{
    let mut bytes = [0; REQUEST_BYTES];
    let (first, rest) = bytes.split_at_mut(1);
    if reader.read(first).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(rest).await?;
    Ok(Some(Request::decode(&bytes)?))
}

async fn discard<R>(reader: &mut R, length_bytes: u64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let read = tokio::io::copy(&mut reader.take(length_bytes), &mut tokio::io::sink()).await?;
    if read == length_bytes {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

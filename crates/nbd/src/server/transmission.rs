//! Moves requests from the stream to the export's threads, and replies back in the order in which they are ready.
//!
//! Memory is bounded by two semaphores: how many requests are in flight, and how many bytes their answers may take.
//! Both are held until the reply is written, so that a client that does not read stops being read from.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ServeError;
use super::admission::{Admission, admit};
use super::buffers::Buffers;
use super::lanes::{Job, Lanes, Reply};
use super::negotiation::Agreement;
use super::pieces::{Part, parts};
use super::sending::send_replies;
use crate::bounds::Bounds;
use crate::wire::READ_BYTES_MAXIMUM;
use crate::wire::reply::ReplyForm;
use crate::wire::request::{REQUEST_BYTES, Request};

/// Requests of one connection that are worked on at a time: what nbdcopy keeps in flight, and four times what QEMU does.
const REQUESTS_IN_FLIGHT_MAXIMUM: usize = 64;

/// Answers of one connection that may be in memory at a time, where a long read is answered in pieces: one for each thread
/// that works on them. More would be slower, as what is read leaves the processor's cache before it is sent.
const PIECED_ANSWER_BYTES_MAXIMUM: u32 = 2 * 1024 * 1024;

/// The same where clients know no structured replies, so that the longest read has to be in memory as a whole.
const WHOLE_ANSWER_BYTES_MAXIMUM: u32 = READ_BYTES_MAXIMUM;

/// More than an answer without data takes.
const SHORT_ANSWER_BYTES: u32 = 4096;

/// How long a client that said goodbye may take to fetch what it asked for before.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(10);

/// Serves requests until the client leaves.
pub(super) async fn transmit<R, W>(
    reader: R,
    writer: W,
    agreement: Agreement,
    buffers: Buffers,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (replies, queue) = mpsc::channel(REQUESTS_IN_FLIGHT_MAXIMUM);
    let lanes = Lanes::new(Arc::clone(&agreement.export), buffers, replies.clone());
    let mut sending = std::pin::pin!(send_replies(writer, queue));
    let receiving = std::pin::pin!(receive_requests(reader, &agreement, lanes, replies));
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

async fn receive_requests<R>(
    mut reader: R,
    agreement: &Agreement,
    lanes: Lanes,
    replies: mpsc::Sender<Reply>,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
{
    let bounds = Bounds::new(REQUESTS_IN_FLIGHT_MAXIMUM, answer_bytes_maximum(agreement.form));
    loop {
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
                for (work, part) in parts(work) {
                    let share = bounds.share(work.answer_bytes()).await;
                    let share = share.map_err(io::Error::other)?;
                    lanes.push(Job { work, part, share });
                }
                continue;
            }
            // The lanes go on until all is answered.
            Admission::Disconnect => return Ok(()),
            Admission::Hang => {
                return Err(ServeError::WriteTooLong {
                    length_bytes: request.length,
                });
            }
        };
        let share = bounds.share(SHORT_ANSWER_BYTES).await.map_err(io::Error::other)?;
        let reply = Reply {
            bytes: ready,
            part: Part::Whole,
            share,
        };
        if replies.send(reply).await.is_err() {
            return Ok(());
        }
    }
}

fn answer_bytes_maximum(form: ReplyForm) -> u32 {
    match form {
        ReplyForm::Simple => WHOLE_ANSWER_BYTES_MAXIMUM,
        ReplyForm::Structured => PIECED_ANSWER_BYTES_MAXIMUM,
    }
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

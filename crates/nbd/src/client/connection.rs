//! Sends requests and hands out their answers, as long as the connection lives.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::assembly::{ReadAssembly, Refusal, StatusAssembly};
use super::error::ClientError;
use super::in_flight::{ConnectionLoss, InFlight, Waiting, WaitingFor};
use super::receiving::Receiver;
use crate::bounds::Bounds;
use crate::wire::READ_BYTES_MAXIMUM;
use crate::wire::reply::{ReplyForm, WireDescriptor};
use crate::wire::request::{Command, Request};

/// Requests in flight at a time: enough to keep a server busy over a link of some milliseconds.
const REQUESTS_IN_FLIGHT_MAXIMUM: usize = 32;

/// Answers in memory at a time: one of the longest reads, and some shorter ones.
const ANSWER_BYTES_IN_FLIGHT_MAXIMUM: u32 = 2 * READ_BYTES_MAXIMUM;

/// What a status answer is counted as, before its length is known.
const STATUS_ANSWER_BYTES: u32 = 1024 * 1024;

/// How many times within the time limit it is checked whether a request is overdue.
const CHECKS_PER_LIMIT: u32 = 8;

/// A live connection, or one whose loss is still to be noticed.
pub(super) struct Connection {
    in_flight: Arc<InFlight>,
    bounds: Arc<Bounds>,
    requests: mpsc::Sender<Request>,
    limit: Duration,
    /// Cancelled when the loss is recorded.
    ended: CancellationToken,
    task: JoinHandle<()>,
    /// Ends the task when the connection is dropped.
    stop: DropGuard,
}

impl Connection {
    pub(super) fn start<R, W>(reader: R, writer: W, form: ReplyForm, limit: Duration) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let in_flight = Arc::new(InFlight::new());
        let bounds = Arc::new(Bounds::new(
            REQUESTS_IN_FLIGHT_MAXIMUM,
            ANSWER_BYTES_IN_FLIGHT_MAXIMUM,
        ));
        // One more than there can be requests in flight, for the goodbye: so the queue is never full.
        let (requests, queue) = mpsc::channel(REQUESTS_IN_FLIGHT_MAXIMUM + 1);
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let receiver = Receiver::new(BufReader::new(reader), form, Arc::clone(&in_flight));
        let task = tokio::spawn({
            let (in_flight, bounds) = (Arc::clone(&in_flight), Arc::clone(&bounds));
            let (stop, ended) = (stop.clone(), ended.clone().drop_guard());
            async move {
                let loss = tokio::select! {
                    () = stop.cancelled() => ConnectionLoss::Dropped,
                    loss = receiver.run() => loss,
                    loss = send_requests(writer, queue) => loss,
                    () = overdue(&in_flight, limit) => ConnectionLoss::Silent { limit },
                };
                in_flight.lose(loss);
                bounds.close();
                drop(ended);
            }
        });
        Self {
            in_flight,
            bounds,
            requests,
            limit,
            ended,
            task,
            stop: stop.drop_guard(),
        }
    }

    pub(super) async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ClientError> {
        let Ok(share) = self.bounds.share(length).await else {
            return Err(self.lost().await);
        };
        let (asker, answer) = oneshot::channel();
        let request = WaitingFor::Read(ReadAssembly::new(offset, length), asker);
        self.ask(
            Command::READ,
            (offset, length),
            Waiting {
                request,
                _share: share,
            },
        )?;
        self.answer(answer).await
    }

    pub(super) async fn status(
        &self,
        context_id: u32,
        offset: u64,
        length: u32,
    ) -> Result<Vec<WireDescriptor>, ClientError> {
        let Ok(share) = self.bounds.share(STATUS_ANSWER_BYTES).await else {
            return Err(self.lost().await);
        };
        let (asker, answer) = oneshot::channel();
        let request = WaitingFor::Status(StatusAssembly::new(context_id), asker);
        self.ask(
            Command::BLOCK_STATUS,
            (offset, length),
            Waiting {
                request,
                _share: share,
            },
        )?;
        self.answer(answer).await
    }

    pub(super) async fn disconnect(self) {
        let goodbye = Request {
            flags: 0,
            command: Command::DISCONNECT,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        // A connection that is lost already needs no goodbye.
        if self.requests.try_send(goodbye).is_ok()
            && timeout(self.limit, self.ended.cancelled()).await.is_err()
        {
            tracing::debug!("an NBD server did not close the connection after the goodbye");
        }
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of an NBD connection failed");
        }
    }

    /// Does not wait, so that a request is never left recorded and unsent.
    fn ask(
        &self,
        command: Command,
        (offset, length): (u64, u32),
        waiting: Waiting,
    ) -> Result<(), ClientError> {
        let cookie = self.in_flight.add(waiting).map_err(ClientError::Lost)?;
        // Should this fail, the connection is ending, and its loss is what the asker will get.
        let _ = self.requests.try_send(Request {
            flags: 0,
            command,
            cookie,
            offset,
            length,
        });
        Ok(())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, ClientError> {
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Refusal { code, message })) => Err(ClientError::Refused { code, message }),
            Err(_) => Err(self.lost().await),
        }
    }

    async fn lost(&self) -> ClientError {
        self.ended.cancelled().await;
        ClientError::Lost(
            self.in_flight
                .loss()
                .unwrap_or_else(|| Arc::new(ConnectionLoss::Dropped)),
        )
    }
}

/// Sends what is asked until that fails. When nobody can ask any more, the other side is to close the connection.
async fn send_requests<W>(mut writer: W, mut queue: mpsc::Receiver<Request>) -> ConnectionLoss
where
    W: AsyncWrite + Unpin,
{
    let mut bytes = BytesMut::new();
    while let Some(request) = queue.recv().await {
        bytes.clear();
        request.put(&mut bytes);
        if let Err(error) = writer.write_all(&bytes).await {
            return ConnectionLoss::Stream(error);
        }
    }
    std::future::pending().await
}

/// Ends when a request has been unanswered for longer than the limit.
async fn overdue(in_flight: &InFlight, limit: Duration) {
    loop {
        sleep(limit / CHECKS_PER_LIMIT).await;
        if in_flight
            .oldest()
            .is_some_and(|asked_at| Instant::now().duration_since(asked_at) > limit)
        {
            return;
        }
    }
}

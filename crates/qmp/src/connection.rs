//! Owns the socket: writes commands, reads lines, hands answers to who waits for them and events to who listens.
//!
//! One task does all of it, so that a caller who gives up in the middle leaves no half-written command behind.

use std::{collections::HashMap, io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{broadcast, mpsc, oneshot, watch},
};

use crate::{
    line::{LineBuffer, LineTooLong, MAX_LINE_BYTES},
    message::{Answer, Event, Message},
};

/// How much is read at once: an ordinary answer fits.
const READ_BYTES: usize = 64 << 10;

/// Why a connection is no more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionLoss {
    /// The peer closed it: the hypervisor ended, perhaps.
    #[error("the peer closed the connection")]
    Ended,
    /// The peer sent a line without an end.
    #[error("the peer sent a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// The peer sent something that is not of this protocol.
    #[error("the peer does not speak QMP")]
    Malformed(#[source] serde_json::Error),
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<LineTooLong> for ConnectionLoss {
    fn from(LineTooLong: LineTooLong) -> Self {
        Self::LineTooLong
    }
}

/// Commands that are to be written in one piece, and who waits for which answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) waiting: Vec<(u64, oneshot::Sender<Answer>)>,
}

/// The socket and what was read ahead from it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    lines: LineBuffer,
    chunk: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            lines: LineBuffer::default(),
            chunk: vec![0; READ_BYTES],
        }
    }

    /// The next line, as long as nothing is to be written.
    pub(crate) async fn read_line(&mut self) -> Result<Vec<u8>, ConnectionLoss> {
        loop {
            if let Some(line) = self.lines.next_line()? {
                return Ok(line);
            }
            let read = self
                .stream
                .read(&mut self.chunk)
                .await
                .map_err(ConnectionLoss::Io)?;
            self.take(read)?;
        }
    }

    /// Serves requests until the monitor is dropped or the connection is lost; says which loss to whoever still waits.
    pub(crate) async fn serve(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        events: broadcast::Sender<Event>,
        lost: watch::Sender<Option<Arc<ConnectionLoss>>>,
    ) {
        let mut pending = Pending::default();
        if let Err(loss) = self.pump(&mut requests, &events, &mut pending).await {
            // Before `pending` is dropped, which wakes the callers.
            lost.send_replace(Some(Arc::new(loss)));
        }
    }

    async fn pump(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        events: &broadcast::Sender<Event>,
        pending: &mut Pending,
    ) -> Result<(), ConnectionLoss> {
        let mut outgoing = Vec::new();
        loop {
            while let Some(line) = self.lines.next_line()? {
                match Message::parse(&line).map_err(ConnectionLoss::Malformed)? {
                    Message::Answer { id, answer } => pending.answer(id, answer),
                    // Nobody may be listening; that is no fault.
                    Message::Event(event) => drop(events.send(event)),
                    Message::Other => {}
                }
            }
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                request = requests.recv(), if outgoing.is_empty() => match request {
                    Some(request) => {
                        outgoing = request.bytes;
                        pending.expect(request.waiting);
                    }
                    None => return Ok(()),
                },
                written = writer.write(&outgoing), if !outgoing.is_empty() => {
                    outgoing.drain(..written.map_err(ConnectionLoss::Io)?);
                }
                read = reader.read(&mut self.chunk) => {
                    let read = read.map_err(ConnectionLoss::Io)?;
                    self.take(read)?;
                }
            }
        }
    }

    fn take(&mut self, read: usize) -> Result<(), ConnectionLoss> {
        match self.chunk.get(..read) {
            Some(piece) if !piece.is_empty() => {
                self.lines.push(piece);
                Ok(())
            }
            Some(_) | None => Err(ConnectionLoss::Ended),
        }
    }
}

/// Who waits for which answer.
#[derive(Debug, Default)]
struct Pending(HashMap<u64, oneshot::Sender<Answer>>);

impl Pending {
    fn expect(&mut self, waiting: Vec<(u64, oneshot::Sender<Answer>)>) {
        // Callers that gave up are forgotten here, so that a mute peer does not fill the table.
        self.0.retain(|_, caller| !caller.is_closed());
        self.0.extend(waiting);
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(caller) = self.0.remove(&id) {
            // A caller that gave up in this moment does not want it any more.
            drop(caller.send(answer));
        }
    }
}

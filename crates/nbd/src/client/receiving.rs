//! Receives replies and gives each to the request that waits for it.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::assembly::{Refusal, Violation};
use super::in_flight::{ConnectionLoss, InFlight, Waiting, WaitingFor};
use crate::wire::NAME_BYTES_MAXIMUM;
use crate::wire::error_code::ErrorCode;
use crate::wire::reply::{
    CHUNK_HOLE_BYTES, CHUNK_OFFSET_BYTES, CHUNK_REST_BYTES, ChunkHeader, ChunkKind, ErrorReport,
    REPLY_MAGIC_BYTES, ReplyForm, SIMPLE_REST_BYTES, SimpleReply, block_status, hole, reply_form,
};

/// The longest payload of a chunk of block status: eight times what QEMU sends at most.
const STATUS_PAYLOAD_BYTES_MAXIMUM: u32 = 8 * 1024 * 1024;

/// The longest payload of an error chunk: the longest text, and room for what newer kinds add.
const ERROR_PAYLOAD_BYTES_MAXIMUM: usize = NAME_BYTES_MAXIMUM + 64;

/// The receiving half of a connection.
pub(super) struct Receiver<R> {
    reader: R,
    agreed: ReplyForm,
    in_flight: Arc<InFlight>,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    pub(super) fn new(reader: R, agreed: ReplyForm, in_flight: Arc<InFlight>) -> Self {
        Self {
            reader,
            agreed,
            in_flight,
        }
    }

    /// Receives until the connection is lost.
    pub(super) async fn run(mut self) -> ConnectionLoss {
        loop {
            if let Err(loss) = self.reply().await {
                return loss;
            }
        }
    }

    async fn reply(&mut self) -> Result<(), ConnectionLoss> {
        let mut magic = [0; REPLY_MAGIC_BYTES];
        let (first, rest) = magic.split_at_mut(1);
        if self.reader.read(first).await? == 0 {
            return Err(ConnectionLoss::Closed);
        }
        self.reader.read_exact(rest).await?;
        match (reply_form(&magic)?, self.agreed) {
            (ReplyForm::Simple, ReplyForm::Structured) => self.simple_error().await,
            (ReplyForm::Simple, ReplyForm::Simple) => self.simple().await,
            (ReplyForm::Structured, ReplyForm::Structured) => self.chunk().await,
            (ReplyForm::Structured, ReplyForm::Simple) => Err(Violation::WrongKind.into()),
        }
    }

    /// With structured replies agreed on, the requests sent here may be answered simply only by an error.
    async fn simple_error(&mut self) -> Result<(), ConnectionLoss> {
        let reply = self.simple_header().await?;
        if reply.error == ErrorCode::NONE {
            return Err(Violation::WrongKind.into());
        }
        self.refuse_simply(reply)
    }

    async fn simple(&mut self) -> Result<(), ConnectionLoss> {
        let reply = self.simple_header().await?;
        if reply.error != ErrorCode::NONE {
            return self.refuse_simply(reply);
        }
        let mut waiting = self.in_flight.take(reply.cookie)?;
        match &mut waiting.request {
            WaitingFor::Read(assembly, _) => assembly.whole().fill_from(&mut self.reader).await?,
            WaitingFor::Status(..) => return Err(Violation::WrongKind.into()),
        };
        self.finish(reply.cookie, waiting)
    }

    async fn simple_header(&mut self) -> Result<SimpleReply, ConnectionLoss> {
        let mut rest = [0; SIMPLE_REST_BYTES];
        self.reader.read_exact(&mut rest).await?;
        Ok(SimpleReply::decode(&rest)?)
    }

    fn refuse_simply(&self, reply: SimpleReply) -> Result<(), ConnectionLoss> {
        let mut waiting = self.in_flight.take(reply.cookie)?;
        refuse(
            &mut waiting,
            Refusal {
                code: reply.error,
                message: String::new(),
            },
        );
        self.finish(reply.cookie, waiting)
    }

    async fn chunk(&mut self) -> Result<(), ConnectionLoss> {
        let mut rest = [0; CHUNK_REST_BYTES];
        self.reader.read_exact(&mut rest).await?;
        let header = ChunkHeader::decode(&rest)?;
        let mut waiting = self.in_flight.take(header.cookie)?;
        self.payload(&header, &mut waiting).await?;
        if header.is_last() {
            return self.finish(header.cookie, waiting);
        }
        self.in_flight.put_back(header.cookie, waiting);
        Ok(())
    }

    async fn payload(&mut self, header: &ChunkHeader, waiting: &mut Waiting) -> Result<(), ConnectionLoss> {
        let payload_bytes = header.payload_bytes;
        let wrong_length = Violation::ChunkLength { payload_bytes };
        match (header.kind, &mut waiting.request) {
            (ChunkKind::NONE, _) if payload_bytes == 0 && header.is_last() => Ok(()),
            (ChunkKind::OFFSET_DATA, WaitingFor::Read(assembly, _)) => {
                let length = payload_bytes
                    .checked_sub(CHUNK_OFFSET_BYTES)
                    .ok_or(wrong_length)?;
                let offset = self.reader.read_u64().await?;
                let room = assembly.piece(offset, length)?;
                Ok(room.fill_from(&mut self.reader).await?)
            }
            (ChunkKind::OFFSET_HOLE, WaitingFor::Read(assembly, _)) if payload_bytes == CHUNK_HOLE_BYTES => {
                let payload = self.payload_bytes(payload_bytes).await?;
                let (offset, length) = hole(&payload)?;
                Ok(assembly.hole(offset, length)?)
            }
            (ChunkKind::BLOCK_STATUS, WaitingFor::Status(assembly, _)) => {
                if payload_bytes > STATUS_PAYLOAD_BYTES_MAXIMUM {
                    return Err(wrong_length.into());
                }
                let payload = self.payload_bytes(payload_bytes).await?;
                let (context_id, descriptors) = block_status(&payload)?;
                assembly.take(context_id, descriptors)?;
                Ok(())
            }
            (kind, _) if kind.is_error() => {
                let longest = u32::try_from(ERROR_PAYLOAD_BYTES_MAXIMUM).unwrap_or(u32::MAX);
                if payload_bytes > longest {
                    return Err(wrong_length.into());
                }
                let payload = self.payload_bytes(payload_bytes).await?;
                refuse(waiting, ErrorReport::decode(&payload)?.into());
                Ok(())
            }
            _ => Err(Violation::WrongKind.into()),
        }
    }

    async fn payload_bytes(&mut self, payload_bytes: u32) -> Result<Vec<u8>, ConnectionLoss> {
        let mut payload = vec![0; usize::try_from(payload_bytes).unwrap_or(usize::MAX)];
        self.reader.read_exact(&mut payload).await?;
        Ok(payload)
    }

    fn finish(&self, cookie: u64, waiting: Waiting) -> Result<(), ConnectionLoss> {
        // Whoever asked may have given up meanwhile: then nobody takes the answer.
        match waiting.request {
            WaitingFor::Read(assembly, asker) => {
                let _ = asker.send(assembly.finish()?);
            }
            WaitingFor::Status(assembly, asker) => {
                let _ = asker.send(assembly.finish()?);
            }
        }
        self.in_flight.remove(cookie);
        Ok(())
    }
}

fn refuse(waiting: &mut Waiting, refusal: Refusal) {
    match &mut waiting.request {
        WaitingFor::Read(assembly, _) => assembly.refuse(refusal),
        WaitingFor::Status(assembly, _) => assembly.refuse(refusal),
    }
}

//! Agrees with a server on structured replies, metadata contexts and an export.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::handshake::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, GREETING_BYTES, OPTION_REPLY_HEADER_BYTES, OptionCode, OptionHeader,
    OptionReply, OptionReplyHeader, greeting,
};
use crate::wire::options::{BlockSizes, ContextGrant, ContextQueries, ExportChoice, ExportFact, FactCode};
use crate::wire::reply::ReplyForm;
use crate::wire::{OPTION_BYTES_MAXIMUM, READ_BYTES_MAXIMUM, WireError};

/// Answers to one option that are read before the server is taken for one that never ends.
const ANSWERS_MAXIMUM: usize = 256;

/// The largest least block that the protocol allows.
const LEAST_BLOCK_BYTES_MAXIMUM: u32 = 64 * 1024;

/// Why there is no agreement with a server.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The stream failed, or ended too early.
    #[error("the connection failed")]
    Stream(#[from] io::Error),
    /// What came is not NBD.
    #[error("the server does not speak NBD")]
    Wire(#[from] WireError),
    /// The server is of a kind that cannot refuse an option.
    #[error("the server does not know the fixed newstyle (flags {flags:#x})")]
    TooOld {
        /// Its handshake flags.
        flags: u16,
    },
    /// The server refused an option that is needed.
    #[error("the server refused {option} as {reply}: {message}")]
    Refused {
        /// The option.
        option: OptionCode,
        /// How.
        reply: OptionReply,
        /// Its reason, which may be empty.
        message: String,
    },
    /// The server answered something else, too much, or too often.
    #[error("the server answered {option} by {data_bytes} bytes of {reply} where that cannot stand")]
    UnexpectedAnswer {
        /// The option that was sent.
        option: OptionCode,
        /// The kind of answer.
        reply: OptionReply,
        /// How long.
        data_bytes: u32,
    },
    /// The server did not say how large the export is.
    #[error("the server did not tell the size of the export")]
    NoSize,
    /// The server's lengths of requests contradict themselves or the protocol.
    #[error("the server takes requests of {least} to {greatest} bytes, which cannot be")]
    BlockSizes {
        /// The least.
        least: u32,
        /// The greatest.
        greatest: u32,
    },
}

/// What was agreed on.
pub(super) struct ExportTerms {
    pub(super) size_bytes: u64,
    pub(super) form: ReplyForm,
    pub(super) contexts: Vec<ContextGrant>,
    /// A power of two that every request is a multiple of.
    pub(super) block_bytes_minimum: u32,
    /// A multiple of the former.
    pub(super) read_bytes_maximum: u32,
}

struct Answer {
    reply: OptionReply,
    data: Vec<u8>,
}

pub(super) async fn shake_hands<R, W>(
    reader: &mut R,
    writer: &mut W,
    export: &str,
    contexts: &[&str],
) -> Result<ExportTerms, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    greet(reader, writer).await?;
    let form = structured_replies(reader, writer).await?;
    let contexts = if contexts.is_empty() || form == ReplyForm::Simple {
        Vec::new()
    } else {
        agree_on_contexts(reader, writer, export, contexts).await?
    };
    let facts = take_export(reader, writer, export).await?;
    terms(&facts, form, contexts)
}

async fn greet<R, W>(reader: &mut R, writer: &mut W) -> Result<(), HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut bytes = [0; GREETING_BYTES];
    reader.read_exact(&mut bytes).await?;
    let flags = greeting(&bytes)?;
    if flags & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(HandshakeError::TooOld { flags });
    }
    writer
        .write_u32(u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)))
        .await?;
    Ok(())
}

/// A server that knows only simple replies is good enough for reading.
async fn structured_replies<R, W>(reader: &mut R, writer: &mut W) -> Result<ReplyForm, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let option = OptionCode::STRUCTURED_REPLY;
    send(writer, option, &[]).await?;
    match last_answer(reader, option, |reply, data| Err(unexpected(option, reply, data))).await {
        Ok(()) => Ok(ReplyForm::Structured),
        Err(HandshakeError::Refused { .. }) => Ok(ReplyForm::Simple),
        Err(error) => Err(error),
    }
}

/// A server that refuses the option grants nothing, which is for the caller to judge.
async fn agree_on_contexts<R, W>(
    reader: &mut R,
    writer: &mut W,
    export: &str,
    contexts: &[&str],
) -> Result<Vec<ContextGrant>, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let option = OptionCode::SET_META_CONTEXT;
    let queries = contexts.iter().map(|context| (*context).to_owned()).collect();
    let mut data = BytesMut::new();
    ContextQueries {
        export: export.to_owned(),
        queries,
    }
    .put(&mut data)?;
    send(writer, option, &data).await?;
    let mut grants = Vec::new();
    let answered = last_answer(reader, option, |reply, data| {
        if reply != OptionReply::META_CONTEXT {
            return Err(unexpected(option, reply, data));
        }
        grants.push(ContextGrant::decode(data)?);
        Ok(())
    });
    match answered.await {
        Err(HandshakeError::Refused {
            reply: OptionReply::UNSUPPORTED,
            ..
        }) => Ok(Vec::new()),
        Ok(()) => Ok(grants),
        Err(error) => Err(error),
    }
}

async fn take_export<R, W>(
    reader: &mut R,
    writer: &mut W,
    export: &str,
) -> Result<Vec<ExportFact>, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let option = OptionCode::GO;
    let mut data = BytesMut::new();
    ExportChoice {
        name: export.to_owned(),
        facts: vec![FactCode::BLOCK_SIZE],
    }
    .put(&mut data)?;
    send(writer, option, &data).await?;
    let mut facts = Vec::new();
    last_answer(reader, option, |reply, data| {
        if reply != OptionReply::INFO {
            return Err(unexpected(option, reply, data));
        }
        facts.push(ExportFact::decode(data)?);
        Ok(())
    })
    .await?;
    Ok(facts)
}

fn terms(
    facts: &[ExportFact],
    form: ReplyForm,
    contexts: Vec<ContextGrant>,
) -> Result<ExportTerms, HandshakeError> {
    let mut size = None;
    let mut sizes = BlockSizes {
        minimum: 1,
        preferred: 1,
        maximum: READ_BYTES_MAXIMUM,
    };
    for fact in facts {
        match fact {
            ExportFact::Export { size_bytes, .. } => size = Some(*size_bytes),
            ExportFact::BlockSize(told) => sizes = *told,
            ExportFact::Name(_) | ExportFact::Other(_) => {}
        }
    }
    let BlockSizes {
        minimum: least,
        maximum: greatest,
        ..
    } = sizes;
    if !least.is_power_of_two() || least > LEAST_BLOCK_BYTES_MAXIMUM || greatest < least {
        return Err(HandshakeError::BlockSizes { least, greatest });
    }
    let longest = greatest.min(READ_BYTES_MAXIMUM);
    Ok(ExportTerms {
        size_bytes: size.ok_or(HandshakeError::NoSize)?,
        form,
        contexts,
        block_bytes_minimum: least,
        read_bytes_maximum: longest - longest % least,
    })
}

async fn send<W>(writer: &mut W, option: OptionCode, data: &[u8]) -> Result<(), HandshakeError>
where
    W: AsyncWrite + Unpin,
{
    let mut message = BytesMut::new();
    OptionHeader {
        option,
        data_bytes: u32::try_from(data.len()).unwrap_or(u32::MAX),
    }
    .put(&mut message);
    message.put_slice(data);
    Ok(writer.write_all(&message).await?)
}

/// Gives every answer before the acknowledgement to `each`.
async fn last_answer<R>(
    reader: &mut R,
    option: OptionCode,
    mut each: impl FnMut(OptionReply, &[u8]) -> Result<(), HandshakeError>,
) -> Result<(), HandshakeError>
where
    R: AsyncRead + Unpin,
{
    for _ in 0..ANSWERS_MAXIMUM {
        let Answer { reply, data } = answer(reader, option).await?;
        if reply.is_refusal() {
            let message = String::from_utf8_lossy(&data).into_owned();
            return Err(HandshakeError::Refused {
                option,
                reply,
                message,
            });
        }
        if reply == OptionReply::ACKNOWLEDGED {
            return Ok(());
        }
        each(reply, &data)?;
    }
    Err(unexpected(option, OptionReply::INFO, &[]))
}

async fn answer<R>(reader: &mut R, option: OptionCode) -> Result<Answer, HandshakeError>
where
    R: AsyncRead + Unpin,
{
    let mut header = [0; OPTION_REPLY_HEADER_BYTES];
    reader.read_exact(&mut header).await?;
    let header = OptionReplyHeader::decode(&header)?;
    if header.option != option || header.data_bytes > OPTION_BYTES_MAXIMUM {
        let OptionReplyHeader {
            reply, data_bytes, ..
        } = header;
        return Err(HandshakeError::UnexpectedAnswer {
            option,
            reply,
            data_bytes,
        });
    }
    let mut data = vec![0; usize::try_from(header.data_bytes).unwrap_or(usize::MAX)];
    reader.read_exact(&mut data).await?;
    Ok(Answer {
        reply: header.reply,
        data,
    })
}

fn unexpected(option: OptionCode, reply: OptionReply, data: &[u8]) -> HandshakeError {
    let data_bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
    HandshakeError::UnexpectedAnswer {
        option,
        reply,
        data_bytes,
    }
}

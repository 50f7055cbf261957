//! Asks the export and shapes its answers into replies. All of this may block.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use super::admission::{Question, StatusExtent, Work};
use super::buffers::Buffers;
use super::negotiation::ALLOCATION_CONTEXT_ID;
use crate::export::{Export, ExportExtent, ExtentState};
use crate::wire::error_code::ErrorCode;
use crate::wire::reply::{
    CHUNK_HEADER_BYTES, CHUNK_HOLE_BYTES, CHUNK_OFFSET_BYTES, ChunkHeader, ChunkKind, ErrorReport, FLAG_DONE,
    ReplyForm, SIMPLE_HEADER_BYTES, STATE_HOLE, STATE_ZERO, SimpleReply, WireDescriptor, put_block_status,
};

/// The most descriptors in one answer; the client asks again for the rest.
const DESCRIPTORS_MAXIMUM: usize = 8192;

/// The length of an answer with the most descriptors, rounded up.
pub(super) const STATUS_ANSWER_BYTES_MAXIMUM: u32 = 128 * 1024;

/// Holes shorter than this are sent as data: a chunk of its own would cost the client more.
const HOLE_BYTES_MINIMUM: u32 = 4096;

/// Reads shorter than this are answered as data, whatever they hold: to look for holes takes longer than to send them.
const SPARSE_READ_BYTES_MINIMUM: u32 = 64 * 1024;

/// A part of a read, as one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    length: u32,
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Data,
    Zeroes,
}

/// How a reply is marked: for which request, in which form, and whether it is the end of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    form: ReplyForm,
    cookie: u64,
    /// Of the last chunk.
    flags: u16,
}

impl Envelope {
    /// For a reply after which nothing comes.
    pub(super) fn last(form: ReplyForm, cookie: u64) -> Self {
        let flags = FLAG_DONE;
        Self { form, cookie, flags }
    }

    /// The same, for a reply after which more chunks come.
    pub(super) fn with_more_to_come(self) -> Self {
        Self { flags: 0, ..self }
    }
}

/// Does the work and returns the whole reply, an error of the export included.
pub(super) fn answer(export: &dyn Export, work: &Work, buffers: &Buffers) -> Bytes {
    let reply = match work.question {
        Question::ReadSimple => read_simple(export, work, buffers),
        Question::ReadWhole => read_whole(export, work, buffers),
        Question::ReadSparse if work.length < SPARSE_READ_BYTES_MINIMUM => read_whole(export, work, buffers),
        Question::ReadSparse => read_sparse(export, work, buffers),
        Question::Status(extent) => status(export, work, extent),
    };
    reply.unwrap_or_else(|failure| {
        tracing::warn!(offset = work.offset, length = work.length, error = %failure, "an NBD export failed");
        error(work.envelope, ErrorCode::INPUT_OUTPUT, &failure.to_string())
    })
}

/// A reply that says only that it is done.
pub(super) fn done(envelope: Envelope) -> Bytes {
    match envelope.form {
        ReplyForm::Simple => simple_header(envelope, ErrorCode::NONE),
        ReplyForm::Structured => chunk(envelope, ChunkKind::NONE, &[]),
    }
}

/// A reply that says what went wrong; the simple form has no room for the reason.
pub(super) fn error(envelope: Envelope, code: ErrorCode, reason: &str) -> Bytes {
    match envelope.form {
        ReplyForm::Simple => simple_header(envelope, code),
        ReplyForm::Structured => {
            let mut payload = BytesMut::new();
            ErrorReport {
                code,
                message: reason.to_owned(),
            }
            .put(&mut payload);
            chunk(envelope, ChunkKind::ERROR, &payload)
        }
    }
}

fn simple_header(envelope: Envelope, error: ErrorCode) -> Bytes {
    let mut reply = BytesMut::with_capacity(SIMPLE_HEADER_BYTES);
    let cookie = envelope.cookie;
    SimpleReply { error, cookie }.put(&mut reply);
    reply.freeze()
}

fn chunk(envelope: Envelope, kind: ChunkKind, payload: &[u8]) -> Bytes {
    let mut reply = BytesMut::with_capacity(CHUNK_HEADER_BYTES + payload.len());
    ChunkHeader {
        flags: envelope.flags,
        kind,
        cookie: envelope.cookie,
        payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
    }
    .put(&mut reply);
    reply.extend_from_slice(payload);
    reply.freeze()
}

fn read_simple(export: &dyn Export, work: &Work, buffers: &Buffers) -> io::Result<Bytes> {
    let mut reply = buffers.take(SIMPLE_HEADER_BYTES + to_usize(work.length));
    SimpleReply {
        error: ErrorCode::NONE,
        cookie: work.envelope.cookie,
    }
    .put(&mut reply.next(SIMPLE_HEADER_BYTES));
    export.read_at(work.offset, reply.next(to_usize(work.length)))?;
    Ok(reply.finish())
}

fn read_whole(export: &dyn Export, work: &Work, buffers: &Buffers) -> io::Result<Bytes> {
    let whole = Run {
        length: work.length,
        content: Content::Data,
    };
    read_runs(export, work, &[whole], buffers)
}

fn read_sparse(export: &dyn Export, work: &Work, buffers: &Buffers) -> io::Result<Bytes> {
    let extents = export.extents(work.offset, u64::from(work.length))?;
    read_runs(export, work, &runs(&extents, work.length), buffers)
}

fn read_runs(export: &dyn Export, work: &Work, runs: &[Run], buffers: &Buffers) -> io::Result<Bytes> {
    let total = runs.iter().map(|run| run.chunk_bytes()).sum();
    let mut reply = buffers.take(total);
    let mut offset = work.offset;
    for (index, run) in runs.iter().enumerate() {
        let is_last = index + 1 == runs.len();
        let (kind, payload_bytes) = match run.content {
            Content::Data => (
                ChunkKind::OFFSET_DATA,
                CHUNK_OFFSET_BYTES.saturating_add(run.length),
            ),
            Content::Zeroes => (ChunkKind::OFFSET_HOLE, CHUNK_HOLE_BYTES),
        };
        let mut start = reply.next(CHUNK_HEADER_BYTES + to_usize(CHUNK_OFFSET_BYTES));
        ChunkHeader {
            flags: if is_last { work.envelope.flags } else { 0 },
            kind,
            cookie: work.envelope.cookie,
            payload_bytes,
        }
        .put(&mut start);
        start.put_u64(offset);
        match run.content {
            Content::Data => export.read_at(offset, reply.next(to_usize(run.length)))?,
            Content::Zeroes => reply.next(4).put_u32(run.length),
        }
        offset = offset.saturating_add(u64::from(run.length));
    }
    Ok(reply.finish())
}

impl Run {
    /// How long its chunk is.
    fn chunk_bytes(&self) -> usize {
        let payload = match self.content {
            Content::Data => to_usize(CHUNK_OFFSET_BYTES) + to_usize(self.length),
            Content::Zeroes => to_usize(CHUNK_HOLE_BYTES),
        };
        CHUNK_HEADER_BYTES + payload
    }
}

/// Covers exactly `length` bytes: neighbours of one content are joined, short holes become data, and so does what
/// the export did not tell.
fn runs(extents: &[ExportExtent], length: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut left = length;
    let untold = ExportExtent {
        length: u64::from(u32::MAX),
        state: ExtentState::Data,
    };
    for extent in extents.iter().chain([&untold]) {
        let part = u32::try_from(extent.length).unwrap_or(u32::MAX).min(left);
        if part == 0 {
            continue;
        }
        left -= part;
        let content = match extent.state {
            ExtentState::Zero | ExtentState::Hole => Content::Zeroes,
            ExtentState::Data => Content::Data,
        };
        append_run(
            &mut runs,
            Run {
                length: part,
                content,
            },
        );
    }
    let mut merged = Vec::with_capacity(runs.len());
    for run in runs {
        let short = run.length < HOLE_BYTES_MINIMUM;
        append_run(
            &mut merged,
            if short {
                Run {
                    content: Content::Data,
                    ..run
                }
            } else {
                run
            },
        );
    }
    merged
}

fn append_run(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.content == run.content => last.length += run.length,
        Some(_) | None => runs.push(run),
    }
}

fn status(export: &dyn Export, work: &Work, wanted: StatusExtent) -> io::Result<Bytes> {
    let extents = export.extents(work.offset, u64::from(work.length))?;
    let limit = match wanted {
        StatusExtent::OneRun => 1,
        StatusExtent::AllRuns => DESCRIPTORS_MAXIMUM,
    };
    let descriptors = descriptors(&extents, work.length, limit);
    if descriptors.is_empty() {
        return Err(io::Error::other("the export tells nothing about this range"));
    }
    let mut payload = BytesMut::with_capacity(4 + 8 * descriptors.len());
    put_block_status(&mut payload, ALLOCATION_CONTEXT_ID, &descriptors);
    Ok(chunk(work.envelope, ChunkKind::BLOCK_STATUS, &payload))
}

/// At most `limit` descriptors, joined where neighbours are alike, within `length` bytes.
fn descriptors(extents: &[ExportExtent], length: u32, limit: usize) -> Vec<WireDescriptor> {
    let mut descriptors: Vec<WireDescriptor> = Vec::new();
    let mut left = length;
    for extent in extents {
        let part = u32::try_from(extent.length).unwrap_or(u32::MAX).min(left);
        if part == 0 {
            continue;
        }
        let flags = match extent.state {
            ExtentState::Data => 0,
            ExtentState::Zero => STATE_ZERO,
            ExtentState::Hole => STATE_HOLE | STATE_ZERO,
        };
        let full = descriptors.len() == limit;
        match descriptors.last_mut() {
            Some(last) if last.flags == flags => last.length += part,
            Some(_) if full => break,
            Some(_) | None => descriptors.push(WireDescriptor { length: part, flags }),
        }
        left -= part;
    }
    descriptors
}

fn to_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

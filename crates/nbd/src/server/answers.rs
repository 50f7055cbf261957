//! Asks the export and shapes its answers into replies. All of this may block.

use std::io;

use bytes::{Bytes, BytesMut};

use super::admission::{Question, StatusExtent, Work};
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

/// Does the work and returns the whole reply, an error of the export included.
pub(super) fn answer(export: &dyn Export, work: &Work) -> Bytes {
    let (form, reply) = match work.question {
        Question::ReadSimple => (ReplyForm::Simple, read_simple(export, work)),
        Question::ReadWhole => {
            let whole = [Run {
                length: work.length,
                content: Content::Data,
            }];
            (ReplyForm::Structured, read_runs(export, work, &whole))
        }
        Question::ReadSparse => (ReplyForm::Structured, read_sparse(export, work)),
        Question::Status(extent) => (ReplyForm::Structured, status(export, work, extent)),
    };
    reply.unwrap_or_else(|failure| {
        tracing::warn!(offset = work.offset, length = work.length, error = %failure, "an NBD export failed");
        error(form, work.cookie, ErrorCode::INPUT_OUTPUT, &failure.to_string())
    })
}

/// A reply that says only that it is done.
pub(super) fn done(form: ReplyForm, cookie: u64) -> Bytes {
    let mut reply = BytesMut::new();
    match form {
        ReplyForm::Simple => SimpleReply {
            error: ErrorCode::NONE,
            cookie,
        }
        .put(&mut reply),
        ReplyForm::Structured => {
            ChunkHeader {
                flags: FLAG_DONE,
                kind: ChunkKind::NONE,
                cookie,
                payload_bytes: 0,
            }
            .put(&mut reply);
        }
    }
    reply.freeze()
}

/// A reply that says what went wrong; the simple form has no room for the reason.
pub(super) fn error(form: ReplyForm, cookie: u64, code: ErrorCode, reason: &str) -> Bytes {
    let mut reply = BytesMut::new();
    match form {
        ReplyForm::Simple => SimpleReply { error: code, cookie }.put(&mut reply),
        ReplyForm::Structured => {
            let mut payload = BytesMut::new();
            ErrorReport {
                code,
                message: reason.to_owned(),
            }
            .put(&mut payload);
            put_chunk(&mut reply, cookie, ChunkKind::ERROR, &payload);
        }
    }
    reply.freeze()
}

fn put_chunk(reply: &mut BytesMut, cookie: u64, kind: ChunkKind, payload: &[u8]) {
    let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    ChunkHeader {
        flags: FLAG_DONE,
        kind,
        cookie,
        payload_bytes,
    }
    .put(reply);
    reply.extend_from_slice(payload);
}

fn read_simple(export: &dyn Export, work: &Work) -> io::Result<Bytes> {
    let mut reply = BytesMut::with_capacity(SIMPLE_HEADER_BYTES + to_usize(work.length));
    SimpleReply {
        error: ErrorCode::NONE,
        cookie: work.cookie,
    }
    .put(&mut reply);
    append_data(export, work.offset, work.length, &mut reply)?;
    Ok(reply.freeze())
}

fn read_sparse(export: &dyn Export, work: &Work) -> io::Result<Bytes> {
    let extents = export.extents(work.offset, u64::from(work.length))?;
    read_runs(export, work, &runs(&extents, work.length))
}

fn read_runs(export: &dyn Export, work: &Work, runs: &[Run]) -> io::Result<Bytes> {
    let hole_bytes = to_usize(CHUNK_HOLE_BYTES);
    let total: usize = runs
        .iter()
        .map(|run| {
            CHUNK_HEADER_BYTES
                + hole_bytes
                + if run.content == Content::Data {
                    to_usize(run.length)
                } else {
                    0
                }
        })
        .sum();
    let mut reply = BytesMut::with_capacity(total);
    let mut offset = work.offset;
    for (index, run) in runs.iter().enumerate() {
        let flags = if index + 1 == runs.len() { FLAG_DONE } else { 0 };
        let (kind, payload_bytes) = match run.content {
            Content::Data => (
                ChunkKind::OFFSET_DATA,
                CHUNK_OFFSET_BYTES.saturating_add(run.length),
            ),
            Content::Zeroes => (ChunkKind::OFFSET_HOLE, CHUNK_HOLE_BYTES),
        };
        ChunkHeader {
            flags,
            kind,
            cookie: work.cookie,
            payload_bytes,
        }
        .put(&mut reply);
        reply.extend_from_slice(&offset.to_be_bytes());
        match run.content {
            Content::Data => append_data(export, offset, run.length, &mut reply)?,
            Content::Zeroes => reply.extend_from_slice(&run.length.to_be_bytes()),
        }
        offset = offset.saturating_add(u64::from(run.length));
    }
    Ok(reply.freeze())
}

fn append_data(export: &dyn Export, offset: u64, length: u32, reply: &mut BytesMut) -> io::Result<()> {
    let start = reply.len();
    reply.resize(start + to_usize(length), 0);
    match reply.get_mut(start..) {
        Some(buffer) => export.read_at(offset, buffer),
        None => Ok(()),
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
    let mut reply = BytesMut::with_capacity(CHUNK_HEADER_BYTES + payload.len());
    put_chunk(&mut reply, work.cookie, ChunkKind::BLOCK_STATUS, &payload);
    Ok(reply.freeze())
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

//! Puts the pieces of a reply together and refuses those that do not fit.
//!
//! A read is complete when its chunks cover every byte exactly once: a server that leaves a gap must not be taken for
//! one that sent zeroes.

use std::io;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut, buf::Limit};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::error_code::ErrorCode;
use crate::wire::reply::{ErrorReport, WireDescriptor};

/// Disjoint pieces of one read that are kept track of: more than any server sends, few enough to bound memory.
const PIECES_MAXIMUM: usize = 16 * 1024;

/// How a server broke the protocol, so that nothing it sends can be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reply to nothing that was asked.
    #[error("a reply carries the cookie {cookie:#x}, which no request has")]
    UnknownCookie {
        /// The cookie.
        cookie: u64,
    },
    /// A reply of the form that was not agreed on, or of a kind that does not fit the request.
    #[error("a reply does not fit its request")]
    WrongKind,
    /// A chunk is shorter or longer than its kind may be.
    #[error("a chunk has {payload_bytes} bytes of payload, which does not fit its kind")]
    ChunkLength {
        /// How long.
        payload_bytes: u32,
    },
    /// A piece of a read lies outside of it, is empty, or comes twice.
    #[error("a reply has {length} bytes at {offset}, which are not missing in what was asked")]
    Piece {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// A reply ended before all of it had come.
    #[error("a reply ended before it was complete")]
    Incomplete,
    /// A read came in more pieces than any honest server needs.
    #[error("a reply has more than {PIECES_MAXIMUM} scattered pieces")]
    TooManyPieces,
}

/// A server's refusal of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

/// The content of a read, as far as it has come.
pub(super) struct ReadAssembly {
    offset: u64,
    length: usize,
    /// As far as anything has come; its memory is not touched before.
    content: BytesMut,
    /// Sorted, disjoint and not touching.
    covered: Vec<Range<usize>>,
    refusal: Option<Refusal>,
}

/// Where a piece's bytes go.
pub(super) enum Room<'content> {
    /// So many bytes are appended to what has come.
    Behind(Limit<&'content mut BytesMut>),
    /// These are replaced.
    Within(&'content mut [u8]),
}

/// The status of one context, as far as it has come.
pub(super) struct StatusAssembly {
    context_id: u32,
    descriptors: Option<Vec<WireDescriptor>>,
    refusal: Option<Refusal>,
}

impl From<ErrorReport> for Refusal {
    fn from(report: ErrorReport) -> Self {
        Self {
            code: report.code,
            message: report.message,
        }
    }
}

impl Room<'_> {
    /// Fills it from `reader`.
    pub(super) async fn fill_from(self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        match self {
            Self::Within(bytes) => reader.read_exact(bytes).await.map(drop),
            Self::Behind(mut behind) => {
                while behind.has_remaining_mut() {
                    if reader.read_buf(&mut behind).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(())
            }
        }
    }
}

impl ReadAssembly {
    pub(super) fn new(offset: u64, length: u32) -> Self {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Self {
            offset,
            length,
            content: BytesMut::with_capacity(length),
            covered: Vec::new(),
            refusal: None,
        }
    }

    /// Room for the whole content, for a reply without chunks.
    pub(super) fn whole(&mut self) -> Room<'_> {
        self.covered = vec![Range {
            start: 0,
            end: self.length,
        }];
        self.content.clear();
        Room::Behind((&mut self.content).limit(self.length))
    }

    /// Claims a piece: room for its bytes.
    pub(super) fn piece(&mut self, offset: u64, length: u32) -> Result<Room<'_>, Violation> {
        let refused = Violation::Piece { offset, length };
        let Some(piece) = self.place(offset, length) else {
            return Err(refused);
        };
        self.cover(piece.clone(), refused.clone())?;
        if piece.start == self.content.len() {
            return Ok(Room::Behind((&mut self.content).limit(piece.len())));
        }
        // What lies before it comes later.
        self.reach(piece.end);
        self.content.get_mut(piece).map(Room::Within).ok_or(refused)
    }

    /// Claims a piece that is all zero.
    pub(super) fn hole(&mut self, offset: u64, length: u32) -> Result<(), Violation> {
        match self.piece(offset, length)? {
            Room::Behind(mut behind) => behind.put_bytes(0, behind.remaining_mut()),
            Room::Within(bytes) => bytes.fill(0),
        }
        Ok(())
    }

    fn reach(&mut self, end: usize) {
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    pub(super) fn finish(self) -> Result<Result<Bytes, Refusal>, Violation> {
        if let Some(refusal) = self.refusal {
            return Ok(Err(refusal));
        }
        match self.covered.as_slice() {
            [all] if all.start == 0 && all.end == self.length && self.content.len() == self.length => {
                Ok(Ok(self.content.freeze()))
            }
            _ => Err(Violation::Incomplete),
        }
    }

    fn place(&self, offset: u64, length: u32) -> Option<Range<usize>> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        (length > 0 && end <= self.length).then_some(start..end)
    }

    fn cover(&mut self, piece: Range<usize>, refused: Violation) -> Result<(), Violation> {
        let next = self.covered.partition_point(|covered| covered.end <= piece.start);
        let follows = self.covered.get(next).map(|covered| covered.start);
        if follows.is_some_and(|start| start < piece.end) {
            return Err(refused);
        }
        // Joined with what it touches: pieces in order, which is what servers send, stay a single one.
        let mut joined = piece.clone();
        let mut replaced = next..next;
        if follows == Some(piece.end) {
            joined.end = self.covered.get(next).map_or(piece.end, |covered| covered.end);
            replaced.end = next + 1;
        }
        if let Some(before) = next.checked_sub(1).and_then(|index| self.covered.get(index))
            && before.end == piece.start
        {
            joined.start = before.start;
            replaced.start = next - 1;
        }
        self.covered.splice(replaced, [joined]);
        if self.covered.len() > PIECES_MAXIMUM {
            Err(Violation::TooManyPieces)
        } else {
            Ok(())
        }
    }
}

impl StatusAssembly {
    pub(super) fn new(context_id: u32) -> Self {
        Self {
            context_id,
            descriptors: None,
            refusal: None,
        }
    }

    /// Takes one context's status. Every context that was agreed on is reported; only one is wanted.
    pub(super) fn take(
        &mut self,
        context_id: u32,
        descriptors: Vec<WireDescriptor>,
    ) -> Result<(), Violation> {
        if context_id != self.context_id {
            return Ok(());
        }
        if self.descriptors.replace(descriptors).is_some() {
            return Err(Violation::WrongKind);
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    pub(super) fn finish(self) -> Result<Result<Vec<WireDescriptor>, Refusal>, Violation> {
        match (self.refusal, self.descriptors) {
            (Some(refusal), _) => Ok(Err(refusal)),
            (None, Some(descriptors)) => Ok(Ok(descriptors)),
            (None, None) => Err(Violation::Incomplete),
        }
    }
}

#[cfg(test)]
mod tests;

//! A long read as several pieces, which are worked on side by side and sent in the order in which they are ready.
//!
//! So no read takes more memory at a time than the connection's bounds let it, however long it is. The chunk that ends
//! the reply carries nothing and comes when all pieces are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::admission::{Question, Work};
use super::answers::{self, Envelope};
use super::buffers::PIECE_BYTES;

/// What a reply is of the answer to its request.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// One of some; the count is of those that are not sent yet.
    Piece(Arc<AtomicU32>, Envelope),
}

impl Part {
    /// The chunk that has to follow, once this part has its place among those that are sent.
    pub(super) fn end(&self) -> Option<Bytes> {
        match self {
            Self::Whole => None,
            Self::Piece(left, envelope) => {
                (left.fetch_sub(1, Ordering::AcqRel) == 1).then(|| answers::done(*envelope))
            }
        }
    }
}

/// The parts in which work is done: itself, or the pieces of a long read.
pub(super) fn parts(work: Work) -> impl Iterator<Item = (Work, Part)> {
    let split = work.question == Question::ReadSparse && work.length > PIECE_BYTES;
    let piece_bytes = if split { PIECE_BYTES } else { work.length };
    let count = work.length.div_ceil(piece_bytes.max(1));
    let left = Arc::new(AtomicU32::new(count));
    (0..count).map(move |number| {
        let skipped = number.saturating_mul(piece_bytes);
        let piece = Work {
            offset: work.offset.saturating_add(u64::from(skipped)),
            length: work.length.saturating_sub(skipped).min(piece_bytes),
            ..work
        };
        if !split {
            return (piece, Part::Whole);
        }
        let inner = Work {
            envelope: work.envelope.with_more_to_come(),
            ..piece
        };
        (inner, Part::Piece(Arc::clone(&left), work.envelope))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reply::ReplyForm;

    fn work(length: u32, question: Question) -> Work {
        Work {
            envelope: Envelope::last(ReplyForm::Structured, 42),
            offset: 10,
            length,
            question,
        }
    }

    #[test]
    fn pieces_cover_a_long_read_and_the_last_one_sent_ends_it() {
        let length = 3 * PIECE_BYTES + 7;
        let pieces: Vec<_> = parts(work(length, Question::ReadSparse)).collect();
        let mut position = 10;
        for (piece, _) in &pieces {
            assert_eq!(piece.offset, position);
            assert!(piece.length > 0 && piece.length <= PIECE_BYTES);
            assert_ne!(piece.envelope, Envelope::last(ReplyForm::Structured, 42));
            position += u64::from(piece.length);
        }
        assert_eq!(position, 10 + u64::from(length));
        let ends: Vec<bool> = pieces
            .iter()
            .rev()
            .map(|(_, part)| part.end().is_some())
            .collect();
        assert_eq!(ends, [false, false, false, true]);
    }

    #[test]
    fn what_is_short_or_must_be_whole_is_not_cut() {
        for (length, question) in [
            (1, Question::ReadSparse),
            (PIECE_BYTES, Question::ReadSparse),
            (PIECE_BYTES + 1, Question::ReadWhole),
            (PIECE_BYTES + 1, Question::ReadSimple),
        ] {
            let work = work(length, question);
            let parts: Vec<_> = parts(work).collect();
            assert!(matches!(parts.as_slice(), [(only, Part::Whole)] if *only == work));
        }
    }
}

//! Memory for the answers to reads, used again and again.
//!
//! A fresh buffer of 256 KiB costs about as much as the read that fills it: its pages have to be mapped and zeroed.
//! What lies in a buffer from its last use is overwritten before it is sent: an answer is sent only once all of it has
//! been written. What is kept is bounded for all connections together; what they use is bounded for each
//! (see [`super::transmission`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::wire::reply::{CHUNK_HEADER_BYTES, CHUNK_OFFSET_BYTES};

/// The unit in which long reads are worked on: what nbdcopy asks for at once.
pub(super) const PIECE_BYTES: u32 = 256 * 1024;

/// For reads of a few KiB, as guests ask for them.
const SHORT: Shelf = Shelf {
    buffer_bytes: 8 * 1024,
    kept_maximum: 256,
};

/// For one piece. Holes only make an answer shorter: each of them takes less than it spares.
const LONG: Shelf = Shelf {
    // Both fit easily.
    buffer_bytes: PIECE_BYTES as usize + CHUNK_HEADER_BYTES + CHUNK_OFFSET_BYTES as usize,
    kept_maximum: 32,
};

/// Buffers of one length.
struct Shelf {
    buffer_bytes: usize,
    /// How many are kept while nobody uses them.
    kept_maximum: usize,
}

/// Where buffers come from and go back to; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Buffers {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    short: Vec<Vec<u8>>,
    long: Vec<Vec<u8>>,
}

/// Bytes that are written one after the other, and read once they are complete.
pub(super) struct Buffer {
    home: Buffers,
    bytes: Vec<u8>,
    used: usize,
}

impl Buffers {
    /// A buffer with room for so many bytes.
    pub(super) fn take(&self, length: usize) -> Buffer {
        let (found, buffer_bytes) = match length {
            _ if length <= SHORT.buffer_bytes => (self.kept().short.pop(), SHORT.buffer_bytes),
            _ if length <= LONG.buffer_bytes => (self.kept().long.pop(), LONG.buffer_bytes),
            _ => (None, length),
        };
        Buffer {
            home: self.clone(),
            bytes: found.unwrap_or_else(|| vec![0; buffer_bytes]),
            used: 0,
        }
    }

    fn put_back(&self, bytes: Vec<u8>) {
        let mut kept = self.kept();
        let (shelf, buffers) = match bytes.len() {
            length if length == SHORT.buffer_bytes => (SHORT, &mut kept.short),
            length if length == LONG.buffer_bytes => (LONG, &mut kept.long),
            _ => return,
        };
        if buffers.len() < shelf.kept_maximum {
            buffers.push(bytes);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while the lock is held, and each change is complete in itself.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// The next `length` bytes, to be filled; fewer where the buffer ends, which is where its taker said.
    pub(super) fn next(&mut self, length: usize) -> &mut [u8] {
        let start = self.used;
        self.used = start.saturating_add(length).min(self.bytes.len());
        self.bytes.get_mut(start..self.used).unwrap_or_default()
    }

    /// What was written, for sending; the memory goes back when the last of it is dropped.
    pub(super) fn finish(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.put_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_only_what_was_written_is_seen() {
        let buffers = Buffers::default();
        let mut first = buffers.take(100);
        first.next(3).copy_from_slice(b"abc");
        let place = first.bytes.as_ptr();
        assert_eq!(first.finish(), b"abc"[..]);
        let mut second = buffers.take(SHORT.buffer_bytes);
        assert_eq!(second.bytes.as_ptr(), place);
        assert_eq!(second.as_ref(), b"");
        second.next(1).copy_from_slice(b"x");
        assert_eq!(second.finish(), b"x"[..]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_long_answers_are_not_kept() {
        let buffers = Buffers::default();
        let taken: Vec<Buffer> = (0..1000).map(|_| buffers.take(LONG.buffer_bytes)).collect();
        drop(taken);
        drop(buffers.take(LONG.buffer_bytes + 1));
        assert_eq!(buffers.kept().long.len(), LONG.kept_maximum);
        let taken: Vec<Buffer> = (0..1000).map(|_| buffers.take(1)).collect();
        drop(taken);
        assert_eq!(buffers.kept().short.len(), SHORT.kept_maximum);
    }
}

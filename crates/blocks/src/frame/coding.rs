//! Zstandard for single frames. Each thread keeps its contexts: making one costs more than a frame's compression.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::MAX_FRAME_BYTES;

thread_local! {
    static COMPRESSING: RefCell<Option<Compressing>> = const { RefCell::new(None) };
    static DECOMPRESSING: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

struct Compressing {
    compressor: Compressor<'static>,
    level: i32,
    /// As large as what may be kept of a frame at most.
    payload: Vec<u8>,
}

impl Compressing {
    fn at(level: i32) -> std::io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(level)?,
            level,
            payload: vec![0; usize::try_from(MAX_FRAME_BYTES).unwrap_or_default()],
        })
    }

    fn compress(&mut self, raw: &[u8], level: i32, limit: usize) -> std::io::Result<Bytes> {
        if self.level != level {
            self.compressor.set_compression_level(level)?;
            self.level = level;
        }
        let room = limit.min(self.payload.len());
        let into = self.payload.get_mut(..room).unwrap_or_default();
        // What does not fit into it is an error, found as soon as that is sure.
        let length = self.compressor.compress_to_buffer(raw, into)?;
        Ok(into.get(..length).map(Bytes::copy_from_slice).unwrap_or_default())
    }
}

/// `raw` as one Zstandard frame of at most `limit` bytes; `None` if it does not become so short.
pub(super) fn compressed(raw: &[u8], level: i32, limit: usize) -> Option<Bytes> {
    COMPRESSING.with_borrow_mut(|kept| {
        let compressing = match kept {
            Some(compressing) => compressing,
            none => none.insert(Compressing::at(level).ok()?),
        };
        compressing.compress(raw, level, limit).ok()
    })
}

/// What one Zstandard frame stands for, if that is exactly `expected` bytes. More memory than that is never used.
pub(super) fn decompressed(payload: &[u8], expected: usize) -> Option<Bytes> {
    let mut raw = vec![0; expected];
    let length = DECOMPRESSING.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().ok()?),
        };
        decompressor
            .decompress_to_buffer(payload, raw.as_mut_slice())
            .ok()
    })?;
    (length == expected).then(|| raw.into())
}

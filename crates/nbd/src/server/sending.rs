//! Sends replies in the order in which they are ready, as many at a time as there are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::lanes::Reply;
use crate::bounds::Share;

/// How many replies are taken at a time: as many as one vectored write of tokio carries.
const REPLIES_AT_ONCE: usize = 64;

/// Replies that are being written, the first one in part perhaps. Each is let go when its last byte is written.
#[derive(Default)]
struct Batch {
    waiting: VecDeque<(Bytes, Option<Share>)>,
}

/// Sends until nobody can reply any more.
pub(super) async fn send_replies<W>(mut writer: W, mut queue: mpsc::Receiver<Reply>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut received = Vec::with_capacity(REPLIES_AT_ONCE);
    let mut batch = Batch::default();
    while queue.recv_many(&mut received, REPLIES_AT_ONCE).await > 0 {
        for reply in received.drain(..) {
            let end = reply.part.end();
            batch.waiting.push_back((reply.bytes, Some(reply.share)));
            batch.waiting.extend(end.map(|end| (end, None)));
        }
        writer.write_all_buf(&mut batch).await?;
    }
    writer.shutdown().await
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.waiting.iter().map(|(bytes, _)| bytes.len()).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.waiting
            .front()
            .map(|(bytes, _)| bytes.as_ref())
            .unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.waiting);
        filled
            .map(|(slice, (bytes, _))| *slice = IoSlice::new(bytes))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some((bytes, _)) = self.waiting.front_mut() {
            let part = count.min(bytes.len());
            bytes.advance(part);
            count -= part;
            if !bytes.is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_written_in_any_steps_and_lets_go_what_is_written() {
        let whole = b"onetwothree";
        for step in 1..=whole.len() {
            let mut batch = Batch::default();
            for part in [&b"one"[..], b"two", b"three"] {
                batch.waiting.push_back((Bytes::from_static(part), None));
            }
            let mut written = Vec::new();
            while batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let count = batch.chunks_vectored(&mut slices);
                let offered: Vec<u8> = slices[..count]
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                assert!(offered.starts_with(batch.chunk()));
                let length = step.min(offered.len());
                written.extend_from_slice(&offered[..length]);
                batch.advance(length);
                assert!(batch.waiting.iter().all(|(bytes, _)| !bytes.is_empty()));
            }
            assert_eq!(written, whole);
        }
    }
}

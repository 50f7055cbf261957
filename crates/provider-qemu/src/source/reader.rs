//! Reading one volume of a capture, in the pieces that QEMU answers rightly.
//!
//! Two faults of QEMU decide how a snapshot is read. Before version 8, a request that begins where the filter has
//! preserved old bytes and ends where it has not gets the *live* bytes, overwritten ones too (`hbitmap_status` denies
//! the first run; fixed by QEMU's commit a4d5224c2c). And some versions abort, guest and all, when two requests that
//! are under way overlap (an assertion in `reqlist_init_req`; fixed in 9.1). So a request never leaves one unit in which
//! the filter copies, and there is never more than one under way in a unit. For the same reason nobody may ask a
//! snapshot for its allocation.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use farshore_blocks::{ByteCount, Extent};
use farshore_nbd::{Client, ClientError};
use farshore_provider::DiskFile;
use tokio::sync::Mutex;

use super::image::ImageServer;

/// The unit in which the filter copies: QEMU never takes a smaller one, and a larger one is a multiple of it.
const COPY_UNIT_BYTES: u64 = 64 << 10;

/// What is asked for in one request of a live disk.
const LIVE_PIECE: ByteCount = ByteCount(4 << 20);

/// How many requests of one volume may be under way; units share these locks.
const UNIT_LOCKS: u64 = 64;

/// Why bytes were not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    #[error("the capture has no such volume")]
    NoSuchVolume,
    #[error("the extent lies in none of the capture's extents")]
    NotCaptured,
    #[error("an earlier read was given up while it was under way, so that no other may follow")]
    Abandoned,
    #[error("the hypervisor did not give it")]
    Nbd(#[source] ClientError),
    #[error("the image cannot be read")]
    Plain(#[source] io::Error),
    #[error("the copy in scratch space cannot be read")]
    Copy(#[source] io::Error),
}

/// Reads one volume.
pub(crate) enum Reader {
    /// A disk in use, read as it is.
    Live(LiveReader),
    /// A disk as it was at an instant.
    Snapshot(SnapshotReader),
    /// A disk in use, read from its image.
    Image(ImageServer),
    /// What was copied of a disk at an instant.
    Copy(DiskFile),
}

impl Reader {
    pub(crate) async fn read(&self, extent: Extent) -> Result<Bytes, ReadFault> {
        let mut whole = BytesMut::new();
        for piece in self.pieces(extent) {
            let bytes = match self {
                Self::Live(reader) => reader.read(piece).await?,
                Self::Snapshot(reader) => reader.read_in_unit(piece).await?,
                Self::Image(server) => fetch(server.client(), piece).await?,
                Self::Copy(file) => file.read_beside(piece).await.map_err(ReadFault::Copy)?,
            };
            if piece == extent {
                return Ok(bytes);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    fn pieces(&self, extent: Extent) -> Vec<Extent> {
        match self {
            Self::Live(_) | Self::Image(_) | Self::Copy(_) => extent.pieces(LIVE_PIECE).collect(),
            Self::Snapshot(_) => units(extent).collect(),
        }
    }

    /// Closes the connection and waits until QEMU has.
    pub(crate) async fn disconnect(self) {
        match self {
            Self::Live(LiveReader { client, .. }) | Self::Snapshot(SnapshotReader { client, .. }) => {
                client.disconnect().await;
            }
            Self::Image(server) => server.disconnect().await,
            Self::Copy(_) => {}
        }
    }
}

/// Reads a disk in use.
pub(crate) struct LiveReader {
    pub(crate) client: Client,
    /// Its bytes, where they can be had without QEMU.
    pub(crate) plain: Option<DiskFile>,
}

impl LiveReader {
    async fn read(&self, piece: Extent) -> Result<Bytes, ReadFault> {
        match &self.plain {
            Some(file) => file.read_beside(piece).await.map_err(ReadFault::Plain),
            None => fetch(&self.client, piece).await,
        }
    }
}

/// Reads a snapshot, one request at a time in each unit.
pub(crate) struct SnapshotReader {
    client: Client,
    units: Vec<Mutex<()>>,
    /// A caller gave up while QEMU still worked for it: what is under way is not known any more.
    abandoned: AtomicBool,
}

impl SnapshotReader {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            units: (0..UNIT_LOCKS).map(|_| Mutex::new(())).collect(),
            abandoned: AtomicBool::new(false),
        }
    }

    async fn read_in_unit(&self, piece: Extent) -> Result<Bytes, ReadFault> {
        let number = piece.start().0 / COPY_UNIT_BYTES % UNIT_LOCKS;
        let unit = usize::try_from(number).ok().and_then(|at| self.units.get(at));
        let _alone = unit.ok_or(ReadFault::NoSuchVolume)?.lock().await;
        if self.abandoned.load(Ordering::Acquire) {
            return Err(ReadFault::Abandoned);
        }
        let under_way = UnderWay {
            abandoned: Some(&self.abandoned),
        };
        let result = fetch(&self.client, piece).await;
        under_way.ended();
        result
    }
}

/// A request that was sent. Dropped before its answer came, it says so.
struct UnderWay<'a> {
    abandoned: Option<&'a AtomicBool>,
}

impl UnderWay<'_> {
    fn ended(mut self) {
        self.abandoned = None;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned {
            abandoned.store(true, Ordering::Release);
        }
    }
}

/// The extent, cut where units of the filter meet.
fn units(extent: Extent) -> impl Iterator<Item = Extent> {
    let mut at = extent.start();
    std::iter::from_fn(move || {
        let to_boundary = COPY_UNIT_BYTES - at.0 % COPY_UNIT_BYTES;
        let unit = Extent::new(at, ByteCount(to_boundary))?;
        let piece = extent.intersection(unit)?;
        at = piece.end();
        Some(piece)
    })
}

async fn fetch(client: &Client, piece: Extent) -> Result<Bytes, ReadFault> {
    let length = u32::try_from(piece.length().0).unwrap_or(u32::MAX);
    client.read(piece.start().0, length).await.map_err(ReadFault::Nbd)
}

#[cfg(test)]
mod tests {
    use farshore_blocks::ByteOffset;

    use super::*;

    #[test]
    fn requests_end_where_units_meet() {
        for (start, length, expected) in [
            (0, 65536, vec![(0, 65536)]),
            (65535, 2, vec![(65535, 1), (65536, 1)]),
            (4096, 4096, vec![(4096, 4096)]),
            (
                61440,
                4096 + 65536 + 512,
                vec![(61440, 4096), (65536, 65536), (131_072, 512)],
            ),
        ] {
            let extent = Extent::new(ByteOffset(start), ByteCount(length)).unwrap();
            let cut: Vec<_> = units(extent)
                .map(|unit| (unit.start().0, unit.length().0))
                .collect();
            assert_eq!(cut, expected);
        }
    }
}

//! One volume of a recovery point, read sequentially into a file or offered over NBD.

use std::{io, sync::Arc};

use farshore_blocks::{ByteCount, ByteOffset, Extent, VolumeIndex};
use farshore_nbd::{Export, ExportExtent, ExtentState};
use farshore_vault::{Allocation, PointReader, ReadError};

/// The states of at most so many bytes are looked up at once: a fragmented volume has tens of thousands of
/// extents in them, and not tens of millions.
const EXTENTS_AT_ONCE: ByteCount = ByteCount(256 * 1024 * 1024);

/// A volume of an open point.
#[derive(Debug, Clone)]
pub(super) struct PointVolume {
    point: Arc<PointReader>,
    volume: VolumeIndex,
    size: ByteCount,
}

impl PointVolume {
    /// Every volume that the point has, with its name, in order.
    pub(super) fn all(point: &Arc<PointReader>) -> Vec<(String, Self)> {
        point
            .volumes_there()
            .map(|(volume, described)| {
                let volume = Self {
                    point: Arc::clone(point),
                    volume,
                    size: described.size,
                };
                (described.name.clone(), volume)
            })
            .collect()
    }

    /// What is known of at most [`EXTENTS_AT_ONCE`] from `offset` on; nothing at the end of the volume.
    pub(super) fn states(&self, offset: u64, length: u64) -> Result<Vec<(Extent, Allocation)>, ReadError> {
        let left = self.size.0.saturating_sub(offset);
        let length = length.min(left).min(EXTENTS_AT_ONCE.0);
        match Extent::new(ByteOffset(offset), ByteCount(length)) {
            Some(extent) => self.point.extents(self.volume, extent),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.point.read_at(self.volume, ByteOffset(offset), buffer)
    }
}

impl Export for PointVolume {
    fn size(&self) -> u64 {
        self.size.0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(offset, buffer).map_err(|error| unreadable(&error))
    }

    fn extents(&self, offset: u64, length: u64) -> io::Result<Vec<ExportExtent>> {
        let states = self.states(offset, length).map_err(|error| unreadable(&error))?;
        let extents = states.into_iter().map(|(extent, allocation)| ExportExtent {
            length: extent.length().0,
            state: match allocation {
                Allocation::Data => ExtentState::Data,
                Allocation::Zero => ExtentState::Zero,
                Allocation::Hole => ExtentState::Hole,
            },
        });
        Ok(extents.collect())
    }
}

/// Told here, because an NBD client learns no more than "I/O error" in most tools.
fn unreadable(error: &ReadError) -> io::Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    tracing::error!(error = %text, "a recovery point cannot be read");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

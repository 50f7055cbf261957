//! A capture that is open: what it holds, and reading it over NBD.

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{Extent, VolumeIndex, clock::WallTime};
use farshore_provider::{Accord, Capture, CapturedVolume, Consistency, SourceError};

use super::reader::{ReadFault, Reader};

/// An open capture of a QEMU VM. Hand it back with `finish`.
pub struct QemuCapture {
    pub(crate) vm: String,
    /// Which one it is of its source's captures.
    pub(crate) number: u64,
    /// Whether all of the disks can be read as they were, not only what changed.
    pub(crate) holds_all: bool,
    pub(crate) captured_at: WallTime,
    pub(crate) consistency: Consistency,
    pub(crate) held: Duration,
    /// None if it was not to be one with that of others.
    pub(crate) accord: Option<Accord>,
    pub(crate) volumes: Vec<CapturedVolume>,
    /// One of each volume, in the same order; none where there is nothing to read.
    pub(crate) readers: Vec<Option<Reader>>,
}

impl Capture for QemuCapture {
    fn volumes(&self) -> &[CapturedVolume] {
        &self.volumes
    }

    fn captured_at(&self) -> WallTime {
        self.captured_at
    }

    fn consistency(&self) -> Consistency {
        self.consistency.clone()
    }

    fn accord(&self) -> Option<Accord> {
        self.accord.clone()
    }

    fn held(&self) -> Duration {
        self.held
    }

    fn holds_all(&self) -> bool {
        self.holds_all
    }

    async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, SourceError> {
        self.read_captured(volume, extent)
            .await
            .map_err(|fault| SourceError::Read {
                vm: self.vm.clone(),
                volume,
                extent,
                source: Box::new(fault),
            })
    }
}

impl QemuCapture {
    async fn read_captured(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, ReadFault> {
        let at = self.volumes.iter().position(|captured| captured.index == volume);
        let at = at.ok_or(ReadFault::NoSuchVolume)?;
        let captured = self.volumes.get(at).ok_or(ReadFault::NoSuchVolume)?;
        let is_there = if self.holds_all() {
            extent.end().0 <= captured.size.0
        } else {
            holds(captured, extent)
        };
        if !is_there {
            return Err(ReadFault::NotCaptured);
        }
        let reader = self.readers.get(at).and_then(Option::as_ref);
        reader.ok_or(ReadFault::NotCaptured)?.read(extent).await
    }
}

/// Whether one captured extent holds all of `extent`: they are in order, so that the last to begin is the only one.
fn holds(captured: &CapturedVolume, extent: Extent) -> bool {
    let behind = captured
        .extents
        .partition_point(|stated| stated.extent.start() <= extent.start());
    behind
        .checked_sub(1)
        .and_then(|last| captured.extents.get(last))
        .is_some_and(|stated| extent.end() <= stated.extent.end())
}

#[cfg(test)]
mod tests {
    use farshore_blocks::{ByteCount, ByteOffset};
    use farshore_provider::{StateOfBytes, StatedExtent};

    use super::*;

    fn extent(start: u64, length: u64) -> Extent {
        Extent::new(ByteOffset(start), ByteCount(length)).unwrap()
    }

    #[test]
    fn only_what_lies_in_one_captured_extent_is_captured() {
        let stated = |start, length| StatedExtent {
            extent: extent(start, length),
            state: StateOfBytes::Data,
        };
        let captured = CapturedVolume {
            index: VolumeIndex(0),
            size: ByteCount(100),
            extents: vec![stated(10, 10), stated(30, 5)],
        };
        for (start, length, expected) in [
            (10, 10, true),
            (12, 3, true),
            (30, 5, true),
            (9, 2, false),
            (10, 11, false),
            (20, 1, false),
            (34, 2, false),
            (90, 5, false),
        ] {
            assert_eq!(
                holds(&captured, extent(start, length)),
                expected,
                "{start}+{length}"
            );
        }
    }
}

//! How a capture begins: which bitmaps take turns, and the order that lets nothing fall between them.

use std::time::{Duration, Instant};

use farshore_blocks::{Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{CaptureKind, SourceError};
use serde_json::json;

use super::{Attached, Open, Site};
use crate::source::{
    acting::{bitmaps, switch},
    capture::QemuCapture,
    export::{self, Reading},
    listing::ListedDisk,
    naming::{BitmapBase, BitmapName, NodeRole},
    recovery::{BitmapChange, BitmapStep, Position, Switching},
    survey::block_nodes,
};

/// How long the filter may hold a guest's write while it preserves what is there, before the snapshot breaks: shorter
/// than any guest's patience with a disk (30 s), longer than a busy disk's worst moments.
const COPY_BEFORE_WRITE_TIMEOUT_SECONDS: u32 = 10;

/// What a capture does with bitmaps: changes go into the fresh one from now on, the old one tells what to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rotation {
    old: BitmapBase,
    fresh: BitmapBase,
}

impl Attached {
    /// A capture that was dropped instead of finished counts as a crash.
    pub(crate) fn refuse_if_open(&self) -> Result<(), SourceError> {
        match self.open {
            None => Ok(()),
            Some(_) => Err(self
                .hypervisor
                .tracking_lost("the capture before this one was not finished")),
        }
    }

    /// Begins a capture. If that fails, [`Attached::recover`] is to be called.
    pub(crate) async fn begin(
        &mut self,
        site: &Site,
        kind: CaptureKind,
        next: Sequence,
        number: u64,
    ) -> Result<QemuCapture, SourceError> {
        let rotation = self.rotation(kind, next)?;
        self.refuse_changed_disks().await?;
        self.open = Some(Open { number, kind, next });
        let (captured_at, held) = match (kind, rotation) {
            (CaptureKind::Instant, Some(rotation)) => self.take_instant(site, rotation).await?,
            (CaptureKind::Round, Some(rotation)) => self.take_round(rotation).await?,
            (CaptureKind::Scan | CaptureKind::Round | CaptureKind::Instant, _) => {
                (WallTime::now(), Duration::ZERO)
            }
        };
        let mut capture = QemuCapture {
            vm: self.hypervisor.vm().to_owned(),
            number,
            kind,
            captured_at,
            held,
            volumes: Vec::with_capacity(self.disks.len()),
            readers: Vec::with_capacity(self.disks.len()),
        };
        for disk in &self.disks {
            let reading = self.reading(disk, kind, rotation);
            let (volume, reader) = export::open(&self.hypervisor, &site.scratch, kind, &reading).await?;
            capture.volumes.push(volume);
            capture.readers.push(reader);
        }
        Ok(capture)
    }

    /// Which bitmaps a capture of this kind uses, or why it is out of place now.
    fn rotation(&self, kind: CaptureKind, next: Sequence) -> Result<Option<Rotation>, SourceError> {
        let wrong = |what: &str| {
            Err(self
                .hypervisor
                .unfit(format!("{kind:?} towards point {next}: {what}")))
        };
        match (&self.position, kind) {
            (Position::Lost { why }, _) => Err(self.hypervisor.tracking_lost(why.clone())),
            (Position::Since(newest), _) if newest.next() != next => {
                wrong(&format!("tracking knows the changes since point {newest}"))
            }
            (Position::Scan { next: towards, .. }, _) if *towards != next => {
                wrong(&format!("the scan leads to point {towards}"))
            }
            (Position::Since(_), CaptureKind::Scan | CaptureKind::Round) => wrong("no scan is open"),
            (Position::Scan { .. }, CaptureKind::Scan) => Ok(None),
            (Position::Scan { next, round }, CaptureKind::Round) => Ok(Some(Rotation {
                old: BitmapBase::Scan {
                    next: *next,
                    round: *round,
                },
                fresh: BitmapBase::Scan {
                    next: *next,
                    round: round.saturating_add(1),
                },
            })),
            (Position::Scan { next, round }, CaptureKind::Instant) => Ok(Some(Rotation {
                old: BitmapBase::Scan {
                    next: *next,
                    round: *round,
                },
                fresh: BitmapBase::Since(*next),
            })),
            (Position::Since(newest), CaptureKind::Instant) => Ok(Some(Rotation {
                old: BitmapBase::Since(*newest),
                fresh: BitmapBase::Since(next),
            })),
        }
    }

    /// A disk that was resized, replaced or lost its bitmap is not the one that was judged.
    async fn refuse_changed_disks(&self) -> Result<(), SourceError> {
        let nodes = block_nodes(&self.hypervisor).await?;
        for disk in &self.disks {
            let node = nodes.iter().find(|node| node.node_name == disk.data);
            let size = node.map(|node| node.image.virtual_size);
            if size != Some(disk.size.0) {
                return Err(self.hypervisor.unfit(format!(
                    "disk `{}` was {} long and is so no more; a disk's size must not change under protection",
                    disk.name, disk.size
                )));
            }
            let recording = self.current_bitmap().is_some_and(|name| {
                node.is_some_and(|node| {
                    let mut bitmaps = node.dirty_bitmaps.iter();
                    bitmaps.any(|bitmap| bitmap.name == name && bitmap.recording)
                })
            });
            if !recording {
                return Err(self.hypervisor.tracking_lost(format!(
                    "the bitmap of disk `{}` was removed or stopped by someone else",
                    disk.name
                )));
            }
        }
        Ok(())
    }

    /// The name of the bitmap that records between captures.
    fn current_bitmap(&self) -> Option<String> {
        let base = match &self.position {
            Position::Since(point) => BitmapBase::Since(*point),
            Position::Scan { next, round } => BitmapBase::Scan {
                next: *next,
                round: *round,
            },
            Position::Lost { .. } => return None,
        };
        Some(self.bitmap(base))
    }

    pub(super) fn bitmap(&self, base: BitmapBase) -> String {
        BitmapName {
            identity: self.identity,
            base,
        }
        .to_string()
    }

    pub(super) fn on_all(
        &self,
        base: BitmapBase,
        change: impl Fn(&ListedDisk) -> BitmapChange,
    ) -> Vec<BitmapStep> {
        let name = self.bitmap(base);
        let step = |disk: &ListedDisk| BitmapStep {
            node: disk.data.clone(),
            name: name.clone(),
            change: change(disk),
        };
        self.disks.iter().map(step).collect()
    }

    /// Live: from one moment on changes go into the fresh bitmaps only.
    async fn take_round(&self, rotation: Rotation) -> Result<(WallTime, Duration), SourceError> {
        let began = WallTime::now();
        let mut steps = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
        steps.extend(self.on_all(rotation.old, |_| BitmapChange::Disable));
        bitmaps(&self.hypervisor, &steps).await?;
        Ok((began, Duration::ZERO))
    }

    /// The fresh bitmaps record before the instant and the old ones until after it, so that nothing falls between.
    async fn take_instant(
        &self,
        site: &Site,
        rotation: Rotation,
    ) -> Result<(WallTime, Duration), SourceError> {
        let fresh = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
        bitmaps(&self.hypervisor, &fresh).await?;
        for disk in &self.disks {
            self.add_filter(site, disk).await?;
        }
        let switchings: Vec<_> = self
            .disks
            .iter()
            .map(|disk| Switching {
                wrapper: NodeRole::Wrapper.node(disk.index),
                file: NodeRole::Filter.node(disk.index),
            })
            .collect();
        let captured_at = WallTime::now();
        let switching_since = Instant::now();
        switch(&self.hypervisor, &switchings).await?;
        let held = switching_since.elapsed();
        bitmaps(
            &self.hypervisor,
            &self.on_all(rotation.old, |_| BitmapChange::Disable),
        )
        .await?;
        for disk in &self.disks {
            self.add_snapshot(disk.index).await?;
        }
        Ok((captured_at, held))
    }

    /// The filter is without the `bitmap` option: it would be copied now, before the instant, and what is not in it
    /// could not be told from what did not change.
    async fn add_filter(&self, site: &Site, disk: &ListedDisk) -> Result<(), SourceError> {
        let scratch = site.scratch.create(disk.index, disk.size).await?;
        let scratch_node = json!({
            "driver": "file",
            "node-name": NodeRole::Scratch.node(disk.index),
            "filename": scratch.path(),
            "discard": "unmap",
        });
        self.hypervisor.run("blockdev-add", scratch_node).await?;
        drop(scratch);
        let filter_node = json!({
            "driver": "copy-before-write",
            "node-name": NodeRole::Filter.node(disk.index),
            "file": disk.data,
            "target": NodeRole::Scratch.node(disk.index),
            "on-cbw-error": "break-snapshot",
            "cbw-timeout": COPY_BEFORE_WRITE_TIMEOUT_SECONDS,
            "discard": "unmap",
        });
        self.hypervisor.run("blockdev-add", filter_node).await
    }

    async fn add_snapshot(&self, index: VolumeIndex) -> Result<(), SourceError> {
        let node = json!({
            "driver": "snapshot-access",
            "node-name": NodeRole::Snapshot.node(index),
            "file": NodeRole::Filter.node(index),
        });
        self.hypervisor.run("blockdev-add", node).await
    }

    fn reading(&self, disk: &ListedDisk, kind: CaptureKind, rotation: Option<Rotation>) -> Reading {
        Reading {
            index: disk.index,
            size: disk.size,
            node: match kind {
                CaptureKind::Instant => NodeRole::Snapshot.node(disk.index),
                CaptureKind::Scan | CaptureKind::Round => disk.data.clone(),
            },
            data: disk.data.clone(),
            bitmap: rotation.map(|rotation| self.bitmap(rotation.old)),
        }
    }
}

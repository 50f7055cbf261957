//! How a capture begins: which bitmaps take turns, and the order that lets nothing fall between them.

use std::time::Duration;

use farshore_blocks::{Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{CaptureKind, CapturedVolume, SourceError};
use farshore_qmp::Command;
use serde_json::json;

use super::{Attached, Open, Rotation, Site, watching::Watched};
use crate::source::{
    acting::command,
    answers::BlockNode,
    capture::QemuCapture,
    export::{Reading, Shown},
    listing::ListedDisk,
    naming::{BitmapBase, BitmapName, IdentityTag, NodeRole},
    recovery::{Action, BitmapChange, BitmapStep, Position, Switching},
    survey::block_nodes,
};

/// How long the filter may hold a guest's write while it preserves what is there, before the snapshot breaks: shorter
/// than any guest's patience with a disk (30 s), longer than a busy disk's worst moments.
const COPY_BEFORE_WRITE_TIMEOUT_SECONDS: u32 = 10;

/// What a capture took.
struct Taken {
    captured_at: WallTime,
    held: Duration,
    /// Of the disks that are to be read.
    exports: Vec<Shown>,
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
        let watched = self.watch().await?;
        self.open = Some(Open {
            number,
            kind,
            next,
            rotation,
        });
        let taken = match (kind, rotation) {
            (CaptureKind::Instant | CaptureKind::WholeInstant, Some(rotation)) => {
                self.take_instant(site, (kind, rotation), &watched).await?
            }
            (
                CaptureKind::Scan | CaptureKind::Round | CaptureKind::Instant | CaptureKind::WholeInstant,
                rotation,
            ) => self.take_live(rotation).await?,
        };
        let mut capture = QemuCapture {
            vm: self.hypervisor.vm().to_owned(),
            number,
            kind,
            captured_at: taken.captured_at,
            held: taken.held,
            volumes: Vec::with_capacity(self.disks.len()),
            readers: Vec::with_capacity(self.disks.len()),
        };
        for disk in &self.disks {
            let shown = taken
                .exports
                .iter()
                .find(|shown| shown.reading.index == disk.index);
            let Some(shown) = shown else {
                capture.volumes.push(CapturedVolume {
                    index: disk.index,
                    size: disk.size,
                    extents: Vec::new(),
                });
                capture.readers.push(None);
                continue;
            };
            let (volume, reader) = shown.open(&self.hypervisor, &site.scratch, kind).await?;
            capture.volumes.push(volume);
            capture.readers.push(Some(reader));
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
            (Position::Scan { next, round }, CaptureKind::Instant | CaptureKind::WholeInstant) => {
                Ok(Some(Rotation {
                    old: BitmapBase::Scan {
                        next: *next,
                        round: *round,
                    },
                    fresh: BitmapBase::Since(*next),
                }))
            }
            (Position::Since(newest), CaptureKind::Instant | CaptureKind::WholeInstant) => {
                Ok(Some(Rotation {
                    old: BitmapBase::Since(*newest),
                    fresh: BitmapBase::Since(next),
                }))
            }
        }
    }

    /// The name of the bitmap that records between captures.
    pub(super) fn current_bitmap(&self) -> Option<String> {
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
            identity: IdentityTag::of(self.identity),
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

    /// Live: if there is a rotation, changes go into the fresh bitmaps only from one moment on.
    async fn take_live(&self, rotation: Option<Rotation>) -> Result<Taken, SourceError> {
        let captured_at = WallTime::now();
        let mut commands = Vec::new();
        if let Some(rotation) = rotation {
            let mut steps = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
            steps.extend(self.on_all(rotation.old, |_| BitmapChange::Disable));
            commands.push(command(&Action::Bitmaps(steps)));
        }
        let bitmap = rotation.map(|rotation| self.bitmap(rotation.old));
        let shown = |disk: &ListedDisk| self.shown(disk, disk.data.clone(), bitmap.clone());
        let exports: Vec<_> = self.disks.iter().map(shown).collect();
        commands.extend(exports.iter().map(Shown::command));
        self.hypervisor.run_all(&commands).await?;
        Ok(Taken {
            captured_at,
            held: Duration::ZERO,
            exports,
        })
    }

    /// The fresh bitmaps record before the instant and the old ones until after it, so that nothing falls between.
    ///
    /// Fresh bitmaps, filters and the switch go in one write: if one of the first fails, the switch is refused or does no
    /// harm, since the old bitmaps record until they are told to stop, after all of it was answered.
    async fn take_instant(
        &mut self,
        site: &Site,
        (kind, rotation): (CaptureKind, Rotation),
        watched: &[Watched],
    ) -> Result<Taken, SourceError> {
        self.need_scratch(site).await?;
        let fresh = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
        let mut commands = vec![command(&Action::Bitmaps(fresh))];
        commands.extend(self.disks.iter().map(add_filter));
        let switchings = self.disks.iter().map(|disk| Switching {
            wrapper: NodeRole::Wrapper.node(disk.index),
            file: NodeRole::Filter.node(disk.index),
        });
        commands.push(command(&Action::Switch(switchings.collect())));
        let captured_at = WallTime::now();
        let answered = self.hypervisor.run_all(&commands).await?;
        // The switch came last: it was worked on from the answer before it on.
        let held = match answered.as_slice() {
            [.., before, switched] => switched.saturating_duration_since(*before),
            [] | [_] => Duration::ZERO,
        };
        let exports = self.show_instant((kind, rotation), watched).await?;
        Ok(Taken {
            captured_at,
            held,
            exports,
        })
    }

    /// Stops the old bitmaps and exports what they know. Unless all is to be readable, a disk in which nothing had changed shortly before is looked at
    /// once more: an export less is worth a question.
    async fn show_instant(
        &self,
        (kind, rotation): (CaptureKind, Rotation),
        watched: &[Watched],
    ) -> Result<Vec<Shown>, SourceError> {
        let bitmap = self.bitmap(rotation.old);
        let stop = command(&Action::Bitmaps(
            self.on_all(rotation.old, |_| BitmapChange::Disable),
        ));
        let mut commands = vec![stop];
        let mut changed: Vec<_> = self.disks.iter().collect();
        if kind == CaptureKind::Instant && watched.iter().any(|watched| watched.dirty == 0) {
            self.hypervisor.run_all(&commands).await?;
            commands.clear();
            let nodes = block_nodes(&self.hypervisor).await?;
            changed.retain(|disk| !is_clean(&nodes, &disk.data, &bitmap));
        }
        let shown = |disk: &&ListedDisk| {
            let node = NodeRole::Snapshot.node(disk.index);
            self.shown(disk, node, Some(bitmap.clone()))
        };
        let exports: Vec<_> = changed.iter().map(shown).collect();
        commands.extend(changed.iter().map(|disk| add_snapshot(disk.index)));
        commands.extend(exports.iter().map(Shown::command));
        if !commands.is_empty() {
            self.hypervisor.run_all(&commands).await?;
        }
        Ok(exports)
    }

    fn shown(&self, disk: &ListedDisk, node: String, bitmap: Option<String>) -> Shown {
        Shown::new(Reading {
            index: disk.index,
            size: disk.size,
            node,
            data: disk.data.clone(),
            bitmap,
        })
    }
}

/// Whether this bitmap is there and knows of no change.
fn is_clean(nodes: &[BlockNode], data: &str, bitmap: &str) -> bool {
    let node = nodes.iter().find(|node| node.node_name == data);
    let mut bitmaps = node.into_iter().flat_map(|node| &node.dirty_bitmaps);
    bitmaps.any(|found| found.name == bitmap && found.count == 0)
}

/// The filter is without the `bitmap` option: it would be copied now, before the instant, and what is not in it
/// could not be told from what did not change.
fn add_filter(disk: &ListedDisk) -> Command {
    let node = json!({
        "driver": "copy-before-write",
        "node-name": NodeRole::Filter.node(disk.index),
        "file": disk.data,
        "target": NodeRole::Scratch.node(disk.index),
        "on-cbw-error": "break-snapshot",
        "cbw-timeout": COPY_BEFORE_WRITE_TIMEOUT_SECONDS,
        "discard": "unmap",
    });
    Command::new("blockdev-add", node)
}

fn add_snapshot(index: VolumeIndex) -> Command {
    let node = json!({
        "driver": "snapshot-access",
        "node-name": NodeRole::Snapshot.node(index),
        "file": NodeRole::Filter.node(index),
    });
    Command::new("blockdev-add", node)
}

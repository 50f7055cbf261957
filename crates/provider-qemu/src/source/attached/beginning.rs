//! How a capture begins: which bitmaps take turns, and the order that lets nothing fall between them.

use std::time::Duration;

use farshore_blocks::{ByteCount, ByteOffset, Extent, Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{
    Accord, CaptureKind, CapturedVolume, Consistency, DiskFile, Participant, SourceError, StateOfBytes,
    StatedExtent,
};
use farshore_qmp::Command;
use serde_json::json;

use super::{Attached, Open, Rotation, Site, together::Switched, watching::Watched};
use crate::freezer::Frozen;
use crate::source::{
    acting::command,
    answers::{BlockGraph, BlockNode},
    capture::QemuCapture,
    export::{Reading, Shown},
    form::CaptureForm,
    image::{Image, NotPlain},
    listing::ListedDisk,
    naming::{BitmapBase, BitmapName, IdentityTag, NodeRole},
    recovery::{Action, BitmapChange, BitmapStep, Position, Resizing, Switching},
    survey::{block_nodes, nodes_in_graph},
};

/// How long the filter may hold a guest's write while it preserves what is there, before the snapshot breaks: shorter
/// than any guest's patience with a disk (30 s), longer than a busy disk's worst moments.
const COPY_BEFORE_WRITE_TIMEOUT_SECONDS: u32 = 10;

/// What is to be captured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordered {
    pub(crate) kind: CaptureKind,
    pub(crate) next: Sequence,
    pub(crate) wish: Wish,
}

/// What an instant is to be consistent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Crash,
    Application,
}

/// What a capture took.
struct Taken {
    captured_at: WallTime,
    consistency: Consistency,
    held: Duration,
    accord: Option<Accord>,
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
        (ordered, participant): (Ordered, Option<Participant>),
        number: u64,
    ) -> Result<QemuCapture, SourceError> {
        let Ordered { kind, next, .. } = ordered;
        let rotation = self.rotation(kind, next)?;
        let watched = self.watch().await?;
        self.show_growth(&watched).await?;
        self.open = Some(Open {
            number,
            kind,
            next,
            rotation,
        });
        if self.form == CaptureForm::Copy {
            let why =
                "an I/O thread serves a disk of it, which this QEMU cannot capture together with other VMs";
            let accord = participant.map(|participant| {
                participant.give_up(why);
                Accord::Alone { why: why.to_owned() }
            });
            let capture = self.begin_copy(site, ordered, (number, rotation)).await?;
            return Ok(QemuCapture { accord, ..capture });
        }
        let taken = match (kind, rotation) {
            (CaptureKind::Instant | CaptureKind::WholeInstant, Some(rotation)) => {
                self.take_instant(site, (kind, rotation), &watched, (ordered.wish, participant))
                    .await?
            }
            (
                CaptureKind::Scan | CaptureKind::Round | CaptureKind::Instant | CaptureKind::WholeInstant,
                rotation,
            ) => self.take_live(rotation).await?,
        };
        let mut capture = QemuCapture {
            vm: self.hypervisor.vm().to_owned(),
            number,
            holds_all: kind == CaptureKind::WholeInstant,
            captured_at: taken.captured_at,
            consistency: taken.consistency,
            held: taken.held,
            accord: taken.accord,
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
            let (mut volume, reader) = shown.open(&self.hypervisor, &site.scratch, kind).await?;
            if kind != CaptureKind::Scan {
                add_grown(&mut volume, self.known_size(disk.index));
            }
            capture.volumes.push(volume);
            capture.readers.push(Some(reader));
        }
        Ok(capture)
    }

    /// A disk that was resized below its wrapper is shown to the device as long as it is: some versions of QEMU do not
    /// pass that on by themselves.
    async fn show_growth(&mut self, watched: &[Watched]) -> Result<(), SourceError> {
        for (disk, watched) in self.disks.iter_mut().zip(watched) {
            disk.size = watched.size;
            if self.form == CaptureForm::Filter && watched.seen_by_device < watched.size {
                let size = json!({"node-name": disk.wrapper, "size": watched.size.0});
                self.hypervisor.run("block_resize", size).await?;
            }
        }
        Ok(())
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
            // Of disks that join, beside those that are known.
            (Position::Since(_), CaptureKind::Scan) if self.disks.iter().any(|disk| self.joins(disk)) => {
                Ok(None)
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
        let (graph, nodes) = nodes_in_graph(&self.hypervisor).await?;
        let shown = |disk: &ListedDisk| {
            let plain = self.plain_file(disk, &graph, &nodes);
            self.shown(disk, disk.data.clone(), bitmap.clone())
                .or_plain(plain)
        };
        let read = self.disks.iter().filter(|disk| self.is_scanned(disk));
        let exports: Vec<_> = read.map(shown).collect();
        commands.extend(exports.iter().map(Shown::command));
        self.hypervisor.run_all(&commands).await?;
        Ok(Taken {
            captured_at,
            consistency: Consistency::Crash { why: None },
            held: Duration::ZERO,
            accord: None,
            exports,
        })
    }

    /// Where the disk can be read without QEMU: by many it cannot, which is no fault.
    fn plain_file(&self, disk: &ListedDisk, graph: &BlockGraph, nodes: &[BlockNode]) -> Option<DiskFile> {
        let image = Image::of(&disk.data, graph, nodes).ok()?;
        let opened = image.open_plain(disk.size, self.hypervisor.process());
        let refused = |why: &NotPlain| tracing::debug!(disk = disk.name, %why, "a disk in use is read through its QEMU");
        opened.inspect_err(refused).ok()
    }

    /// The fresh bitmaps record before the instant and the old ones until after it, so that nothing falls between.
    ///
    /// The switch goes by itself, so that how long it holds the guest's writes is not told shorter than it was.
    async fn take_instant(
        &mut self,
        site: &Site,
        (kind, rotation): (CaptureKind, Rotation),
        watched: &[Watched],
        (wish, participant): (Wish, Option<Participant>),
    ) -> Result<Taken, SourceError> {
        self.need_scratch(site).await?;
        let fresh = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
        let mut commands = vec![command(&Action::Bitmaps(fresh))];
        commands.extend(self.disks.iter().map(add_filter));
        let switchings = self.disks.iter().map(|disk| Switching {
            wrapper: disk.wrapper.clone(),
            file: NodeRole::Filter.node(disk.index),
            resizing: Resizing::Refused { size: disk.size },
        });
        let switch = command(&Action::Switch(switchings.collect()));
        self.hypervisor.run_all(&commands).await?;
        // Dropped on the way, it is thawed.
        let frozen = freeze(site, wish).await;
        let switched = match participant {
            None => self.switch(switch).await,
            Some(participant) => {
                let bitmap = self.bitmap(rotation.fresh);
                self.switch_together((site, &bitmap), switch, participant).await
            }
        };
        let consistency = thaw(site, frozen).await;
        let Switched {
            captured_at,
            held,
            accord,
        } = switched?;
        let exports = self.show_instant((kind, rotation), watched).await?;
        Ok(Taken {
            captured_at,
            consistency,
            held,
            accord,
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
            changed.retain(|disk| {
                !is_clean(&nodes, &disk.data, &bitmap) || disk.size > self.known_size(disk.index)
            });
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

/// The guest frozen, if that is wished; or why it is not.
pub(super) async fn freeze(site: &Site, wish: Wish) -> Result<Frozen, Option<String>> {
    match (wish, &site.guest_agent) {
        (Wish::Crash, _) => Err(None),
        (Wish::Application, None) => Err(Some("no guest agent is declared".to_owned())),
        (Wish::Application, Some(agent)) => {
            if let Err(error) = site.scratch.mark_freezing() {
                return Err(Some(error.to_string()));
            }
            Frozen::freeze(agent).await.map_err(Some)
        }
    }
}

pub(super) async fn thaw(site: &Site, frozen: Result<Frozen, Option<String>>) -> Consistency {
    match frozen {
        Ok(frozen) => match frozen.thaw().await {
            Ok(()) => {
                site.scratch.unmark_freezing();
                Consistency::Application
            }
            Err(why) => Consistency::Crash { why: Some(why) },
        },
        Err(why) => Consistency::Crash { why },
    }
}

/// Adds what lies behind `known` to the extents: no bitmap knows what a disk had there before it grew.
pub(super) fn add_grown(volume: &mut CapturedVolume, known: ByteCount) {
    let behind = ByteCount(volume.size.0.saturating_sub(known.0));
    let Some(grown) = Extent::new(ByteOffset(known.0), behind) else {
        return;
    };
    let before = Extent::new(ByteOffset(0), known);
    volume.extents.retain_mut(|stated| {
        let kept = before.and_then(|before| stated.extent.intersection(before));
        stated.extent = kept.unwrap_or(stated.extent);
        kept.is_some()
    });
    volume.extents.push(StatedExtent {
        extent: grown,
        state: StateOfBytes::Data,
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_grew_by_is_one_extent_behind_the_others() {
        let extent = |start, length| Extent::new(ByteOffset(start), ByteCount(length)).unwrap();
        for (size, changed, expected) in [
            (100, vec![(10, 5)], vec![(10, 5)]),
            (
                150,
                vec![(10, 5), (90, 30), (130, 5)],
                vec![(10, 5), (90, 10), (100, 50)],
            ),
            (150, vec![], vec![(100, 50)]),
        ] {
            let stated = changed.into_iter().map(|(start, length)| StatedExtent {
                extent: extent(start, length),
                state: StateOfBytes::Data,
            });
            let mut volume = CapturedVolume {
                index: VolumeIndex(0),
                size: ByteCount(size),
                extents: stated.collect(),
            };
            add_grown(&mut volume, ByteCount(100));
            let found: Vec<_> = volume
                .extents
                .iter()
                .map(|stated| (stated.extent.start().0, stated.extent.length().0))
                .collect();
            assert_eq!(found, expected);
        }
    }
}

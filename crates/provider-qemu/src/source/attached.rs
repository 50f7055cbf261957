//! A VM whose leftovers are settled: what tracking knows, and how captures begin and end.
//!
//! Crash story: a process that dies anywhere in here leaves nodes, exports and bitmaps of ours, and a guest that runs
//! on unharmed; the next attachment lists them and settles them by what the target has. The end of a capture that
//! did not die takes the very same path, so that it is walked all day.

use std::time::{Duration, Instant};

use farshore_blocks::{Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{CaptureKind, MachineSpecification, Outcome, SourceError, TrackingIdentity};
use serde_json::json;

use super::{
    acting::{act, bitmaps, switch},
    capture::QemuCapture,
    export::{self, NbdServer, Reading},
    hypervisor::Hypervisor,
    listing::{ListedDisk, Listing},
    naming::{BitmapBase, BitmapName, NodeRole},
    recovery::{BitmapChange, BitmapStep, Position, ScanTruth, Switching, Truth, plan, plan_removal},
    scratch::ScratchDirectory,
    survey::{Depth, block_nodes, survey, survey_fit},
};

/// How long the filter may hold a guest's write while it preserves what is there, before the snapshot breaks: shorter
/// than any guest's patience with a disk (30 s), longer than a busy disk's worst moments.
const COPY_BEFORE_WRITE_TIMEOUT_SECONDS: u32 = 10;

/// What does not change while attached.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) machine: MachineSpecification,
    pub(crate) scratch: ScratchDirectory,
}

/// A settled VM.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) hypervisor: Hypervisor,
    identity: TrackingIdentity,
    disks: Vec<ListedDisk>,
    position: Position,
    open: Option<Open>,
}

/// A capture that was not finished yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    number: u64,
    kind: CaptureKind,
    next: Sequence,
}

/// What a capture does with bitmaps: changes go into the fresh one from now on, the old one tells what to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rotation {
    old: BitmapBase,
    fresh: BitmapBase,
}

impl Attached {
    /// Settles what a predecessor left, by what the target has.
    pub(crate) async fn settle_anew(
        hypervisor: Hypervisor,
        site: &Site,
        identity: TrackingIdentity,
        truth: Truth,
    ) -> Result<Self, SourceError> {
        let mut attached = Self {
            hypervisor,
            identity,
            disks: Vec::new(),
            position: Position::Lost { why: String::new() },
            open: None,
        };
        // Refuses what would endanger the guest before anything is touched.
        let listing = survey_fit(&attached.hypervisor, &site.machine, Depth::Full).await?;
        attached.settle_listed(site, listing, truth).await?;
        attached.need_server(site).await?;
        Ok(attached)
    }

    /// What tracking knows.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    async fn need_server(&self, site: &Site) -> Result<(), SourceError> {
        match export::start_server(&self.hypervisor, &site.scratch).await? {
            NbdServer::Ours => Ok(()),
            NbdServer::Foreign => Err(self.hypervisor.unfit(
                "an NBD server runs in its QEMU that Farshore did not start; stop it (nbd-server-stop)",
            )),
        }
    }

    /// Lists, plans and acts; afterwards the VM is ready for the next capture.
    async fn settle(&mut self, site: &Site, truth: Truth) -> Result<(), SourceError> {
        let listing = survey_fit(&self.hypervisor, &site.machine, Depth::Again).await?;
        self.settle_listed(site, listing, truth).await
    }

    async fn settle_listed(
        &mut self,
        site: &Site,
        listing: Listing,
        truth: Truth,
    ) -> Result<(), SourceError> {
        let plan = plan(&listing, self.identity, truth);
        act(&self.hypervisor, &plan.actions).await?;
        site.scratch.sweep().await?;
        self.disks = listing.disks;
        self.position = plan.position;
        self.open = None;
        Ok(())
    }

    /// Begins tracking towards `next`; what was known before is dropped.
    pub(crate) async fn begin_scan(&mut self, site: &Site, next: Sequence) -> Result<(), SourceError> {
        self.settle(site, Truth::Nothing).await?;
        let base = BitmapBase::Scan { next, round: 0 };
        let steps = self.on_all(base, |disk| BitmapChange::Add(disk.bitmaps_survive));
        bitmaps(&self.hypervisor, &steps).await?;
        self.position = Position::Scan { next, round: 0 };
        Ok(())
    }

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

    /// Takes back what a begun capture did before it failed.
    pub(crate) async fn recover(&mut self, site: &Site) -> Result<(), SourceError> {
        if self.open.is_some() {
            self.settle(site, self.truth()).await?;
        }
        self.need_server(site).await
    }

    /// Ends a capture.
    pub(crate) async fn finish(
        &mut self,
        site: &Site,
        capture: QemuCapture,
        outcome: Outcome,
    ) -> Result<(), SourceError> {
        let number = capture.number;
        for reader in capture.readers {
            reader.disconnect().await;
        }
        let open = self.open.filter(|open| open.number == number).ok_or_else(|| {
            self.hypervisor
                .tracking_lost("a capture of an earlier attachment was finished")
        })?;
        let truth = match (open.kind, outcome) {
            (CaptureKind::Instant, Outcome::Done) => Truth::Replica {
                newest: open.next,
                scan: ScanTruth::None,
            },
            (CaptureKind::Round, Outcome::Done) => self.truth_after_round(),
            (CaptureKind::Scan | CaptureKind::Round | CaptureKind::Instant, _) => self.truth(),
        };
        self.settle(site, truth).await?;
        match &self.position {
            Position::Since(_) | Position::Scan { .. } => Ok(()),
            Position::Lost { why } => Err(self.hypervisor.tracking_lost(why.clone())),
        }
    }

    /// What the target must have, as long as the open capture is not done there.
    fn truth(&self) -> Truth {
        self.truth_from(0)
    }

    fn truth_after_round(&self) -> Truth {
        match self.position {
            Position::Scan { round, .. } => self.truth_from(round.saturating_add(1)),
            Position::Since(_) | Position::Lost { .. } => self.truth(),
        }
    }

    fn truth_from(&self, from_round: u64) -> Truth {
        match self.position {
            Position::Since(newest) => Truth::Replica {
                newest,
                scan: ScanTruth::None,
            },
            Position::Scan { next, .. } => Truth::Replica {
                newest: Sequence(next.0.saturating_sub(1)),
                scan: ScanTruth::Open { from_round },
            },
            Position::Lost { .. } => Truth::Nothing,
        }
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

    fn bitmap(&self, base: BitmapBase) -> String {
        BitmapName {
            identity: self.identity,
            base,
        }
        .to_string()
    }

    fn on_all(&self, base: BitmapBase, change: impl Fn(&ListedDisk) -> BitmapChange) -> Vec<BitmapStep> {
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

    /// How many bytes the bitmaps of this identity count now.
    pub(crate) async fn backlog(&self) -> Result<u64, SourceError> {
        let nodes = block_nodes(&self.hypervisor).await?;
        let ours = |name: &str| BitmapName::parse(name).is_some_and(|name| name.identity == self.identity);
        let counts = nodes
            .iter()
            .filter(|node| self.disks.iter().any(|disk| disk.data == node.node_name))
            .flat_map(|node| &node.dirty_bitmaps)
            .filter(|bitmap| ours(&bitmap.name))
            .map(|bitmap| bitmap.count);
        Ok(counts.fold(0, u64::saturating_add))
    }
}

/// Removes everything of ours from a VM, also around disks that could not be captured any more.
pub(crate) async fn detach(hypervisor: &Hypervisor, site: &Site) -> Result<(), SourceError> {
    let (listing, _) = survey(hypervisor, &site.machine, Depth::Again).await?;
    act(hypervisor, &plan_removal(&listing)).await?;
    export::stop_server(hypervisor, &site.scratch).await?;
    site.scratch.sweep().await?;
    // What is left would be of a device that is not declared: better said than passed over.
    let (left, _) = survey(hypervisor, &site.machine, Depth::Again).await?;
    if left.nodes.is_empty() && left.exports.is_empty() && left.strays.is_empty() {
        return Ok(());
    }
    Err(hypervisor.unfit(format!(
        "nodes {:?}, exports {:?} and bitmaps {:?} are still there",
        left.nodes, left.exports, left.strays
    )))
}

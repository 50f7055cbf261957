//! A VM whose leftovers are settled: what tracking knows, and how captures begin and end.
//!
//! Between captures every disk lies behind its wrapper, one bitmap of it records, and from the first instant on its
//! scratch node stays too. A capture of which nothing failed ends in a few commands, because what it put there is known.
//!
//! Crash story: a process that dies anywhere in here leaves nodes, exports and bitmaps of ours, and a guest that runs
//! on unharmed; the next attachment lists them and settles them by what the target has. So does this one when a command
//! fails in the middle.

mod beginning;
mod copying;
mod ending;
mod scratching;
mod together;
mod watching;

use farshore_blocks::{ByteCount, Sequence, VolumeIndex};
use farshore_provider::{CaptureKind, MachineSpecification, SourceError, TrackingIdentity};
use serde_json::Value;

use crate::{
    freezer::GuestAgentConfig,
    watchdog::{Watchdog, WatchdogConfig},
};

pub(crate) use beginning::{Ordered, Wish};
pub(crate) use together::let_go_if_left_standing;

use super::{
    acting::act,
    export::{self, NbdServer},
    form::CaptureForm,
    hypervisor::Hypervisor,
    image, jobs,
    listing::{ListedDisk, Listing},
    machine::Status,
    naming::{BitmapBase, BitmapName, IdentityTag},
    recovery::{Action, BitmapChange, BitmapStep, Position, Truth, plan, plan_removal},
    scratch::{KeptScratch, ScratchDirectory},
    survey::{Depth, block_nodes, survey, survey_fit},
};

/// What does not change while attached.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) machine: MachineSpecification,
    pub(crate) scratch: ScratchDirectory,
    pub(crate) guest_agent: Option<GuestAgentConfig>,
    pub(crate) watchdog: Option<WatchdogConfig>,
}

/// A settled VM.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) hypervisor: Hypervisor,
    identity: TrackingIdentity,
    /// Of all disks, for as long as this hypervisor runs.
    form: CaptureForm,
    disks: Vec<ListedDisk>,
    position: Position,
    open: Option<Open>,
    /// How long the disks were when everything of them was last taken along.
    known_sizes: Vec<ByteCount>,
    /// Of every disk, once there was an instant.
    scratch: Vec<KeptScratch>,
    /// Once there was an instant together with other VMs.
    watchdog: Option<Watchdog>,
}

/// What a capture does with bitmaps: changes go into the fresh one from now on, the old one tells what to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rotation {
    old: BitmapBase,
    fresh: BitmapBase,
}

/// A capture that was not finished yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    number: u64,
    kind: CaptureKind,
    next: Sequence,
    rotation: Option<Rotation>,
}

impl Attached {
    /// Settles what a predecessor left, by what the target has.
    pub(crate) async fn settle_anew(
        hypervisor: Hypervisor,
        site: &Site,
        identity: TrackingIdentity,
        (truth, sizes): (Truth, &[ByteCount]),
    ) -> Result<Self, SourceError> {
        let mut attached = Self {
            hypervisor,
            identity,
            form: CaptureForm::Filter,
            disks: Vec::new(),
            position: Position::Lost { why: String::new() },
            open: None,
            known_sizes: Vec::new(),
            scratch: Vec::new(),
            watchdog: None,
        };
        // Refuses what would endanger the guest before anything is touched.
        let status: Status = attached.hypervisor.query("query-status", Value::Null).await?;
        if let Some(why) = status.disks_elsewhere() {
            return Err(attached.hypervisor.unfit(why));
        }
        let copying = jobs::end_left_over(&attached.hypervisor).await?;
        let listing = survey_fit(&attached.hypervisor, &site.machine, Depth::Full).await?;
        attached.form = listing.form;
        let copied = !listing.nodes.is_empty() && listing.form == CaptureForm::Copy;
        attached.known_sizes = listing.disks.iter().map(|disk| disk.size).collect();
        for (known, told) in attached.known_sizes.iter_mut().zip(sizes) {
            *known = *told;
        }
        attached.settle_listed(site, listing, truth).await?;
        if copying || copied {
            jobs::resume_left_over(&attached.hypervisor).await?;
        }
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
        if self.form == CaptureForm::Copy {
            jobs::end_left_over(&self.hypervisor).await?;
            jobs::resume_left_over(&self.hypervisor).await?;
        }
        let mut listing = survey_fit(&self.hypervisor, &site.machine, Depth::Again).await?;
        listing.form = self.form;
        self.settle_listed(site, listing, truth).await
    }

    async fn settle_listed(
        &mut self,
        site: &Site,
        mut listing: Listing,
        truth: Truth,
    ) -> Result<(), SourceError> {
        let known = listing.disks.iter().zip(&self.known_sizes);
        let joining = known.filter(|(_, known)| **known == ByteCount(0));
        listing.joining = joining.map(|(disk, _)| disk.index).collect();
        let plan = plan(&listing, self.identity, truth);
        act(&self.hypervisor, &plan.actions).await?;
        self.scratch.clear();
        image::end_left_over(&site.scratch).await;
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
        act(&self.hypervisor, &[Action::Bitmaps(steps)]).await?;
        self.position = Position::Scan { next, round: 0 };
        self.know_sizes();
        Ok(())
    }

    fn know_sizes(&mut self) {
        self.known_sizes = self.disks.iter().map(|disk| disk.size).collect();
    }

    /// Whether the target has nothing of this disk yet.
    fn joins(&self, disk: &ListedDisk) -> bool {
        self.known_size(disk.index) == ByteCount(0)
    }

    /// Whether a scan is to read this disk: all of a VM that is scanned, and those that join one that is not.
    fn is_scanned(&self, disk: &ListedDisk) -> bool {
        matches!(self.position, Position::Scan { .. }) || self.joins(disk)
    }

    fn known_size(&self, index: VolumeIndex) -> ByteCount {
        let mut known = self.disks.iter().zip(&self.known_sizes);
        let known = known.find(|(disk, _)| disk.index == index);
        known.map_or(ByteCount(0), |(_, size)| *size)
    }

    /// Takes back what a begun capture did before it failed.
    pub(crate) async fn recover(&mut self, site: &Site) -> Result<(), SourceError> {
        if self.open.is_some() {
            self.settle(site, self.truth()).await?;
        }
        self.need_server(site).await
    }

    /// How many bytes the bitmaps of this identity count now, and by how many the disks grew.
    pub(crate) async fn backlog(&self) -> Result<u64, SourceError> {
        let nodes = block_nodes(&self.hypervisor).await?;
        let grown = self.disks.iter().filter_map(|disk| {
            let node = nodes.iter().find(|node| node.node_name == disk.data)?;
            node.image.virtual_size.checked_sub(self.known_size(disk.index).0)
        });
        let identity = IdentityTag::of(self.identity);
        let ours = |name: &str| BitmapName::parse(name).is_some_and(|name| name.identity == identity);
        let counts = nodes
            .iter()
            .filter(|node| self.disks.iter().any(|disk| disk.data == node.node_name))
            .flat_map(|node| &node.dirty_bitmaps)
            .filter(|bitmap| ours(&bitmap.name))
            .map(|bitmap| bitmap.count);
        Ok(counts.chain(grown).fold(0, u64::saturating_add))
    }
}

/// Removes everything of ours from a VM, also around disks that could not be captured any more.
pub(crate) async fn detach(hypervisor: &Hypervisor, site: &Site) -> Result<(), SourceError> {
    let copying = jobs::end_left_over(hypervisor).await?;
    image::end_left_over(&site.scratch).await;
    let (listing, _) = survey(hypervisor, &site.machine, Depth::Again).await?;
    if copying || !listing.nodes.is_empty() {
        jobs::resume_left_over(hypervisor).await?;
    }
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

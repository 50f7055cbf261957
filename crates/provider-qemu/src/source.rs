//! The source of captures of a QEMU VM: it sees to it that no capture begins before leftovers were settled.
//!
//! While anything is done with the VM, the settled state is taken out; it is put back only if it is known what was
//! done. So a failure, or a caller that gives up in the middle, leaves a source that must be attached again.

mod abandoned;
mod acting;
mod answers;
mod attached;
mod bitmap_map;
mod capabilities;
mod capture;
mod checks;
mod export;
mod form;
mod hypervisor;
mod image;
mod jobs;
mod listing;
mod machine;
mod misfit;
mod naming;
mod reader;
mod recovery;
mod scratch;
mod survey;

use std::{io, path::PathBuf};

use farshore_blocks::{ByteCount, Sequence};
use farshore_provider::{
    CaptureKind, Check, MachineSpecification, Outcome, Participant, ReplicaState, ScanState, Source,
    SourceError, Tracking, TrackingIdentity,
};
use farshore_qmp::QmpError;

pub use capture::QemuCapture;

use crate::{
    freezer::{GuestAgentConfig, LeftOver, thaw_left_over},
    watchdog::WatchdogConfig,
};

use attached::{Attached, Ordered, Site, Wish};
use hypervisor::Hypervisor;
use recovery::{Position, ScanTruth, Truth};
use scratch::ScratchDirectory;
use survey::{Depth, survey_fit};

/// Where a protected VM is and what it is said to be.
#[derive(Debug, Clone)]
pub struct QemuSourceConfig {
    /// The unix socket of a QMP monitor that nobody else uses.
    pub monitor: PathBuf,
    /// The machine as declared; its disks are the volumes, in this order.
    pub machine: MachineSpecification,
    /// A directory for this VM alone, on a bounded file system apart from the VM's images. It is created if missing.
    pub scratch_directory: PathBuf,
    /// How the guest's agent is reached, if there is one.
    pub guest_agent: Option<GuestAgentConfig>,
    /// How its guest is watched over while it stands still; without one it cannot take an instant together with others.
    pub watchdog: Option<WatchdogConfig>,
}

/// A protected VM that QEMU runs.
#[derive(Debug)]
pub struct QemuSource {
    monitor: PathBuf,
    site: Site,
    /// Taken out while something is done with it; none if what is there is not known.
    attached: Option<Box<Attached>>,
    captures: u64,
}

impl QemuSource {
    /// The source of this VM's captures. Nothing is done before it is checked or attached.
    #[must_use]
    pub fn new(config: QemuSourceConfig) -> Self {
        Self {
            monitor: config.monitor,
            site: Site {
                scratch: ScratchDirectory::new(&config.scratch_directory),
                machine: config.machine,
                guest_agent: config.guest_agent,
                watchdog: config.watchdog,
            },
            attached: None,
            captures: 0,
        }
    }

    /// A fresh connection; the former one is closed first, as a monitor serves one client at a time.
    async fn connect(&mut self) -> Result<Hypervisor, SourceError> {
        self.attached = None;
        Hypervisor::at(&self.monitor, self.site.machine.vm.clone()).await
    }

    /// The settled VM, taken out.
    fn take_attached(&mut self) -> Result<Box<Attached>, SourceError> {
        self.attached.take().ok_or_else(|| SourceError::TrackingLost {
            vm: self.site.machine.vm.clone(),
            why: "what is at the VM is not known; it must be attached again".to_owned(),
        })
    }

    async fn begin_ordered(
        &mut self,
        ordered: Ordered,
        participant: Option<Participant>,
    ) -> Result<QemuCapture, SourceError> {
        let mut attached = self.take_attached()?;
        attached.refuse_if_open()?;
        self.captures = self.captures.saturating_add(1);
        let begun = attached
            .begin(&self.site, (ordered, participant), self.captures)
            .await;
        if let Err(error) = &begun
            && !matches!(error, SourceError::Monitor { .. })
            && let Err(second) = attached.recover(&self.site).await
        {
            tracing::warn!(vm = %self.site.machine.vm, error = %second, "what a failed capture left stays there");
            return begun;
        }
        self.put_back(attached, begun)
    }

    /// An operator's own freeze has no mark of ours, and is left alone.
    async fn thaw_if_left_frozen(&self) {
        if let Some(agent) = &self.site.guest_agent
            && self.site.scratch.is_marked_freezing()
            && thaw_left_over(agent).await == LeftOver::Settled
        {
            self.site.scratch.unmark_freezing();
        }
    }

    /// Puts the settled VM back after something that did not change what is there, unless it cannot be reached.
    fn put_back<T>(
        &mut self,
        attached: Box<Attached>,
        result: Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        if !matches!(result, Err(SourceError::Monitor { .. })) {
            self.attached = Some(attached);
        }
        result
    }
}

impl Source for QemuSource {
    type Capture = QemuCapture;

    async fn checks(&mut self) -> Vec<Check> {
        let mut found = vec![
            checks::firmware(&self.site.machine),
            checks::scratch_directory(&self.site.scratch).await,
        ];
        found.extend(checks::second_monitor(&self.site).await);
        if let Some(attached) = self.attached.take() {
            found.extend(checks::at_vm(&attached.hypervisor, &self.site).await);
            self.attached = Some(attached);
            return found;
        }
        match self.connect().await {
            Ok(hypervisor) => found.extend(checks::at_vm(&hypervisor, &self.site).await),
            Err(error) => found.push(checks::unreachable(&self.monitor, &error)),
        }
        found
    }

    async fn sizes(&mut self) -> Result<Vec<ByteCount>, SourceError> {
        let hypervisor = self.connect().await?;
        let listing = survey_fit(&hypervisor, &self.site.machine, Depth::Full).await?;
        Ok(listing.disks.iter().map(|disk| disk.size).collect())
    }

    async fn attach(
        &mut self,
        identity: TrackingIdentity,
        replica: ReplicaState,
    ) -> Result<Tracking, SourceError> {
        let hypervisor = self.connect().await?;
        let mismatches = machine::observe(&hypervisor)
            .await?
            .mismatches(&self.site.machine);
        if !mismatches.is_empty() {
            return Err(hypervisor.unfit(mismatches.join("; ")));
        }
        self.site.scratch.sweep().await?;
        self.thaw_if_left_frozen().await;
        attached::let_go_if_left_standing(&hypervisor, &self.site.scratch).await?;
        let truth = Truth::Replica {
            newest: replica.newest,
            scan: match replica.scan {
                ScanState::None => ScanTruth::None,
                ScanState::Open => ScanTruth::Open { from_round: 0 },
            },
        };
        let attached =
            Attached::settle_anew(hypervisor, &self.site, identity, (truth, &replica.sizes)).await?;
        let tracking = match attached.position() {
            Position::Since(_) => Tracking::SincePoint,
            Position::Scan { .. } => Tracking::SinceScan,
            Position::Lost { why } => Tracking::Lost { why: why.clone() },
        };
        self.attached = Some(Box::new(attached));
        Ok(tracking)
    }

    async fn begin_scan(&mut self, next: Sequence) -> Result<(), SourceError> {
        let mut attached = self.take_attached()?;
        attached.begin_scan(&self.site, next).await?;
        self.attached = Some(attached);
        Ok(())
    }

    async fn begin(&mut self, kind: CaptureKind, next: Sequence) -> Result<QemuCapture, SourceError> {
        let wish = Wish::Crash;
        self.begin_ordered(Ordered { kind, next, wish }, None).await
    }

    async fn begin_application_consistent(&mut self, next: Sequence) -> Result<QemuCapture, SourceError> {
        let (kind, wish) = (CaptureKind::Instant, Wish::Application);
        self.begin_ordered(Ordered { kind, next, wish }, None).await
    }

    async fn begin_together(
        &mut self,
        kind: CaptureKind,
        next: Sequence,
        participant: Participant,
    ) -> Result<QemuCapture, SourceError> {
        let wish = Wish::Crash;
        self.begin_ordered(Ordered { kind, next, wish }, Some(participant))
            .await
    }

    async fn finish(&mut self, capture: QemuCapture, outcome: Outcome) -> Result<(), SourceError> {
        let mut attached = self.take_attached()?;
        attached.finish(&self.site, capture, outcome).await?;
        self.attached = Some(attached);
        Ok(())
    }

    async fn backlog(&mut self) -> Result<ByteCount, SourceError> {
        let attached = self.take_attached()?;
        let counted = attached.backlog().await;
        self.put_back(attached, counted).map(ByteCount)
    }

    async fn detach(&mut self) -> Result<(), SourceError> {
        match self.connect().await {
            Ok(hypervisor) => attached::detach(&hypervisor, &self.site).await,
            // All that was put beside the VM went with its process. What its images keep of our bitmaps is removed
            // when somebody attaches to it again.
            Err(error) if nobody_serves(&error) => {
                tracing::warn!(vm = %self.site.machine.vm, "there is nothing to detach from: no monitor is served");
                self.site.scratch.sweep().await
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the monitor has no process behind it. One that hangs has.
fn nobody_serves(error: &SourceError) -> bool {
    let SourceError::Monitor { source, .. } = error else {
        return false;
    };
    let Some(QmpError::Connect { source, .. }) = source.downcast_ref() else {
        return false;
    };
    matches!(
        source.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

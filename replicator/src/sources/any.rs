//! A source of whichever kind an assignment names.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use farshore_blocks::{ByteCount, Extent, Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{
    Accord, Capture, CaptureKind, CapturedVolume, Check, Consistency, MachineSpecification, Outcome,
    Participant, ReplicaState, Source, SourceError, Tracking, TrackingIdentity,
};
use farshore_provider_qemu::{GuestAgentConfig, QemuCapture, QemuSource, QemuSourceConfig, WatchdogConfig};
use farshore_provider_raw::{RawCapture, RawSource, RawSourceConfig};

use crate::assignment::SourcePlace;

/// A VM that runs, or disks that lie there.
pub(crate) enum AnySource {
    Qemu(QemuSource),
    Raw(RawSource),
}

/// What is reached beside a VM's monitor, where there is one.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) guest_agent: Option<GuestAgentConfig>,
    pub(crate) watchdog: Option<WatchdogConfig>,
}

/// A capture of it.
pub(crate) enum AnyCapture {
    Qemu(QemuCapture),
    Raw(RawCapture),
}

impl AnySource {
    /// The source at `place`, which may keep what it needs in `directory`.
    pub(crate) fn at(
        place: &SourcePlace,
        machine: &MachineSpecification,
        directory: &Path,
        beside: Beside,
    ) -> Self {
        match place {
            SourcePlace::Monitor(monitor) => Self::Qemu(QemuSource::new(QemuSourceConfig {
                machine: machine.clone(),
                monitor: monitor.clone(),
                scratch_directory: directory.to_owned(),
                guest_agent: beside.guest_agent,
                watchdog: beside.watchdog,
            })),
            SourcePlace::Disks(disks) => Self::Raw(RawSource::new(RawSourceConfig {
                vm: machine.vm.clone(),
                disks: disks.clone(),
                directory: directory.to_owned(),
            })),
        }
    }
}

/// The same call to whichever it is.
macro_rules! either {
    ($any:ident, $of:expr, $inner:ident => $call:expr) => {
        match $of {
            $any::Qemu($inner) => $call,
            $any::Raw($inner) => $call,
        }
    };
}

impl Source for AnySource {
    type Capture = AnyCapture;

    async fn checks(&mut self) -> Vec<Check> {
        either!(Self, self, source => source.checks().await)
    }

    async fn sizes(&mut self) -> Result<Vec<ByteCount>, SourceError> {
        either!(Self, self, source => source.sizes().await)
    }

    async fn attach(
        &mut self,
        identity: TrackingIdentity,
        replica: ReplicaState,
    ) -> Result<Tracking, SourceError> {
        either!(Self, self, source => source.attach(identity, replica).await)
    }

    async fn begin_scan(&mut self, next: Sequence) -> Result<(), SourceError> {
        either!(Self, self, source => source.begin_scan(next).await)
    }

    async fn begin(&mut self, kind: CaptureKind, next: Sequence) -> Result<AnyCapture, SourceError> {
        match self {
            Self::Qemu(source) => source.begin(kind, next).await.map(AnyCapture::Qemu),
            Self::Raw(source) => source.begin(kind, next).await.map(AnyCapture::Raw),
        }
    }

    async fn begin_application_consistent(&mut self, next: Sequence) -> Result<AnyCapture, SourceError> {
        match self {
            Self::Qemu(source) => source
                .begin_application_consistent(next)
                .await
                .map(AnyCapture::Qemu),
            Self::Raw(source) => source
                .begin_application_consistent(next)
                .await
                .map(AnyCapture::Raw),
        }
    }

    async fn begin_together(
        &mut self,
        kind: CaptureKind,
        next: Sequence,
        participant: Participant,
    ) -> Result<AnyCapture, SourceError> {
        match self {
            Self::Qemu(source) => source
                .begin_together(kind, next, participant)
                .await
                .map(AnyCapture::Qemu),
            Self::Raw(source) => source
                .begin_together(kind, next, participant)
                .await
                .map(AnyCapture::Raw),
        }
    }

    async fn finish(&mut self, capture: AnyCapture, outcome: Outcome) -> Result<(), SourceError> {
        match (self, capture) {
            (Self::Qemu(source), AnyCapture::Qemu(capture)) => source.finish(capture, outcome).await,
            (Self::Raw(source), AnyCapture::Raw(capture)) => source.finish(capture, outcome).await,
            (Self::Qemu(_), AnyCapture::Raw(capture)) => Err(strange(&capture)),
            (Self::Raw(_), AnyCapture::Qemu(capture)) => Err(strange(&capture)),
        }
    }

    async fn backlog(&mut self) -> Result<ByteCount, SourceError> {
        either!(Self, self, source => source.backlog().await)
    }

    async fn detach(&mut self) -> Result<(), SourceError> {
        either!(Self, self, source => source.detach().await)
    }
}

/// Sources are not exchanged while they are captured.
fn strange(capture: &impl Capture) -> SourceError {
    SourceError::TrackingLost {
        vm: String::new(),
        why: format!(
            "a capture of {} was finished at a source of another kind",
            capture.captured_at().to_rfc3339()
        ),
    }
}

impl Capture for AnyCapture {
    fn volumes(&self) -> &[CapturedVolume] {
        either!(Self, self, capture => capture.volumes())
    }

    fn captured_at(&self) -> WallTime {
        either!(Self, self, capture => capture.captured_at())
    }

    fn consistency(&self) -> Consistency {
        either!(Self, self, capture => capture.consistency())
    }

    fn accord(&self) -> Option<Accord> {
        either!(Self, self, capture => capture.accord())
    }

    fn held(&self) -> Duration {
        either!(Self, self, capture => capture.held())
    }

    fn knows_changes(&self) -> bool {
        either!(Self, self, capture => capture.knows_changes())
    }

    async fn confirm(&self) -> Result<(), SourceError> {
        either!(Self, self, capture => capture.confirm().await)
    }

    fn holds_all(&self) -> bool {
        either!(Self, self, capture => capture.holds_all())
    }

    async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, SourceError> {
        either!(Self, self, capture => capture.read(volume, extent).await)
    }
}

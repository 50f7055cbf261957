//! A source whose disks have places in a chain: what it captures is told by place, not by the machine's order.

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{ByteCount, Extent, Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{
    Accord, Capture, CaptureKind, CapturedVolume, Check, Consistency, Outcome, Participant, ReplicaState,
    Source, SourceError, Tracking, TrackingIdentity,
};

/// A source and the places of its disks.
pub(crate) struct PlacedSource<S> {
    inner: S,
    /// Of each disk, in the machine's order.
    places: Vec<VolumeIndex>,
}

/// A capture of it.
pub(crate) struct PlacedCapture<C> {
    inner: C,
    places: Vec<VolumeIndex>,
    /// By place, in ascending order.
    volumes: Vec<CapturedVolume>,
}

impl<S: Source> PlacedSource<S> {
    /// A source whose disks have the places of the machine's order, until others are told.
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            places: Vec::new(),
        }
    }

    /// The disks have these places from now on.
    pub(crate) fn place(&mut self, places: &[VolumeIndex]) {
        places.clone_into(&mut self.places);
    }

    /// The source itself.
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }

    fn placed(&self, capture: S::Capture) -> PlacedCapture<S::Capture> {
        let place = |captured: &CapturedVolume| {
            let index = self.places.get(captured.index.as_usize()).copied();
            CapturedVolume {
                index: index.unwrap_or(captured.index),
                ..captured.clone()
            }
        };
        let mut volumes: Vec<_> = capture.volumes().iter().map(place).collect();
        volumes.sort_by_key(|captured| captured.index);
        PlacedCapture {
            inner: capture,
            places: self.places.clone(),
            volumes,
        }
    }
}

impl<S: Source> Source for PlacedSource<S> {
    type Capture = PlacedCapture<S::Capture>;

    async fn checks(&mut self) -> Vec<Check> {
        self.inner.checks().await
    }

    async fn sizes(&mut self) -> Result<Vec<ByteCount>, SourceError> {
        self.inner.sizes().await
    }

    async fn attach(
        &mut self,
        identity: TrackingIdentity,
        replica: ReplicaState,
    ) -> Result<Tracking, SourceError> {
        self.inner.attach(identity, replica).await
    }

    async fn begin_scan(&mut self, next: Sequence) -> Result<(), SourceError> {
        self.inner.begin_scan(next).await
    }

    async fn begin(&mut self, kind: CaptureKind, next: Sequence) -> Result<Self::Capture, SourceError> {
        let capture = self.inner.begin(kind, next).await?;
        Ok(self.placed(capture))
    }

    async fn begin_application_consistent(&mut self, next: Sequence) -> Result<Self::Capture, SourceError> {
        let capture = self.inner.begin_application_consistent(next).await?;
        Ok(self.placed(capture))
    }

    async fn begin_together(
        &mut self,
        kind: CaptureKind,
        next: Sequence,
        participant: Participant,
    ) -> Result<Self::Capture, SourceError> {
        let capture = self.inner.begin_together(kind, next, participant).await?;
        Ok(self.placed(capture))
    }

    async fn finish(&mut self, capture: Self::Capture, outcome: Outcome) -> Result<(), SourceError> {
        self.inner.finish(capture.inner, outcome).await
    }

    async fn backlog(&mut self) -> Result<ByteCount, SourceError> {
        self.inner.backlog().await
    }

    async fn detach(&mut self) -> Result<(), SourceError> {
        self.inner.detach().await
    }
}

impl<C: Capture> Capture for PlacedCapture<C> {
    fn volumes(&self) -> &[CapturedVolume] {
        &self.volumes
    }

    fn captured_at(&self) -> WallTime {
        self.inner.captured_at()
    }

    fn consistency(&self) -> Consistency {
        self.inner.consistency()
    }

    fn accord(&self) -> Option<Accord> {
        self.inner.accord()
    }

    fn held(&self) -> Duration {
        self.inner.held()
    }

    fn knows_changes(&self) -> bool {
        self.inner.knows_changes()
    }

    async fn confirm(&self) -> Result<(), SourceError> {
        self.inner.confirm().await
    }

    fn holds_all(&self) -> bool {
        self.inner.holds_all()
    }

    async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, SourceError> {
        let place = self.places.iter().position(|place| *place == volume);
        let disk = place.and_then(|disk| u32::try_from(disk).ok());
        self.inner.read(disk.map_or(volume, VolumeIndex), extent).await
    }
}

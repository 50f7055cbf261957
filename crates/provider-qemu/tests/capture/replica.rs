//! The obvious model: disks as byte vectors, and a target that applies what captures give.

use farshore_blocks::{ByteCount, ChainId, Extent, Incarnation, Sequence};
use farshore_provider::{
    Capture, CaptureKind, Outcome, ReplicaState, ScanState, Source, SourceError, StateOfBytes, Tracking,
    TrackingIdentity,
};
use farshore_provider_qemu::{QemuCapture, QemuSource};

use crate::vm::{DISK_BYTES, Kind, Vm};

pub(crate) const IDENTITY: TrackingIdentity = TrackingIdentity {
    vault: Incarnation::from_bytes([0xa1; 16]),
    chain: ChainId::from_bytes([0xc2; 16]),
};

/// A disk of either kind.
pub(crate) const PAIR: &[Kind] = &[Kind::Raw, Kind::Qcow2];

pub(crate) type Disks = Vec<Vec<u8>>;

/// What the guest's disks hold now, and how to change it.
pub(crate) struct Model {
    pub(crate) disks: Disks,
    random: u64,
}

impl Model {
    pub(crate) fn new(disks: usize) -> Self {
        Self {
            disks: vec![vec![0; DISK_BYTES]; disks],
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Some writes, a zeroing and a discard, at random places of every disk.
    pub(crate) async fn scribble(&mut self, vm: &Vm) {
        for disk in 0..self.disks.len() {
            for _ in 0..2 {
                let pattern = u8::try_from(self.random(255) + 1).unwrap();
                let (start, length) = self.place();
                vm.qemu_io(disk, &format!("write -P {pattern} {start} {length}"))
                    .await;
                self.disks[disk][start..start + length].fill(pattern);
            }
            let (start, length) = self.place();
            vm.zero(disk, start, length).await;
            self.disks[disk][start..start + length].fill(0);
        }
    }

    fn place(&mut self) -> (usize, usize) {
        let sectors = u64::try_from(DISK_BYTES / 512).unwrap();
        let length = 1 + self.random(150);
        let start = self.random(sectors - length);
        (
            usize::try_from(start * 512).unwrap(),
            usize::try_from(length * 512).unwrap(),
        )
    }
}

/// The target: sealed disks, and what an open scan gave so far.
pub(crate) struct Target {
    pub(crate) newest: Sequence,
    pub(crate) sealed: Disks,
    pub(crate) scan: Option<Disks>,
    /// Whether the scan was read to its end, as a watermark would say.
    pub(crate) scanned: bool,
}

impl Target {
    pub(crate) fn new(disks: usize) -> Self {
        Self {
            newest: Sequence(0),
            sealed: vec![vec![0; DISK_BYTES]; disks],
            scan: None,
            scanned: false,
        }
    }

    pub(crate) fn state(&self) -> ReplicaState {
        ReplicaState {
            newest: self.newest,
            sizes: Vec::new(),
            scan: if self.scan.is_some() {
                ScanState::Open
            } else {
                ScanState::None
            },
        }
    }

    /// Opens a scan afresh; what another one held is dropped. Poison, so that what a scan forgets is seen.
    pub(crate) fn open_scan(&mut self) {
        self.scan = Some(vec![vec![0xee; DISK_BYTES]; self.sealed.len()]);
        self.scanned = false;
    }

    pub(crate) fn seal(&mut self, disks: Disks) {
        self.sealed = disks;
        self.scan = None;
        self.newest = self.newest.next();
    }

    /// What the target would hold with this capture.
    pub(crate) async fn with(&self, capture: &QemuCapture) -> Result<Disks, SourceError> {
        let mut disks = self.scan.clone().unwrap_or_else(|| self.sealed.clone());
        for (volume, disk) in capture.volumes().iter().zip(&mut disks) {
            assert_eq!(volume.size, ByteCount(DISK_BYTES as u64));
            for stated in &volume.extents {
                let range = usize_range(stated.extent);
                match stated.state {
                    StateOfBytes::Zero => disk[range].fill(0),
                    StateOfBytes::Data => {
                        for piece in stated.extent.pieces(ByteCount(100_000)) {
                            let bytes = capture.read(volume.index, piece).await?;
                            disk[usize_range(piece)].copy_from_slice(&bytes);
                        }
                    }
                }
            }
        }
        Ok(disks)
    }

    /// A live capture, from begin to finish.
    pub(crate) async fn live(
        &mut self,
        source: &mut QemuSource,
        kind: CaptureKind,
    ) -> Result<(), SourceError> {
        let capture = source.begin(kind, self.newest.next()).await?;
        let disks = self.with(&capture).await?;
        self.scan = Some(disks);
        self.scanned = true;
        source.finish(capture, Outcome::Done).await
    }

    /// An instant, from begin to finish; the guest writes on while it is read. Gives what was true at the instant.
    pub(crate) async fn instant(
        &mut self,
        source: &mut QemuSource,
        vm: &Vm,
        model: &mut Model,
    ) -> Result<(), SourceError> {
        let capture = source.begin(CaptureKind::Instant, self.newest.next()).await?;
        let then = model.disks.clone();
        model.scribble(vm).await;
        let disks = self.with(&capture).await?;
        assert_equal(&disks, &then);
        self.seal(disks);
        source.finish(capture, Outcome::Done).await
    }

    /// A scan from the beginning, a round and an instant, with a guest that writes all the while.
    pub(crate) async fn initial(
        &mut self,
        source: &mut QemuSource,
        vm: &Vm,
        model: &mut Model,
    ) -> Result<(), SourceError> {
        self.open_scan();
        source.begin_scan(self.newest.next()).await?;
        self.live(source, CaptureKind::Scan).await?;
        self.rest_of_scan(source, vm, model).await
    }

    pub(crate) async fn rest_of_scan(
        &mut self,
        source: &mut QemuSource,
        vm: &Vm,
        model: &mut Model,
    ) -> Result<(), SourceError> {
        model.scribble(vm).await;
        self.live(source, CaptureKind::Round).await?;
        model.scribble(vm).await;
        self.instant(source, vm, model).await
    }

    /// Goes on from whatever tracking is good for.
    pub(crate) async fn resume(
        &mut self,
        source: &mut QemuSource,
        vm: &Vm,
        model: &mut Model,
        tracking: &Tracking,
    ) -> Result<(), SourceError> {
        match tracking {
            Tracking::SincePoint => {
                self.scan = None;
                self.instant(source, vm, model).await
            }
            Tracking::SinceScan => {
                if !self.scanned {
                    self.live(source, CaptureKind::Scan).await?;
                }
                self.rest_of_scan(source, vm, model).await
            }
            Tracking::Lost { .. } => self.initial(source, vm, model).await,
        }
    }
}

fn usize_range(extent: Extent) -> std::ops::Range<usize> {
    usize::try_from(extent.start().0).unwrap()..usize::try_from(extent.end().0).unwrap()
}

pub(crate) fn assert_equal(found: &Disks, expected: &Disks) {
    for (disk, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found != expected {
            let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap();
            panic!(
                "disk {disk} differs first at {at:#x}: {} instead of {}",
                found[at], expected[at]
            );
        }
    }
}

/// A protected VM with one sealed point and changes since.
pub(crate) async fn protected(kinds: &[Kind]) -> (Vm, Model, Target) {
    let vm = Vm::start(kinds).await;
    let (mut model, mut target) = (Model::new(kinds.len()), Target::new(kinds.len()));
    model.scribble(&vm).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    target.initial(&mut source, &vm, &mut model).await.unwrap();
    model.scribble(&vm).await;
    (vm, model, target)
}

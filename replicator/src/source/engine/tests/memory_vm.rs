//! A VM whose disks are in memory: exact tracking, instants that are remembered, and reads that see live bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use farshore_blocks::{ByteCount, ByteOffset, Extent, Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{
    Capture, CaptureKind, CapturedVolume, Check, Outcome, ReplicaState, ScanState, Source, SourceError,
    StateOfBytes, StatedExtent, Tracking, TrackingIdentity,
};
use tokio::sync::watch;

const BLOCK: usize = 4096;

type Disks = Vec<Vec<u8>>;
type Dirty = BTreeSet<(usize, usize)>;

pub(super) struct MemoryVm {
    inner: Mutex<Inner>,
    seed: AtomicU64,
    /// How many live rounds ended well.
    rounds: watch::Sender<u64>,
    /// Zeroes are told from data only by who reads them.
    hides_zeroes: AtomicBool,
}

struct Inner {
    disks: Disks,
    /// What changed since the bitmap of this name began; as QEMU would keep it across our crashes.
    bitmaps: BTreeMap<Bitmap, Dirty>,
    instants: BTreeMap<Sequence, Vec<Disks>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bitmap {
    Since(Sequence),
    Scan(Sequence),
}

impl MemoryVm {
    pub(super) fn new(disk_bytes: usize) -> Arc<Self> {
        let inner = Inner {
            disks: vec![vec![0; disk_bytes]; 2],
            bitmaps: BTreeMap::new(),
            instants: BTreeMap::new(),
        };
        let vm = Arc::new(Self {
            inner: Mutex::new(inner),
            seed: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
            rounds: watch::Sender::new(0),
            hides_zeroes: AtomicBool::new(false),
        });
        vm.write_randomly(30);
        vm
    }

    pub(super) fn write_randomly(&self, writes: usize) {
        for _ in 0..writes {
            let disk = usize::try_from(self.random() % 2).unwrap();
            let blocks = self.lock().disks[disk].len() / BLOCK;
            let block = usize::try_from(self.random()).unwrap() % blocks;
            let fill = u8::try_from(self.random() % 255).unwrap() + 1;
            self.write(disk, block, fill);
        }
    }

    pub(super) fn fill(&self) {
        let blocks = self.lock().disks[0].len() / BLOCK;
        for disk in 0..2 {
            for block in 0..blocks {
                self.write(disk, block, u8::try_from((block + disk) % 255).unwrap() + 1);
            }
        }
    }

    /// Of each disk.
    pub(super) fn disk_bytes(&self) -> usize {
        self.lock().disks[0].len()
    }

    /// Overwrites everything with bytes that cannot be compressed.
    pub(super) fn fill_with_noise(&self) {
        let mut inner = self.lock();
        let Inner { disks, bitmaps, .. } = &mut *inner;
        for (disk, bytes) in disks.iter_mut().enumerate() {
            for (block, bytes) in bytes.chunks_mut(BLOCK).enumerate() {
                for word in bytes.chunks_mut(8) {
                    word.copy_from_slice(&self.random().to_le_bytes());
                }
                for dirty in bitmaps.values_mut() {
                    dirty.insert((disk, block));
                }
            }
        }
    }

    /// Waits for this many live rounds, while the guest writes to the second disk faster than tests ship.
    pub(super) async fn write_until_rounds(&self, rounds: u64) {
        let mut ended = self.rounds.subscribe();
        while *ended.borrow_and_update() < rounds {
            for block in 0..200 {
                self.write(1, block, u8::try_from(self.random() % 255).unwrap() + 1);
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), ended.changed()).await;
        }
    }

    /// As a disk of which the file system knows no holes.
    pub(super) fn hide_zeroes(&self) {
        self.hides_zeroes.store(true, Ordering::Relaxed);
    }

    pub(super) fn zero_something(&self) {
        for block in 10..40 {
            self.write(1, block, 0);
        }
    }

    pub(super) fn grow(&self, disk: usize, blocks: usize) {
        let mut inner = self.lock();
        let bytes = inner.disks[disk].len() + blocks * BLOCK;
        inner.disks[disk].resize(bytes, 0);
    }

    /// Another disk of so many blocks, full of data.
    pub(super) fn add_disk(&self, blocks: usize) {
        self.lock().disks.push(vec![0x5a; blocks * BLOCK]);
    }

    pub(super) fn lose_tracking(&self) {
        self.lock().bitmaps.clear();
    }

    /// The disks at every instant that was captured towards this point.
    pub(super) fn instants(&self, sequence: Sequence) -> Vec<Disks> {
        self.lock().instants.get(&sequence).cloned().unwrap_or_default()
    }

    pub(super) fn write_behind_the_trackings_back(&self, disk: usize, block: usize, fill: u8) {
        self.lock().disks[disk][block * BLOCK..(block + 1) * BLOCK].fill(fill);
    }

    pub(super) fn disks(&self) -> Disks {
        self.lock().disks.clone()
    }

    pub(super) fn write(&self, disk: usize, block: usize, fill: u8) {
        let mut inner = self.lock();
        inner.disks[disk][block * BLOCK..(block + 1) * BLOCK].fill(fill);
        for dirty in inner.bitmaps.values_mut() {
            dirty.insert((disk, block));
        }
    }

    fn random(&self) -> u64 {
        let mut x = self.seed.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.store(x, Ordering::Relaxed);
        x
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

pub(super) struct MemorySource {
    vm: Arc<MemoryVm>,
    current: Option<Bitmap>,
    /// Which of the VM's disks are declared, in the machine's order.
    declared: Vec<usize>,
    /// How large each was when all of it was last taken along.
    known: Vec<usize>,
}

pub(super) struct MemoryCapture {
    vm: Arc<MemoryVm>,
    frozen: Option<Disks>,
    volumes: Vec<CapturedVolume>,
    declared: Vec<usize>,
    captured_at: WallTime,
    /// What it took out of tracking, to be put back should it fail.
    old: Option<(Bitmap, Dirty)>,
    new: Bitmap,
}

impl MemorySource {
    pub(super) fn new(vm: Arc<MemoryVm>) -> Self {
        Self::declaring(vm, vec![0, 1])
    }

    pub(super) fn declaring(vm: Arc<MemoryVm>, declared: Vec<usize>) -> Self {
        Self {
            vm,
            current: None,
            known: Vec::new(),
            declared,
        }
    }

    fn lengths(&self) -> Vec<usize> {
        let inner = self.vm.lock();
        self.declared
            .iter()
            .map(|disk| inner.disks[*disk].len())
            .collect()
    }

    /// What lies behind what is known of each disk counts as changed.
    fn with_grown(&self, disks: &Disks, dirty: &Dirty) -> Dirty {
        let mut all = dirty.clone();
        for (disk, known) in self.declared.iter().zip(&self.known) {
            all.extend((known / BLOCK..disks[*disk].len() / BLOCK).map(|block| (*disk, block)));
        }
        all
    }
}

impl Source for MemorySource {
    type Capture = MemoryCapture;

    async fn checks(&mut self) -> Vec<Check> {
        Vec::new()
    }

    async fn attach(
        &mut self,
        _identity: TrackingIdentity,
        replica: ReplicaState,
    ) -> Result<Tracking, SourceError> {
        self.known = self.lengths();
        for (known, sealed) in self.known.iter_mut().zip(&replica.sizes) {
            *known = usize::try_from(sealed.0).unwrap();
        }
        let mut inner = self.vm.lock();
        let since = Bitmap::Since(replica.newest);
        let scan = Bitmap::Scan(replica.newest.next());
        // Later bitmaps are parts of an unsealed cycle: they go into the one that it was built on.
        let wanted = if inner.bitmaps.contains_key(&since) {
            since
        } else if replica.scan == ScanState::Open && inner.bitmaps.contains_key(&scan) {
            scan
        } else {
            inner.bitmaps.clear();
            return Ok(Tracking::Lost {
                why: "there is no bitmap".to_owned(),
            });
        };
        let newer: Dirty = match inner.bitmaps.get(&Bitmap::Since(replica.newest.next())) {
            Some(dirty) => dirty.clone(),
            None => Dirty::new(),
        };
        let mut kept = inner.bitmaps.remove(&wanted).unwrap();
        kept.extend(newer);
        inner.bitmaps = BTreeMap::from([(wanted, kept)]);
        self.current = Some(wanted);
        Ok(if wanted == since {
            Tracking::SincePoint
        } else {
            Tracking::SinceScan
        })
    }

    async fn begin_scan(&mut self, next: Sequence) -> Result<(), SourceError> {
        let bitmap = Bitmap::Scan(next);
        self.vm.lock().bitmaps = BTreeMap::from([(bitmap, Dirty::new())]);
        self.current = Some(bitmap);
        Ok(())
    }

    async fn begin(&mut self, kind: CaptureKind, next: Sequence) -> Result<MemoryCapture, SourceError> {
        let mut inner = self.vm.lock();
        let captured_at = WallTime::now();
        let current = self.current.unwrap();
        let (volumes, frozen, new) = match kind {
            // Where a point is known, only what is in none yet is scanned.
            CaptureKind::Scan => {
                let in_scan = matches!(current, Bitmap::Scan(_));
                let scanned = |place: usize| in_scan || self.known[place] == 0;
                let hidden = self.vm.hides_zeroes.load(Ordering::Relaxed);
                let zeroes = if hidden {
                    StateOfBytes::Data
                } else {
                    StateOfBytes::Zero
                };
                (
                    whole(&inner.disks, (&self.declared, zeroes), scanned),
                    None,
                    current,
                )
            }
            CaptureKind::Round => {
                let dirty = self.with_grown(&inner.disks, &inner.bitmaps[&current]);
                (changed(&inner.disks, &self.declared, &dirty), None, current)
            }
            CaptureKind::Instant | CaptureKind::WholeInstant => {
                let disks = inner.disks.clone();
                inner.instants.entry(next).or_default().push(disks.clone());
                let dirty = self.with_grown(&inner.disks, &inner.bitmaps[&current]);
                (
                    changed(&inner.disks, &self.declared, &dirty),
                    Some(disks),
                    Bitmap::Since(next),
                )
            }
        };
        // The scan leaves its bitmap recording; the others begin a new one and keep the old one until they end.
        let old = (kind != CaptureKind::Scan).then(|| (current, inner.bitmaps[&current].clone()));
        match kind {
            CaptureKind::Scan => {}
            CaptureKind::Round => {
                inner.bitmaps.insert(current, Dirty::new());
            }
            CaptureKind::Instant | CaptureKind::WholeInstant => {
                inner.bitmaps.insert(new, Dirty::new());
            }
        }
        Ok(MemoryCapture {
            vm: Arc::clone(&self.vm),
            frozen,
            volumes,
            declared: self.declared.clone(),
            captured_at,
            old,
            new,
        })
    }

    async fn finish(&mut self, capture: MemoryCapture, outcome: Outcome) -> Result<(), SourceError> {
        if outcome == Outcome::Done {
            let taken = capture.volumes.iter().zip(&mut self.known);
            for (volume, known) in
                taken.filter(|(volume, _)| capture.old.is_some() || !volume.extents.is_empty())
            {
                *known = usize::try_from(volume.size.0).unwrap();
            }
        }
        let mut inner = self.vm.lock();
        let Some((old, dirty)) = capture.old else {
            return Ok(());
        };
        match outcome {
            Outcome::Done => {
                if capture.frozen.is_none() {
                    self.vm.rounds.send_modify(|rounds| *rounds += 1);
                }
                if old != capture.new {
                    inner.bitmaps.remove(&old);
                }
                self.current = Some(capture.new);
            }
            Outcome::Failed => {
                let newer = inner.bitmaps.remove(&capture.new).unwrap_or_default();
                let kept = inner.bitmaps.entry(old).or_default();
                kept.extend(newer);
                kept.extend(dirty);
                self.current = Some(old);
            }
        }
        Ok(())
    }

    async fn begin_application_consistent(&mut self, next: Sequence) -> Result<MemoryCapture, SourceError> {
        self.begin(CaptureKind::Instant, next).await
    }

    async fn backlog(&mut self) -> Result<ByteCount, SourceError> {
        let inner = self.vm.lock();
        let dirty = self.with_grown(&inner.disks, &inner.bitmaps[&self.current.unwrap()]);
        Ok(ByteCount((dirty.len() * BLOCK) as u64))
    }

    async fn sizes(&mut self) -> Result<Vec<ByteCount>, SourceError> {
        let lengths = self.lengths();
        Ok(lengths
            .into_iter()
            .map(|length| ByteCount(length as u64))
            .collect())
    }

    async fn detach(&mut self) -> Result<(), SourceError> {
        self.vm.lock().bitmaps.clear();
        Ok(())
    }
}

impl Capture for MemoryCapture {
    fn volumes(&self) -> &[CapturedVolume] {
        &self.volumes
    }

    fn captured_at(&self) -> WallTime {
        self.captured_at
    }

    fn held(&self) -> Duration {
        Duration::ZERO
    }

    fn holds_all(&self) -> bool {
        self.frozen.is_some()
    }

    async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, SourceError> {
        let start = usize::try_from(extent.start().0).unwrap();
        let end = usize::try_from(extent.end().0).unwrap();
        let live = self.vm.lock();
        let disks = self.frozen.as_ref().unwrap_or(&live.disks);
        Ok(Bytes::copy_from_slice(
            &disks[self.declared[volume.as_usize()]][start..end],
        ))
    }
}

fn block_extent(block: usize, blocks: usize) -> Extent {
    let bytes = |count: usize| u64::try_from(count * BLOCK).unwrap();
    Extent::new(ByteOffset(bytes(block)), ByteCount(bytes(blocks))).unwrap()
}

fn volume(index: usize, disk: &[u8], extents: Vec<StatedExtent>) -> CapturedVolume {
    let index = VolumeIndex(u32::try_from(index).unwrap());
    CapturedVolume {
        index,
        size: ByteCount(disk.len() as u64),
        extents,
    }
}

fn whole(
    disks: &Disks,
    (declared, zeroes): (&[usize], StateOfBytes),
    scanned: impl Fn(usize) -> bool,
) -> Vec<CapturedVolume> {
    let states = |disk: &Vec<u8>| -> Vec<StatedExtent> {
        disk.chunks(BLOCK)
            .enumerate()
            .map(|(block, bytes)| {
                let zero = bytes.iter().all(|byte| *byte == 0);
                let state = if zero { zeroes } else { StateOfBytes::Data };
                StatedExtent {
                    extent: block_extent(block, 1),
                    state,
                }
            })
            .collect()
    };
    declared
        .iter()
        .enumerate()
        .map(|(place, index)| {
            let extents = if scanned(place) {
                states(&disks[*index])
            } else {
                Vec::new()
            };
            volume(place, &disks[*index], extents)
        })
        .collect()
}

fn changed(disks: &Disks, declared: &[usize], dirty: &Dirty) -> Vec<CapturedVolume> {
    let of = |index: usize| -> Vec<StatedExtent> {
        dirty
            .iter()
            .filter(|(disk, _)| *disk == index)
            .map(|(_, block)| StatedExtent {
                extent: block_extent(*block, 1),
                state: StateOfBytes::Data,
            })
            .collect()
    };
    declared
        .iter()
        .enumerate()
        .map(|(place, index)| volume(place, &disks[*index], of(*index)))
        .collect()
}

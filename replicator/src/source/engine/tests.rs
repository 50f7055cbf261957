//! The engine against a real target over real sockets, with disks in memory and a wire that can be cut.

mod changing_disks;
mod fairness;
mod lying_target;
mod memory_vm;
mod offered;
mod seeds;
mod several_connections;
mod wire_cutter;
mod zeroes;

use std::{path::Path, sync::Arc, time::Duration};

use farshore_blocks::{ByteCount, ByteOffset, ChainId, Epoch, HolderNonce, Sequence, VolumeIndex};
use farshore_provider::MachineSpecification;
use farshore_transfer::Bounds;
use farshore_vault::{ChainDescription, PointRecord, Vault, VolumeDescription};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use memory_vm::{MemorySource, MemoryVm};
use wire_cutter::WireCutter;

use super::*;
use crate::{
    assignment::{AssignedVolume, SourcePlace, Standing},
    source::Offers,
    target::Targets,
};

const DISK_BYTES: usize = 3 * 1024 * 1024;
const WINDOWS: Bounds = Bounds {
    total: ByteCount(64 << 20),
    least: ByteCount(2 << 20),
    most: ByteCount(32 << 20),
};
const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
const SOURCE: HolderNonce = HolderNonce::from_bytes([1; 16]);
const DEADLINE: Duration = Duration::from_secs(60);

struct Target {
    targets: Targets,
    endpoint: String,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Target {
    async fn start(directory: &Path) -> Self {
        let targets = Self::open(directory);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(crate::listening::serve_at(
            listener,
            targets.clone(),
            stop.clone(),
        ));
        Self {
            targets,
            endpoint,
            stop,
            serving,
        }
    }

    fn open(directory: &Path) -> Targets {
        let path = directory.join("vault");
        let vault = Vault::open(&path).or_else(|_| Vault::create(&path)).unwrap();
        Targets::open(vault, &directory.join("target")).unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }

    fn prepare(&self) -> Epoch {
        self.prepare_of(DISK_BYTES)
    }

    /// With disks so large.
    fn prepare_of(&self, disk_bytes: usize) -> Epoch {
        self.prepare_chain(CHAIN, "vm", disk_bytes)
    }

    fn prepare_chain(&self, chain: ChainId, vm: &str, disk_bytes: usize) -> Epoch {
        let volume = |name: &str| VolumeDescription {
            name: name.to_owned(),
            size: ByteCount(disk_bytes as u64),
        };
        let description = ChainDescription {
            vm: vm.to_owned(),
            volumes: vec![volume("root"), volume("data")],
        };
        self.targets.prepare(chain, &description, SOURCE).unwrap()
    }

    fn disks_at(&self, sequence: Sequence) -> Vec<Vec<u8>> {
        let point = self.targets.reader().open_point(CHAIN, sequence).unwrap();
        (0..)
            .zip(point.volumes())
            .map(|(volume, described)| {
                let mut disk = vec![0; usize::try_from(described.size.0).unwrap()];
                point
                    .read_at(VolumeIndex(volume), ByteOffset(0), &mut disk)
                    .unwrap();
                disk
            })
            .collect()
    }

    fn point(&self, sequence: Sequence) -> PointRecord {
        let points = self.targets.reader().points(CHAIN).unwrap();
        points
            .into_iter()
            .find(|point| point.sequence == sequence)
            .unwrap()
    }

    fn newest(&self) -> Option<Sequence> {
        self.targets
            .reader()
            .points(CHAIN)
            .unwrap()
            .last()
            .map(|point| point.sequence)
    }
}

fn assignment(endpoint: &str, epoch: Epoch) -> Assignment {
    let volume = |name: &str| AssignedVolume {
        name: name.to_owned(),
        size: ByteCount(DISK_BYTES as u64),
    };
    let machine = serde_json::json!({
        "vm": "vm", "uuid": null, "processors": 1, "memory": 1024, "firmware": "bios",
        "machineType": "pc", "nics": [],
        "disks": [{"name": "root", "device": "a", "bus": "virtioBlk"},
                  {"name": "data", "device": "b", "bus": "virtioBlk"}],
    });
    Assignment {
        chain: CHAIN,
        epoch,
        standing: Standing::Enabled,
        machine: serde_json::from_value::<MachineSpecification>(machine).unwrap(),
        place: SourcePlace::Monitor("unused".into()),
        target_endpoint: format!("http://{endpoint}"),
        interval: Duration::from_millis(20),
        bandwidth: None,
        link: None,
        audit_rate: ByteCount(0),
        guest_cost_limit_percent: 0,
        app_consistency: None,
        guest_agent: None,
        membership: None,
        volumes: vec![volume("root"), volume("data")],
    }
}

/// What the VMs of a replicator share.
struct Shared {
    packers: Packers,
    links: LinkPaces,
    windows: Shares,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            packers: Packers::new(),
            links: LinkPaces::default(),
            windows: Shares::within(WINDOWS),
        }
    }
}

struct Running {
    metrics: Metrics,
    state: watch::Receiver<SourceState>,
    stop: CancellationToken,
    task: JoinHandle<(Ended, MemorySource)>,
}

impl Running {
    fn start(vm: &Arc<MemoryVm>, assignment: Assignment) -> Self {
        Self::start_of(MemorySource::new(Arc::clone(vm)), assignment)
    }

    fn start_of(source: MemorySource, assignment: Assignment) -> Self {
        let reach = Reach::of(&assignment, &Offers::default());
        Self::start_reaching(source, assignment, reach)
    }

    fn start_reaching(source: MemorySource, assignment: Assignment, reach: Reach) -> Self {
        Self::start_sharing(source, (assignment, reach), &Shared::default())
    }

    fn start_sharing(
        source: MemorySource,
        (assignment, reach): (Assignment, Reach),
        shared: &Shared,
    ) -> Self {
        let (sender, state) = watch::channel(SourceState::new(SourcePhase::Connecting));
        let stop = CancellationToken::new();
        let metrics = Metrics::new().unwrap();
        let engine = Engine {
            source: PlacedSource::new(source),
            reach,
            state: sender,
            metrics: metrics.clone(),
            packers: shared.packers.clone(),
            links: shared.links.clone(),
            windows: shared.windows.clone(),
            stop: stop.clone(),
            audit: Audit::new(assignment.audit_rate),
            application_points: ApplicationPoints::new(assignment.app_consistency),
            place: None,
            assignment,
            replica: None,
            scan_acknowledged: None,
        };
        Self {
            metrics,
            state,
            stop,
            task: tokio::spawn(engine.run()),
        }
    }

    async fn until(&mut self, what: &str, reached: impl FnMut(&SourceState) -> bool) -> SourceState {
        if let Ok(state) = tokio::time::timeout(DEADLINE, self.state.wait_for(reached)).await {
            return state.unwrap().clone();
        }
        panic!("not reached: {what}; {:?}", *self.state.borrow())
    }

    async fn point(&mut self, at_least: u64) {
        self.until("a point", |state| {
            state
                .newest
                .is_some_and(|point| point.sequence >= Sequence(at_least))
        })
        .await;
    }

    /// The value of a series, which begins with this.
    fn metric(&self, series: &str) -> f64 {
        let rendered = self.metrics.render().unwrap();
        let line = rendered.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    async fn stop(self) -> Ended {
        self.stop.cancel();
        self.task.await.unwrap().0
    }
}

/// Every point that the target lists is what the disks were at its instant.
fn assert_every_point_is_true(target: &Target, vm: &MemoryVm) {
    let newest = target.newest().unwrap();
    for sequence in 1..=newest.0 {
        let instants = vm.instants(Sequence(sequence));
        let disks = target.disks_at(Sequence(sequence));
        assert!(
            instants.contains(&disks),
            "point {sequence} is no instant of the source"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_equals_the_disks_at_its_instant() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let mut running = Running::start(&vm, assignment(&target.endpoint, target.prepare()));
    for round in 1..=8 {
        running.point(round).await;
        vm.write_randomly(40);
    }
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_stay_true_whenever_the_wire_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    // Some connection carries even a whole message, when the changes of several rounds meet in one.
    let cutter = WireCutter::start(&target.endpoint, 230_000).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let mut running = Running::start(&vm, assignment(cutter.address(), target.prepare()));
    for round in 1..=6 {
        running.point(round).await;
        vm.write_randomly(100);
    }
    running.stop().await;
    assert!(cutter.cuts() >= 3, "the wire was cut {} times", cutter.cuts());
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_link_carries_is_compressed_and_every_point_stays_true() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let slow = Assignment {
        bandwidth: Some(ByteCount(2 * 1024 * 1024)),
        ..assignment(&target.endpoint, target.prepare())
    };
    let mut running = Running::start(&vm, slow);
    running.point(1).await;
    // By now it is known that the link is slow.
    vm.fill();
    for _ in 0..2 {
        running.point(target.newest().unwrap().0 + 1).await;
        vm.write_randomly(1);
    }
    let encoded = |encoding| {
        running.metric(&format!(
            "farshore_replicated_bytes_total{{encoding=\"{encoding}\",vm=\"vm\"}}"
        ))
    };
    let (raw, zstd) = (encoded("raw"), encoded("zstd"));
    let wire = running.metric("farshore_wire_bytes_total");
    let compressed = wire - raw;
    assert!(zstd > 1e6, "{zstd} bytes were compressed, {raw} were not");
    assert!(
        (1.0..zstd / 4.0).contains(&compressed),
        "{zstd} bytes became {compressed}"
    );
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_source_goes_on_with_the_scan_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let slow = Assignment {
        bandwidth: Some(ByteCount(4 * 1024 * 1024)),
        ..assignment(&target.endpoint, target.prepare())
    };
    let mut first = Running::start(&vm, slow.clone());
    let halfway = first
        .until("half the scan", |state| state.sync_done.0 > 2 * 1024 * 1024)
        .await;
    // As after kill -9: nothing is settled.
    first.task.abort();
    vm.write_randomly(20);
    let mut second = Running::start(&vm, slow);
    let resumed = second
        .until("the resumed scan", |state| {
            state.phase == SourcePhase::InitialSync && state.sync_total.0 > 0
        })
        .await;
    assert!(
        resumed.sync_done.0 > 1024 * 1024,
        "{} of {} kept",
        resumed.sync_done,
        halfway.sync_done
    );
    second.point(1).await;
    second.stop().await;
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_target_holds_every_point_and_replication_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let epoch = target.prepare();
    let cutter = WireCutter::start(&target.endpoint, u64::MAX).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let mut running = Running::start(&vm, assignment(cutter.address(), epoch));
    running.point(1).await;
    vm.write_randomly(10);
    let before = target.newest().unwrap();
    target.stop().await;
    let target = Target::start(directory.path()).await;
    cutter.redirect(&target.endpoint);
    vm.write_randomly(10);
    running.point(before.0 + 1).await;
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_source_is_refused_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let mut running = Running::start(&vm, assignment(&target.endpoint, target.prepare()));
    running.point(1).await;
    target
        .targets
        .fence(CHAIN, HolderNonce::from_bytes([9; 16]))
        .unwrap();
    let fenced_at = target.newest();
    vm.write_randomly(10);
    let state = running
        .until("the fence", |state| state.phase == SourcePhase::Fenced)
        .await;
    assert!(state.detail.contains("epoch"), "{}", state.detail);
    assert_eq!(running.stop().await, Ended::Fenced);
    assert_eq!(target.newest(), fenced_at, "nothing of the fenced source landed");
    let standing = target.targets.standings().remove(0).1;
    assert!(standing.refused_fenced >= 1);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tracking_that_was_lost_ends_in_a_true_point_again() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let assignment = assignment(&target.endpoint, target.prepare());
    let mut running = Running::start(&vm, assignment.clone());
    running.point(1).await;
    running.stop().await;
    vm.lose_tracking();
    vm.write_randomly(8);
    vm.zero_something();
    let before = target.newest().unwrap();
    let mut running = Running::start(&vm, assignment);
    running
        .until("a resync", |state| state.phase == SourcePhase::Resynchronizing)
        .await;
    running.point(before.0 + 1).await;
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    let resynced = target.point(before.next());
    let sent: u64 = resynced.changes.iter().map(|change| change.bytes.0).sum();
    assert!(
        (1..=16 * 65536).contains(&sent),
        "{sent} bytes were sent of what differs in nine places"
    );
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_goes_on_whenever_the_wire_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let epoch = target.prepare();
    let mut running = Running::start(&vm, assignment(&target.endpoint, epoch));
    running.point(1).await;
    running.stop().await;
    vm.lose_tracking();
    vm.write_randomly(100);
    let before = target.newest().unwrap();
    let cutter = WireCutter::start(&target.endpoint, 400_000).await;
    let mut running = Running::start(&vm, assignment(cutter.address(), epoch));
    running.point(before.0 + 1).await;
    running.stop().await;
    assert!(cutter.cuts() >= 3, "the wire was cut {} times", cutter.cuts());
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

/// Cuts the end off what the target has of the scan, as a snapshot of its disk that was put back would.
fn put_back(directory: &Path) {
    let segments = directory.join(format!("vault/chains/{CHAIN}/segments"));
    let segment = std::fs::read_dir(segments).unwrap().next().unwrap().unwrap();
    let file = std::fs::File::options().write(true).open(segment.path()).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_which_the_target_lost_what_it_acknowledged_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let cutter = WireCutter::start(&target.endpoint, u64::MAX).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let slow = Assignment {
        bandwidth: Some(ByteCount(4 * 1024 * 1024)),
        ..assignment(cutter.address(), target.prepare())
    };
    let mut running = Running::start(&vm, slow);
    running
        .until("most of the scan", |state| state.sync_done.0 > 4 * 1024 * 1024)
        .await;
    // The first round ships this, and from then on it is not tracked any more.
    vm.write(0, 0, 0xee);
    tokio::time::timeout(DEADLINE, vm.write_until_rounds(1))
        .await
        .expect("a round");
    assert_eq!(target.newest(), None, "the scan is not sealed yet");
    target.stop().await;
    put_back(directory.path());
    let target = Target::start(directory.path()).await;
    cutter.redirect(&target.endpoint);
    running.point(1).await;
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_tracking_did_not_see_is_found_and_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let audited = Assignment {
        audit_rate: ByteCount(1 << 30),
        ..assignment(&target.endpoint, target.prepare())
    };
    let mut running = Running::start(&vm, audited);
    running.until("a pass", |state| state.audit.passes > 0).await;
    vm.write_behind_the_trackings_back(1, 33, 0xaa);
    let found = running
        .until("the difference", |state| state.audit.mismatches > 0)
        .await;
    let mismatch = found.audit.last_mismatch.unwrap();
    assert_eq!(
        (mismatch.volume, mismatch.block.start().0),
        (VolumeIndex(1), 2 * 65536)
    );
    running.point(mismatch.point.0 + 1).await;
    let clean = running.until("a clean pass", |state| !state.audit.suspect).await;
    running.stop().await;
    assert_eq!(clean.audit.mismatches, 1, "it is repaired once");
    let disks = target.disks_at(target.newest().unwrap());
    assert!(disks == vm.disks(), "the newest point has the edit");
    target.stop().await;
}

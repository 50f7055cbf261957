//! A target that nobody can dial: it dials the source, and everything is as if it had been dialled.

use super::*;
use crate::{
    configuration::Plaintext,
    listening,
    target::{DialledSource, Dialling},
};

/// The source's port.
struct SourcePort {
    offers: Offers,
    address: String,
    _stop: tokio_util::sync::DropGuard,
}

impl SourcePort {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (served, _) = listening::served();
        let (offers, stop) = (Offers::default(), CancellationToken::new());
        tokio::spawn(listening::accept(listener, served, offers.clone(), stop.clone()));
        Self {
            offers,
            address,
            _stop: stop.drop_guard(),
        }
    }

    /// Begins to replicate over what is offered.
    fn start(&self, vm: &Arc<MemoryVm>, epoch: Epoch) -> Running {
        let assignment = Assignment {
            target_endpoint: String::new(),
            ..assignment("", epoch)
        };
        self.offers.expect(CHAIN, epoch);
        let reach = Reach::of(&assignment, &self.offers);
        Running::start_reaching(MemorySource::new(Arc::clone(vm)), assignment, reach)
    }
}

/// A target that listens nowhere.
struct HiddenTarget {
    target: Target,
    dialling: Dialling,
}

impl HiddenTarget {
    fn start(directory: &Path) -> Self {
        let (served, to_serve) = listening::served();
        let stop = CancellationToken::new();
        let state = directory.join("target");
        let dialling = Dialling::open(&state, Plaintext::LoopbackOnly, served, stop.clone()).unwrap();
        let targets = Target::open(directory);
        let serving = tokio::spawn(listening::serve(to_serve, Some(targets.clone()), stop.clone()));
        let target = Target {
            targets,
            endpoint: String::new(),
            stop,
            serving,
        };
        Self { target, dialling }
    }

    fn dial(&self, address: &str, epoch: Epoch) {
        let endpoint = format!("http://{address}");
        self.dialling
            .dial(CHAIN, DialledSource { endpoint, epoch })
            .unwrap();
    }

    async fn stop(self) {
        self.target.stop().await;
        self.dialling.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dials_gets_true_points_and_tells_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let hidden = HiddenTarget::start(directory.path());
    let port = SourcePort::open().await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let epoch = hidden.target.prepare();
    let mut running = port.start(&vm, epoch);
    hidden.dial(&port.address, epoch);
    for round in 1..=4 {
        running.point(round).await;
        vm.write_randomly(10);
    }
    running.stop().await;
    // For this it needs a second connection beside the session's.
    vm.lose_tracking();
    vm.write_randomly(8);
    let before = hidden.target.newest().unwrap();
    let mut running = port.start(&vm, epoch);
    running.point(before.0 + 1).await;
    running.stop().await;
    assert_every_point_is_true(&hidden.target, &vm);
    let resynced = hidden.target.point(before.next());
    let sent: u64 = resynced.changes.iter().map(|change| change.bytes.0).sum();
    // Of six MiB: what was written since the last point, in both ways.
    assert!((1..2 << 20).contains(&sent), "{sent} bytes differed");
    hidden.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_stay_true_whenever_a_connection_that_the_target_dialled_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let hidden = HiddenTarget::start(directory.path());
    let port = SourcePort::open().await;
    // Of what the target says, which is little.
    let cutter = WireCutter::start(&port.address, 150).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let epoch = hidden.target.prepare();
    let mut running = port.start(&vm, epoch);
    hidden.dial(cutter.address(), epoch);
    for round in 1..=8 {
        running.point(round).await;
        vm.write_randomly(100);
    }
    running.stop().await;
    assert!(cutter.cuts() >= 3, "the wire was cut {} times", cutter.cuts());
    assert_every_point_is_true(&hidden.target, &vm);
    hidden.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_target_dials_by_itself_what_it_dialled_before() {
    let directory = tempfile::tempdir().unwrap();
    let hidden = HiddenTarget::start(directory.path());
    let port = SourcePort::open().await;
    let vm = MemoryVm::new(DISK_BYTES);
    let epoch = hidden.target.prepare();
    let mut running = port.start(&vm, epoch);
    hidden.dial(&port.address, epoch);
    running.point(1).await;
    let before = hidden.target.newest().unwrap();
    hidden.stop().await;
    vm.write_randomly(10);
    let hidden = HiddenTarget::start(directory.path());
    running.point(before.0 + 1).await;
    running.stop().await;
    assert_every_point_is_true(&hidden.target, &vm);
    hidden.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_learns_that_it_is_fenced_from_a_target_that_dials() {
    let directory = tempfile::tempdir().unwrap();
    let hidden = HiddenTarget::start(directory.path());
    let port = SourcePort::open().await;
    let vm = MemoryVm::new(DISK_BYTES);
    let epoch = hidden.target.prepare();
    let mut running = port.start(&vm, epoch);
    hidden.dial(&port.address, epoch);
    running.point(1).await;
    running.stop().await;
    let other = HolderNonce::from_bytes([9; 16]);
    hidden.target.targets.fence(CHAIN, other).unwrap();
    let mut running = port.start(&vm, epoch);
    running
        .until("the fence", |state| state.phase == SourcePhase::Fenced)
        .await;
    assert_eq!(running.stop().await, Ended::Fenced);
    hidden.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_nobody_dials_says_so() {
    let port = SourcePort::open().await;
    let vm = MemoryVm::new(DISK_BYTES);
    let epoch = Epoch {
        number: 1,
        holder: SOURCE,
    };
    let mut running = port.start(&vm, epoch);
    let waits = running
        .until("an explanation", |state| !state.detail.is_empty())
        .await;
    assert!(
        waits
            .detail
            .contains("the target that dials this site cannot be reached")
            && waits.detail.contains("has offered no connection"),
        "{}",
        waits.detail
    );
    running.stop().await;
}

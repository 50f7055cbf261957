//! VMs with little to send beside one with much, on one replicator and one limited link: the little is not late for it.

use super::*;
use crate::source::LinkLimit;

const LARGE: usize = 10 * 1024 * 1024;
/// Of all VMs together: a message takes a third of a second.
const LINK_BYTES_PER_SECOND: u64 = 3 * 1024 * 1024;
/// How old a small VM's newest point may become. Its own cycle waits for a few messages of others.
const LATE: Duration = Duration::from_secs(5);

/// What the VMs of a replicator share.
struct Replicator {
    target: Target,
    shared: Shared,
}

impl Replicator {
    fn start(&self, name: &str, number: u8, vm: &Arc<MemoryVm>) -> Running {
        let chain = ChainId::from_bytes([number; 16]);
        let disk_bytes = vm.disk_bytes();
        let epoch = self.target.prepare_chain(chain, name, disk_bytes);
        let mut assignment = assignment(&self.target.endpoint, epoch);
        assignment.chain = chain;
        assignment.machine.vm = name.to_owned();
        assignment.audit_rate = ByteCount(1 << 20);
        assignment.link = Some(LinkLimit {
            to: "west".to_owned(),
            bandwidth: Some(ByteCount(LINK_BYTES_PER_SECOND)),
            hours: Vec::new(),
            connections: None,
        });
        for volume in &mut assignment.volumes {
            volume.size = ByteCount(disk_bytes as u64);
        }
        let reach = Reach::of(&assignment, &Offers::default());
        Running::start_sharing(
            MemorySource::new(Arc::clone(vm)),
            (assignment, reach),
            &self.shared,
        )
    }
}

/// Writes again and again; gives how long the slowest of it took until it was in a point.
async fn slowest_of(vm: &MemoryVm, running: &mut Running, times: u32) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let newest = running.state.borrow().newest.map_or(0, |point| point.sequence.0);
        vm.write_randomly(3);
        let began = Instant::now();
        // The cycle that is under way may not have all of it.
        running.point(newest + 1).await;
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_with_much_to_send_makes_no_other_late() {
    let directory = tempfile::tempdir().unwrap();
    let replicator = Replicator {
        target: Target::start(directory.path()).await,
        shared: Shared::default(),
    };
    let small = [MemoryVm::new(DISK_BYTES), MemoryVm::new(DISK_BYTES)];
    let mut first = replicator.start("first", 1, &small[0]);
    let mut second = replicator.start("second", 2, &small[1]);
    first.point(1).await;
    second.point(1).await;
    let large = MemoryVm::new(LARGE);
    large.fill_with_noise();
    let mut much = replicator.start("much", 3, &large);
    much.until("the sync", |state| state.phase == SourcePhase::InitialSync)
        .await;
    let slowest = tokio::join!(
        slowest_of(&small[0], &mut first, 4),
        slowest_of(&small[1], &mut second, 4)
    );
    assert!(
        much.state.borrow().newest.is_none(),
        "the large VM's sync is over before anything was seen"
    );
    assert!(slowest.0.max(slowest.1) < LATE, "{slowest:?}");
    much.point(1).await;
    much.stop().await;
    // All of it is compared, and most of it has changed.
    large.lose_tracking();
    large.fill_with_noise();
    let mut much = replicator.start("much", 3, &large);
    much.until("the resync", |state| state.phase == SourcePhase::Resynchronizing)
        .await;
    let slowest = tokio::join!(
        slowest_of(&small[0], &mut first, 4),
        slowest_of(&small[1], &mut second, 4)
    );
    assert_eq!(much.state.borrow().phase, SourcePhase::Resynchronizing);
    assert!(slowest.0.max(slowest.1) < LATE, "{slowest:?}");
    println!("the slowest took {slowest:?}");
    for running in [first, second, much] {
        running.stop().await;
    }
    replicator.target.stop().await;
}

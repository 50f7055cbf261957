//! Disks that grow, join and leave while they are replicated.

use super::*;

/// How many bytes the point took of each volume.
fn sent(target: &Target, point: u64) -> Vec<u64> {
    let changes = target.point(Sequence(point)).changes;
    changes.iter().map(|change| change.bytes.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_grows_is_replicated_on_and_the_others_are_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let mut running = Running::start(&vm, assignment(&target.endpoint, target.prepare()));
    running.point(1).await;
    let before = target.newest().unwrap().0;
    // Nothing is written: that it grew is reason enough.
    vm.grow(1, 100);
    running.point(before + 1).await;
    let grown = (1..=target.newest().unwrap().0)
        .find(|point| target.disks_at(Sequence(*point))[1].len() > DISK_BYTES);
    let grown = grown.unwrap();
    assert_eq!(sent(&target, grown), [0, 100 * 4096]);
    vm.write(1, DISK_BYTES / 4096 + 99, 7);
    running.point(grown + 1).await;
    let state = running
        .until("the volumes", |state| state.volumes.len() == 2)
        .await;
    assert_eq!(state.volumes[1].size, ByteCount((DISK_BYTES + 100 * 4096) as u64));
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_stay_true_while_disks_grow_and_the_wire_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    // Some connection carries even a whole message, when the changes of several rounds meet in one.
    let cutter = WireCutter::start(&target.endpoint, 230_000).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let mut running = Running::start(&vm, assignment(cutter.address(), target.prepare()));
    for round in 1..=6 {
        running.point(round).await;
        vm.grow(usize::try_from(round % 2).unwrap(), 20);
        vm.write_randomly(150);
    }
    running.stop().await;
    assert!(cutter.cuts() >= 3, "the wire was cut {} times", cutter.cuts());
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_grew_by_while_no_source_ran_is_shipped() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let assignment = assignment(&target.endpoint, target.prepare());
    let mut running = Running::start(&vm, assignment.clone());
    for round in 1..=5 {
        running.point(round).await;
        vm.grow(1, 10);
        // As after kill -9, perhaps between the growth's being noticed and its being sealed.
        running.task.abort();
        vm.grow(1, 10);
        vm.write_behind_the_trackings_back(
            1,
            DISK_BYTES / 4096 + usize::try_from(round).unwrap() * 20 - 1,
            9,
        );
        running = Running::start(&vm, assignment.clone());
        running.point(target.newest().unwrap().0 + 1).await;
    }
    running.stop().await;
    let newest = target.newest().unwrap();
    let disks = target.disks_at(newest);
    assert_eq!(disks[1].len(), DISK_BYTES + 100 * 4096);
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_grows_in_the_middle_of_its_first_scan_is_whole_in_the_first_point() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let slow = Assignment {
        bandwidth: Some(ByteCount(6 * 1024 * 1024)),
        ..assignment(&target.endpoint, target.prepare())
    };
    let mut running = Running::start(&vm, slow.clone());
    let half = |state: &SourceState| state.sync_done.0 > 2 * 1024 * 1024;
    running.until("half the scan", half).await;
    vm.grow(0, 30);
    vm.write(0, DISK_BYTES / 4096 + 29, 5);
    running.task.abort();
    let mut running = Running::start(&vm, slow);
    running
        .until("more of the scan", |state| state.sync_done.0 > 3 * 1024 * 1024)
        .await;
    vm.grow(1, 40);
    vm.write(1, DISK_BYTES / 4096 + 39, 6);
    running.point(1).await;
    running.stop().await;
    assert_every_point_is_true(&target, &vm);
    let newest = target.disks_at(target.newest().unwrap());
    assert_eq!(newest[0].len(), DISK_BYTES + 30 * 4096);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_grew_when_tracking_was_lost_is_compared_as_far_as_the_point_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let assignment = assignment(&target.endpoint, target.prepare());
    let mut running = Running::start(&vm, assignment.clone());
    running.point(1).await;
    running.stop().await;
    vm.lose_tracking();
    vm.grow(0, 3 * 16);
    vm.write_behind_the_trackings_back(0, DISK_BYTES / 4096 + 20, 8);
    let before = target.newest().unwrap();
    let mut running = Running::start(&vm, assignment);
    running.point(before.0 + 1).await;
    running.stop().await;
    let newest = target.newest().unwrap();
    assert_eq!(target.disks_at(newest), vm.disks());
    // Of three blocks of zeroes only the one that is not zero travels.
    assert_eq!(sent(&target, before.0 + 1), [65536, 0]);
    target.stop().await;
}

/// An assignment of disks of these names and sizes.
fn declaring(assignment: &Assignment, disks: &[(&str, usize)]) -> Assignment {
    let volumes = disks.iter().map(|(name, size)| AssignedVolume {
        name: (*name).to_owned(),
        size: ByteCount(*size as u64),
    });
    Assignment {
        volumes: volumes.collect(),
        ..assignment.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_join_and_leave_and_the_others_are_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    vm.fill();
    let both = assignment(&target.endpoint, target.prepare());
    let mut running = Running::start(&vm, both.clone());
    running.point(1).await;
    running.stop().await;
    // Another disk comes, declared before the others.
    vm.add_disk(100);
    let before = target.newest().unwrap();
    let three = declaring(
        &both,
        &[("new", 100 * 4096), ("root", DISK_BYTES), ("data", DISK_BYTES)],
    );
    let source = MemorySource::declaring(Arc::clone(&vm), vec![2, 0, 1]);
    let mut running = Running::start_of(source, three);
    running.point(before.0 + 1).await;
    vm.write(0, 7, 9);
    running.point(before.0 + 2).await;
    running.stop().await;
    assert_eq!(sent(&target, before.0 + 1), [0, 0, 100 * 4096]);
    assert_eq!(target.disks_at(before).len(), 2);
    let joined = target.disks_at(before.next());
    assert_eq!(joined[2], vm.disks()[2]);
    // One leaves, and one that joins takes the next place, not its.
    vm.add_disk(10);
    let newest = target.newest().unwrap();
    let others = declaring(
        &both,
        &[("root", DISK_BYTES), ("new", 100 * 4096), ("extra", 10 * 4096)],
    );
    let source = MemorySource::declaring(Arc::clone(&vm), vec![0, 2, 3]);
    let mut running = Running::start_of(source, others);
    running.point(newest.0 + 1).await;
    running.stop().await;
    assert_eq!(sent(&target, newest.0 + 1), [0, 0, 0, 10 * 4096]);
    let disks = target.disks_at(newest.next());
    assert_eq!(disks[1], Vec::<u8>::new());
    assert_eq!(disks[3], vm.disks()[3]);
    assert_eq!(target.disks_at(newest)[1].len(), DISK_BYTES);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_joins_is_whole_in_its_first_point_whenever_the_source_dies() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let vm = MemoryVm::new(DISK_BYTES);
    let both = assignment(&target.endpoint, target.prepare());
    let mut running = Running::start(&vm, both.clone());
    running.point(1).await;
    running.stop().await;
    vm.add_disk(600);
    let before = target.newest().unwrap();
    let three = Assignment {
        bandwidth: Some(ByteCount(3 * 1024 * 1024)),
        ..declaring(
            &both,
            &[("root", DISK_BYTES), ("data", DISK_BYTES), ("new", 600 * 4096)],
        )
    };
    let begin = || MemorySource::declaring(Arc::clone(&vm), vec![0, 1, 2]);
    for _ in 0..2 {
        let mut running = Running::start_of(begin(), three.clone());
        running
            .until("some of the scan", |state| state.sync_done.0 > 600 * 1024)
            .await;
        vm.write(2, 3, 1);
        vm.write(0, 3, 1);
        running.task.abort();
        assert_eq!(target.newest(), Some(before));
    }
    let mut running = Running::start_of(begin(), three);
    running
        .until("some of the scan", |state| state.sync_done.0 > 600 * 1024)
        .await;
    vm.write(2, 3, 2);
    running.point(before.0 + 1).await;
    running.stop().await;
    let disks = target.disks_at(before.next());
    assert!(vm.instants(before.next()).contains(&disks));
    assert_eq!(disks[2].len(), 600 * 4096);
    target.stop().await;
}

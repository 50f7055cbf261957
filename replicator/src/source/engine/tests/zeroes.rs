//! Blocks that turn out to be zero when they are read.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_turns_out_to_be_zero_travels_only_where_there_was_something() {
    for cut_after in [None, Some(230_000)] {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::start(directory.path()).await;
        let cutter = match cut_after {
            Some(bytes) => Some(WireCutter::start(&target.endpoint, bytes).await),
            None => None,
        };
        let endpoint = cutter
            .as_ref()
            .map_or(target.endpoint.as_str(), WireCutter::address);
        let vm = MemoryVm::new(DISK_BYTES);
        vm.hide_zeroes();
        let mut running = Running::start(&vm, assignment(endpoint, target.prepare()));
        running.point(1).await;
        let zeroes = "farshore_replicated_bytes_total{encoding=\"zero\",vm=\"vm\"}";
        assert!(running.metric(zeroes) < 1.0, "{}", running.metric(zeroes));
        assert_eq!(
            running.state.borrow().sync_done,
            running.state.borrow().sync_total
        );
        let newest = target.newest().unwrap().0;
        vm.zero_something();
        running.point(newest + 1).await;
        assert!(running.metric(zeroes) > 1.0);
        running.stop().await;
        assert_every_point_is_true(&target, &vm);
        target.stop().await;
    }
}

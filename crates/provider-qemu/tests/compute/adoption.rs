//! What a successor makes of what is there, and what several callers at once do to each other.

use farshore_provider::{Compute, VmCondition};

use crate::site::{Site, processes_naming};

#[tokio::test]
async fn starting_again_adopts_the_process_that_runs() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let first = site.compute.start(&request.id).await.unwrap();
    assert_eq!(site.compute.start(&request.id).await.unwrap(), first);
    site.compute.prepare(&request).await.unwrap();
    assert_eq!(site.compute.start(&request.id).await.unwrap(), first);
    assert_eq!(processes_naming(&site.recovered()), [first.pid]);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn a_successor_knows_adopts_and_discards_what_its_predecessor_started() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let first = site.compute.start(&request.id).await.unwrap();
    site.succeed();
    assert_eq!(
        site.compute.list().await.unwrap(),
        std::slice::from_ref(&request.id)
    );
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(site.compute.start(&request.id).await.unwrap(), first);
    site.succeed();
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_process_whose_record_was_lost_is_found() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let first = site.compute.start(&request.id).await.unwrap();
    for name in ["vm.pid", "launch.json"] {
        std::fs::remove_file(site.file(&request.id, name)).unwrap();
    }
    site.succeed();
    assert_eq!(site.compute.start(&request.id).await.unwrap(), first);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_launch_that_was_cut_short_before_the_processors_ran_is_finished() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let first = site.compute.start(&request.id).await.unwrap();
    site.compute.stop(&request.id).await.unwrap();
    // The same launch, by hand: it holds the processors.
    let record = std::fs::read(site.file(&request.id, "launch.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let command: Vec<_> = record["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    crate::site::output(command[0], &command[1..]);
    site.succeed();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Suspended
    );
    let adopted = site.compute.start(&request.id).await.unwrap();
    assert_ne!(adopted.pid, first.pid);
    assert_eq!(processes_naming(&site.recovered()), [adopted.pid]);
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn many_who_start_the_same_vm_at_once_get_the_same_process() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let (id, compute) = (&request.id, &site.compute);
    let (a, b, c) = tokio::join!(compute.start(id), compute.start(id), compute.start(id));
    let pids = [a, b, c].map(|vm| vm.unwrap().pid);
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    let (one, two) = tokio::join!(compute.discard(id), compute.discard(id));
    assert_eq!((one.unwrap(), two.unwrap()), (vec![], vec![]));
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_removal_that_was_cut_short_can_be_ordered_again() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    site.compute.stop(&request.id).await.unwrap();
    // As if a predecessor had died between the network and the directory.
    crate::site::output("ip", &["netns", "delete", &site.namespace()]);
    std::fs::remove_file(site.file(&request.id, "console.log")).unwrap();
    site.succeed();
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
    // And as if between the request and the directory.
    std::fs::create_dir_all(site.file(&request.id, "")).unwrap();
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

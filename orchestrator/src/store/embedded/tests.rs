//! The embedded store across kills, damage and vanished files.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;
use crate::store::{Change, Expected, Write};

fn put(key: &str, expected: Expected, document: &str) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(Key::new("vm", key), expected, document.as_bytes().to_vec());
    transaction
}

fn document(store: &EmbeddedStore, key: &str) -> Option<String> {
    store
        .read(&Key::new("vm", key))
        .map(|stored| String::from_utf8(stored.document).unwrap())
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let first = store.commit(put("a", Expected::Absent, "one")).await.unwrap();
    let second = store
        .commit(put("a", Expected::Version(first), "two"))
        .await
        .unwrap();
    drop(store);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(document(&store, "a").as_deref(), Some("two"));
    assert_eq!(*store.revisions().borrow(), second);
    let third = store
        .commit(put("a", Expected::Version(second), "three"))
        .await
        .unwrap();
    assert!(third > second);
}

#[tokio::test]
async fn of_two_writers_of_one_record_one_is_refused_and_nothing_of_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let both = |name: &str| {
        let mut transaction = put("shared", Expected::Absent, name);
        transaction.put(Key::new("vm", name), Expected::Absent, Vec::new());
        transaction
    };
    let (left, right) = tokio::join!(store.commit(both("left")), store.commit(both("right")));
    assert!(
        left.is_ok() ^ right.is_ok(),
        "one of them wins: {left:?} {right:?}"
    );
    let winner = if left.is_ok() { "left" } else { "right" };
    let loser = if left.is_ok() { "right" } else { "left" };
    assert_eq!(document(&store, "shared").as_deref(), Some(winner));
    assert_eq!(document(&store, winner).as_deref(), Some(""));
    assert_eq!(document(&store, loser), None);
}

#[tokio::test]
async fn a_watcher_sees_the_revision_of_a_commit_that_readers_see() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let mut revisions = store.revisions();
    let revision = store.commit(put("a", Expected::Absent, "one")).await.unwrap();
    let seen = *revisions.wait_for(|seen| *seen >= revision).await.unwrap();
    assert_eq!(seen, revision);
    assert_eq!(document(&store, "a").as_deref(), Some("one"));
}

#[tokio::test]
async fn without_room_nothing_is_changed_and_with_room_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    store.commit(put("a", Expected::Absent, "one")).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open_with_room(directory.path(), u64::MAX).unwrap();
    for _ in 0..2 {
        let refused = store.commit(put("b", Expected::Absent, "two")).await;
        assert!(
            matches!(refused, Err(CommitError::NoRoom(StoreError::NoRoom { .. }))),
            "{refused:?}"
        );
    }
    assert_eq!(document(&store, "b"), None);
    drop(store);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(document(&store, "a").as_deref(), Some("one"));
    store.commit(put("b", Expected::Absent, "two")).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_open_elsewhere_or_damaged_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let Err(StoreError::Open { .. }) = EmbeddedStore::open(directory.path()) else {
        panic!("opened twice")
    };
    store.commit(put("a", Expected::Absent, "one")).await.unwrap();
    drop(store);
    let file = directory.path().join("records/db");
    let original = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![0xa5; original.len()]).unwrap();
    let Err(StoreError::Open { .. }) = EmbeddedStore::open(directory.path()) else {
        panic!("opened a damaged store")
    };
}

#[tokio::test]
async fn a_store_whose_records_are_gone_is_not_taken_for_a_fresh_one() {
    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(directory.path()).unwrap());
    std::fs::remove_dir_all(directory.path().join("records")).unwrap();
    let error = EmbeddedStore::open(directory.path()).err().unwrap();
    assert!(error.to_string().contains("records are gone"), "{error}");
}

#[test]
fn a_state_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = sled::open(directory.path().join("records")).unwrap();
    database.insert(b"\0format", b"farshore-state-9").unwrap();
    database.flush().unwrap();
    drop(database);
    let error = EmbeddedStore::open(directory.path()).err().unwrap();
    assert!(error.to_string().contains("farshore-state-9"), "{error}");
}

const CHILD_DIRECTORY: &str = "FARSHORE_TEST_STORE_DIRECTORY";

/// Not a test of its own: the process that the next test kills. It commits pairs and tells each one on stdout.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else {
        return;
    };
    let store = EmbeddedStore::open(Path::new(&directory)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let next = store.list("left/").len();
        for number in next.. {
            let mut transaction = Transaction::new();
            for kind in ["left", "right"] {
                let key = Key::new(kind, &format!("{number:08}"));
                transaction.put(key, Expected::Absent, number.to_string().into_bytes());
            }
            store.commit(transaction).await.unwrap();
            println!("\ncommitted {number}");
        }
    });
}

#[test]
fn a_killed_process_loses_no_acknowledged_commit_and_tears_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::embedded::tests::child_that_commits_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("committed ")?.parse().ok());
        let stop_after = 20 + 37 * round;
        acknowledged = told.by_ref().take(stop_after).last().unwrap();
        child.kill().unwrap();
        acknowledged = told.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let (left, right) = (store.list("left/"), store.list("right/"));
        assert!(left.len() > acknowledged, "{} of {acknowledged}", left.len());
        let documents = |records: Vec<(Key, Stored)>| {
            records
                .into_iter()
                .map(|(_, stored)| stored.document)
                .collect::<Vec<_>>()
        };
        assert_eq!(documents(left), documents(right));
    }
    assert!(acknowledged > 100);
}

#[test]
fn a_write_only_changes_what_it_names() {
    let write = Write {
        key: Key::new("vm", "a"),
        expected: Expected::Absent,
        change: Change::Keep,
    };
    let mut transaction = Transaction::new();
    transaction.depend(write.key.clone(), write.expected);
    assert!(transaction.is_empty());
}

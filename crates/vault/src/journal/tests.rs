//! Two copies of a journal, each of which may be damaged, torn or behind.

use std::{fs, sync::Arc, thread};

use farshore_blocks::{ByteCount, ChainId, Epoch, HolderNonce};
use tempfile::TempDir;

use super::*;
use crate::{
    edit::ChainEdit,
    records::{ChainDescription, VolumeDescription},
    scripted::scratch,
    storage::LocalStorage,
};

const VAULT: Incarnation = Incarnation::from_bytes([3; 16]);

struct Fixture {
    directory: TempDir,
    disk: Disk,
    layout: VaultLayout,
}

fn chain(number: u8) -> ChainId {
    ChainId::from_bytes([number; 16])
}

fn created(number: u8) -> Edit {
    let description = ChainDescription {
        vm: format!("vm-{number}"),
        volumes: vec![VolumeDescription {
            name: "disk".to_owned(),
            size: ByteCount(512),
        }],
    };
    Edit::from((chain(number), ChainEdit::Created(description)))
}

fn granted(number: u64) -> Edit {
    let holder = HolderNonce::from_bytes([9; 16]);
    Edit::from((chain(1), ChainEdit::EpochGranted(Epoch { number, holder })))
}

fn fixture() -> (Fixture, Journal) {
    let directory = scratch();
    let layout = VaultLayout::new(directory.path());
    fs::create_dir(layout.journals()).unwrap();
    let disk = Disk::new(Arc::new(LocalStorage));
    let mut state = VaultState::default();
    state.incarnation = Some(VAULT);
    let mut journal = Journal::create(&disk, &layout, VAULT, &state).unwrap();
    journal.append(&[vec![created(1)]]).unwrap();
    journal
        .append(&[vec![created(2), created(3)], vec![granted(1)]])
        .unwrap();
    (
        Fixture {
            directory,
            disk,
            layout,
        },
        journal,
    )
}

impl Fixture {
    fn open(&self) -> Result<VaultState, FileError> {
        Journal::open(&self.disk, &self.layout, VAULT).map(|(_, state)| state)
    }

    fn path(&self, copy: Copy) -> std::path::PathBuf {
        self.layout.journal(1, copy)
    }

    fn both(&self) -> [Vec<u8>; 2] {
        [Copy::Primary, Copy::Mirror].map(|copy| fs::read(self.path(copy)).unwrap())
    }
}

fn chains(state: &VaultState) -> usize {
    state.chains().count()
}

#[test]
fn what_was_committed_is_there_when_opened_again() {
    let (at, journal) = fixture();
    drop(journal);
    let state = at.open().unwrap();
    assert_eq!(chains(&state), 3);
    assert_eq!(state.chain(chain(1)).unwrap().epoch.unwrap().number, 1);
    let [primary, mirror] = at.both();
    assert_eq!(primary, mirror);
}

#[test]
fn a_damaged_byte_in_one_copy_costs_nothing_and_is_mended() {
    let (at, journal) = fixture();
    drop(journal);
    let whole = at.open().unwrap();
    let [bytes, _] = at.both();
    for copy in [Copy::Primary, Copy::Mirror] {
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 4;
            fs::write(at.path(copy), &damaged).unwrap();
            let follower = Follower::open(&at.layout, VAULT).unwrap();
            assert_eq!(*follower.state(), whole, "{copy:?} at {position}");
            assert_eq!(follower.mended().len(), 1, "{copy:?} at {position}");
            assert_eq!(at.open().unwrap(), whole);
            assert_eq!(at.both(), [bytes.clone(), bytes.clone()]);
        }
    }
}

#[test]
fn a_record_damaged_in_both_copies_is_damage_and_not_the_end() {
    let (at, journal) = fixture();
    drop(journal);
    let [bytes, _] = at.both();
    // Not in the last record: what follows it proves that it was committed.
    for position in (0..bytes.len() - 200).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[position] ^= 4;
        for copy in [Copy::Primary, Copy::Mirror] {
            fs::write(at.path(copy), &damaged).unwrap();
        }
        assert!(at.open().is_err(), "at {position}");
        assert!(Follower::open(&at.layout, VAULT).is_err(), "at {position}");
    }
}

#[test]
fn a_torn_batch_never_happened_and_a_whole_one_did() {
    let (at, journal) = fixture();
    let before = journal.durable_bytes;
    drop(journal);
    let (mut journal, _) = Journal::open(&at.disk, &at.layout, VAULT).unwrap();
    journal.append(&[vec![created(4), created(5)]]).unwrap();
    drop(journal);
    let [bytes, _] = at.both();
    let before = usize::try_from(before).unwrap();
    for primary in before..=bytes.len() {
        for mirror in [0, before, primary] {
            fs::write(at.path(Copy::Primary), &bytes[..primary]).unwrap();
            fs::write(at.path(Copy::Mirror), &bytes[..mirror]).unwrap();
            let expected = if primary == bytes.len() { 5 } else { 3 };
            assert_eq!(
                chains(&at.open().unwrap()),
                expected,
                "{primary} and {mirror} bytes"
            );
            let [left, right] = at.both();
            assert_eq!(left, right);
            assert_eq!(left.len(), if expected == 5 { bytes.len() } else { before });
        }
    }
    // What the mirror has was durable in the journal.
    fs::write(at.path(Copy::Primary), &bytes[..before]).unwrap();
    assert_eq!(chains(&at.open().unwrap()), 5);
}

#[test]
fn a_reader_beside_a_writer_sees_what_the_mirror_confirms() {
    let (at, journal) = fixture();
    let path = at.directory.path().join("lock");
    let lock = fs::File::create(&path).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut follower = Follower::open(&at.layout, VAULT).unwrap();
    assert_eq!(chains(follower.refresh().unwrap()), 3);
    let [bytes, _] = at.both();
    drop(journal);
    let (mut journal, _) = Journal::open(&at.disk, &at.layout, VAULT).unwrap();
    journal.append(&[vec![created(4)]]).unwrap();
    let [longer, _] = at.both();
    fs::write(at.path(Copy::Mirror), &bytes).unwrap();
    assert_eq!(chains(follower.refresh().unwrap()), 3);
    fs::write(at.path(Copy::Mirror), &longer).unwrap();
    assert_eq!(chains(follower.refresh().unwrap()), 4);
    // Without a writer all that is whole counts.
    drop(lock);
    fs::write(at.path(Copy::Mirror), &bytes).unwrap();
    assert_eq!(chains(Follower::open(&at.layout, VAULT).unwrap().state()), 4);
}

#[test]
fn a_new_journal_begins_with_the_state_and_counts_only_when_whole() {
    let (at, mut journal) = fixture();
    let state = at.open().unwrap();
    let mut follower = Follower::open(&at.layout, VAULT).unwrap();
    let old = at.both();
    journal.rotate(&state).unwrap();
    journal.append(&[vec![created(4)]]).unwrap();
    assert_eq!(chains(follower.refresh().unwrap()), 4);
    assert!(!at.path(Copy::Primary).exists());
    assert_eq!(at.open().map(|state| chains(&state)).unwrap(), 4);
    // Cut while it began: the one before it goes on.
    let begun = [Copy::Primary, Copy::Mirror].map(|copy| at.layout.journal(2, copy));
    let whole = fs::read(&begun[0]).unwrap();
    for length in [0, 10, 70, 200] {
        for (copy, old) in [Copy::Primary, Copy::Mirror].into_iter().zip(&old) {
            fs::write(at.path(copy), old).unwrap();
        }
        fs::write(&begun[0], &whole[..length]).unwrap();
        fs::remove_file(&begun[1]).unwrap();
        assert_eq!(at.open().unwrap(), state, "{length} bytes");
        assert!(!begun[0].exists(), "what never began is removed");
        fs::write(&begun[1], b"").unwrap();
    }
}

#[test]
fn those_who_commit_together_share_a_sync() {
    let (at, journal) = fixture();
    let state = at.open().unwrap();
    let committer = Committer::new(journal, state);
    thread::scope(|scope| {
        for number in 10..60 {
            let committer = &committer;
            scope.spawn(move || committer.commit(vec![created(number)]).unwrap());
        }
    });
    assert_eq!(chains(&committer.state()), 53);
    assert_eq!(chains(&at.open().unwrap()), 53);
}

#[test]
fn an_earlier_record_behind_the_last_one_is_not_missed_by_anybody() {
    let (at, journal) = fixture();
    drop(journal);
    let [bytes, _] = at.both();
    // All records but the first stand there once more, behind one that is torn.
    let moved = [&bytes[..], &bytes[..30], &bytes[80..]].concat();
    for copy in [Copy::Primary, Copy::Mirror] {
        fs::write(at.path(copy), &moved).unwrap();
        assert_eq!(chains(Follower::open(&at.layout, VAULT).unwrap().state()), 3);
        assert_eq!(chains(&at.open().unwrap()), 3);
        let [left, right] = at.both();
        assert!(left == bytes && right == bytes);
    }
}

/// Where each record of a journal begins.
fn records_in(bytes: &[u8]) -> Vec<usize> {
    let begins = |at: &usize| bytes[*at..].starts_with(b"FARSHJNL");
    (0..bytes.len()).filter(begins).collect()
}

#[test]
fn what_a_torn_write_left_is_not_taken_for_damage_whichever_part_of_it_is_there() {
    let (at, mut journal) = fixture();
    let [before, _] = at.both();
    // Two commits of several records each, in one write.
    journal
        .append(&[vec![created(4), created(5)], vec![created(6), granted(2)]])
        .unwrap();
    drop(journal);
    let [whole, _] = at.both();
    let records: Vec<_> = records_in(&whole)
        .into_iter()
        .filter(|at| *at >= before.len())
        .collect();
    assert_eq!(records.len(), 4);
    for lost in 1..16u32 {
        let mut torn = whole.clone();
        let ends = records[1..].iter().copied().chain([whole.len()]);
        for (number, (from, to)) in (0..).zip(records.iter().copied().zip(ends)) {
            if lost >> number & 1 == 1 {
                torn[from..to].fill(0);
            }
        }
        fs::write(at.path(Copy::Primary), &torn).unwrap();
        fs::write(at.path(Copy::Mirror), &before).unwrap();
        // A batch counts as a whole, and only behind those that do.
        let expected = if lost & 0b11 == 0 { 5 } else { 3 };
        assert_eq!(chains(&at.open().unwrap()), expected, "lost {lost:04b}");
    }
}

#[test]
fn a_record_that_was_durable_before_another_was_written_is_missed() {
    let (at, mut journal) = fixture();
    let [before, _] = at.both();
    journal.append(&[vec![created(4), created(5)]]).unwrap();
    journal.append(&[vec![granted(2)]]).unwrap();
    drop(journal);
    let [mut bytes, _] = at.both();
    bytes[before.len() + 70] ^= 1;
    for copy in [Copy::Primary, Copy::Mirror] {
        fs::write(at.path(copy), &bytes).unwrap();
    }
    assert!(matches!(at.open(), Err(FileError::Damaged(_))));
}

//! One chain, written, read, thinned, maintained and verified by threads of their own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;
use crate::{
    ReadError,
    scripted::{tiny, try_to_read_all, write},
};

const DISK: usize = 60_000;
const CYCLES: u64 = 240;

/// Point n holds n in all bytes, but for the first 8,000: those hold what point n - n % 4 had.
fn messages(number: u64) -> Vec<Vec<Write>> {
    let byte = number as u8;
    let mut messages = vec![vec![write(0, 8_000, byte, DISK - 8_000)]];
    if number.is_multiple_of(4) {
        messages.push(vec![write(0, 0, byte, 8_000)]);
    }
    messages
}

fn is_right(disk: &[u8], number: u64) -> bool {
    let first = (number - number % 4) as u8;
    disk[..8_000].iter().all(|byte| *byte == first) && disk[8_000..].iter().all(|byte| *byte == number as u8)
}

/// Reads whatever point is there until the last is; a point may go before it is opened, and for no other reason.
fn read_until_done(reader: &VaultReader, reads: &AtomicU64) {
    let mut at: usize = 0;
    loop {
        let points = reader.points(CHAIN).unwrap();
        at = at.wrapping_add(7);
        let Some(point) = points.get(at % points.len().max(1)) else {
            continue;
        };
        match try_to_read_all(reader, point.sequence) {
            Ok(disks) => {
                assert!(is_right(&disks[0], point.sequence.0), "point {}", point.sequence);
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(ReadError::UnknownPoint { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        if points.last().is_some_and(|last| last.sequence.0 == CYCLES) {
            return;
        }
    }
}

#[test]
fn a_chain_is_maintained_while_it_is_written_read_and_verified() {
    let mut life = Life::new(&[DISK], tiny(200_000));
    let vault = life.vault().clone();
    let path = life.path();
    let (reads, passes) = (AtomicU64::new(0), AtomicU64::new(0));
    let newest = || {
        let state = vault.chain_handle(CHAIN).unwrap().state();
        state.newest_sequence().0
    };
    let packed = thread::scope(|scope| {
        for _ in 0..2 {
            let reader = life.reader();
            let reads = &reads;
            scope.spawn(move || read_until_done(&reader, reads));
        }
        scope.spawn(|| {
            // Not all the time: nothing is removed while everything is read.
            for behind in (20..=CYCLES).step_by(40) {
                while newest() < behind {
                    thread::yield_now();
                }
                let report = verify(&path, |_| ()).unwrap();
                assert!(report.is_clean(), "{report:?}");
            }
        });
        let maintaining = scope.spawn(|| {
            let mut packed = 0;
            while newest() < CYCLES {
                let handle = vault.chain_handle(CHAIN).unwrap();
                let points: Vec<_> = handle.state().points().map(|point| point.sequence).collect();
                let old = points.len().saturating_sub(6);
                let goes = |(place, point): (usize, &Sequence)| (*point, place < old && point.0 % 5 != 0);
                let plan = plan_of(points.iter().enumerate().map(goes));
                handle.carry_out(&plan).unwrap();
                let done = vault.maintain(CHAIN, &mut Unlimited).unwrap();
                packed += done.packed_bytes.0;
                passes.fetch_add(u64::from(done.ended == Ended::Done), Ordering::Relaxed);
            }
            packed
        });
        for number in 1..=CYCLES {
            life.seal(&messages(number));
            let before = passes.load(Ordering::Relaxed);
            while number % 30 == 0 && number < CYCLES && passes.load(Ordering::Relaxed) < before + 2 {
                thread::yield_now();
            }
        }
        maintaining.join().unwrap()
    });
    drop(vault);
    println!("{} reads, {packed} bytes packed", reads.load(Ordering::Relaxed));
    assert!(reads.load(Ordering::Relaxed) > 2 && packed > 0);
    let left = life.reader().points(CHAIN).unwrap();
    life.source
        .points
        .retain(|(point, _)| left.iter().any(|left| left.sequence == point.sequence));
    life.maintain();
    life.assert_whole();
}

//! Chains of which little is written, or nothing any more: their space does not wait until enough has gathered.

use super::{promises::SIZES, *};
use crate::scripted::{tiny, write};

/// Twelve points, all of them in memory alone as far as the index goes.
fn a_slow_life() -> Life {
    let limits = Limits {
        flush: crate::writer::FlushLimits::default(),
        ..tiny(60_000)
    };
    let mut life = Life::new(&SIZES, limits);
    for number in 1..=12u8 {
        life.seal(&[vec![
            write(0, 0, number, 40_000),
            write(0, 50_000 + u64::from(number) * 4096, number, 4096),
        ]]);
    }
    assert!(life.names("runs").is_empty());
    life
}

#[test]
fn a_chain_that_was_never_flushed_gives_its_space_back() {
    for reopened in [false, true] {
        let mut life = a_slow_life();
        let before = life.chain_bytes();
        life.drop_points(|_| true);
        if reopened {
            life.reopen();
        }
        let done = life.maintain();
        assert!(
            done.settled_through == Some(Sequence(12)) && life.chain_bytes() < before / 2,
            "{} of {before}: {done:?}",
            life.chain_bytes()
        );
        life.assert_whole();
        let again = life.maintain();
        assert_eq!(again.written_bytes().0, 0, "{again:?}");
    }
}

#[test]
fn a_chain_of_which_nothing_went_is_not_flushed_for_maintenance() {
    let mut life = Life::new(&SIZES, a_slow_life().limits);
    life.seal(&[vec![write(0, 0, 1, 60_000), write(0, 60_000, 1, 60_000)]]);
    life.maintain();
    life.seal(&[vec![write(1, 0, 1, 500)]]);
    let runs = life.names("runs");
    life.maintain();
    assert_eq!(life.names("runs"), runs);
    life.assert_whole();
}

#[test]
fn a_writer_goes_on_behind_what_maintenance_flushed() {
    let mut life = a_slow_life();
    life.drop_points(|point| point.sequence.0.is_multiple_of(3));
    life.maintain();
    life.abandon(&[vec![write(0, 0, 77, 9_000)]]);
    for number in 13..=30u8 {
        life.seal(&[vec![write(0, u64::from(number) * 100, number, 20_000)]]);
        if number % 5 == 0 {
            life.drop_points(|point| point.sequence.0 % 5 == 2);
            life.maintain();
            life.abandon(&[vec![write(0, 0, 78, 9_000)]]);
        }
    }
    life.assert_whole();
    // No sequence is in two places that a settling could tear apart.
    let runs = life.vault().chain_handle(CHAIN).unwrap().state().runs;
    assert!(
        runs.windows(2)
            .all(|pair| pair[0].last_sequence < pair[1].first_sequence),
        "{runs:?}"
    );
    life.reopen();
    life.assert_whole();
}

//! An index that is lost, whichever part of it, is made again from segments and packs, and nobody can tell.

use proptest::prelude::*;

use super::{
    random::{act_out, an_act, fitting, messages},
    *,
};
use crate::{
    Go, MaintenanceError, ReadError,
    scripted::{SourceCycle, tiny, write},
};

const SIZES: [usize; 2] = [150_000, 9_999];

/// What becomes of a run's file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    None,
    Removed,
    Emptied,
    Cut(u16),
    Flipped(u16),
}

fn harms() -> impl Strategy<Value = Vec<Harm>> {
    let harm = prop_oneof![
        2 => Just(Harm::None),
        2 => Just(Harm::Removed),
        1 => Just(Harm::Emptied),
        1 => any::<u16>().prop_map(Harm::Cut),
        2 => any::<u16>().prop_map(Harm::Flipped),
    ];
    prop_oneof![Just(vec![Harm::Removed]), prop::collection::vec(harm, 1..12),]
}

/// Harms the runs that the journal names, by turns; gives how many are no longer what they were.
fn harm(life: &Life, harms: &[Harm]) -> usize {
    let handle = life.vault().chain_handle(CHAIN).unwrap();
    let mut harmed = 0;
    for (run, harm) in handle.state().runs.iter().zip(harms.iter().cycle()) {
        let path = handle.layout.run(run.number);
        let whole = fs::read(&path).unwrap();
        let place = |of: u16| usize::from(of) * 7 % whole.len();
        match harm {
            Harm::None => continue,
            Harm::Removed => fs::remove_file(&path).unwrap(),
            Harm::Emptied => fs::write(&path, []).unwrap(),
            Harm::Cut(at) => fs::write(&path, &whole[..place(*at)]).unwrap(),
            Harm::Flipped(at) => {
                let mut bytes = whole.clone();
                bytes[place(*at)] ^= 4;
                fs::write(&path, bytes).unwrap();
            }
        }
        harmed += 1;
    }
    harmed
}

fn mend(life: &Life) -> crate::Mended {
    let mended = life.vault().mend_index(CHAIN, &mut Unlimited).unwrap();
    assert_eq!(mended.ended, Ended::Done);
    mended
}

/// Ships a cycle and leaves it open, with every message flushed soon.
fn leave_open(life: &mut Life, messages: &[Vec<Write>]) -> SourceCycle {
    life.nonce += 1;
    let cycle = life.source.cycle(life.epoch, life.nonce, messages);
    let epoch = life.epoch;
    let writer = life.writer();
    writer.begin(&cycle.begin).unwrap();
    for (number, frames) in (1..).zip(&cycle.messages) {
        writer.append(epoch, number, frames, &[]).unwrap();
        writer.sync().unwrap();
    }
    cycle
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_retained_point_equals_the_disks_whatever_was_lost_of_the_index(
        acts in prop::collection::vec(an_act(), 1..40),
        open in messages(),
        later in prop::collection::vec(an_act(), 0..8),
        lost in prop::collection::vec(harms(), 2),
    ) {
        let mut life = Life::new(&SIZES, tiny(40_000));
        acts.into_iter().for_each(|act| act_out(&mut life, act));
        let open = fitting(&life, open);
        let cycle = leave_open(&mut life, &open);
        let harmed = harm(&life, &lost[0]);
        prop_assert_eq!(mend(&life).faults.len(), harmed);
        life.assert_whole();
        prop_assert_eq!(mend(&life).runs_made, 0);
        let point = life.writer().seal(&cycle.seal).unwrap();
        life.source.sealed(cycle, point);
        life.assert_whole();
        life.maintain();
        life.assert_whole();
        later.into_iter().for_each(|act| act_out(&mut life, act));
        harm(&life, &lost[1]);
        life.reopen();
        mend(&life);
        life.assert_whole();
        life.maintain();
        life.assert_whole();
    }
}

/// A life with a settled run, younger ones and a pack, in which what was trimmed hides older bytes.
fn maintained() -> Life {
    let mut life = Life::new(&SIZES, tiny(60_000));
    for number in 1..=12u8 {
        let start = u64::from(number) * 9_000 % 100_000;
        life.seal(&[
            vec![write(0, start, number, 20_000), write(1, 10, number, 1_000)],
            vec![write(0, start + 2_000, 0, 9_000), write(1, 500, 0, 100)],
        ]);
    }
    life.drop_points(|point| !point.sequence.0.is_multiple_of(4));
    assert!(life.maintain().packed_bytes.0 > 0);
    for number in 13..=15u8 {
        life.seal(&[
            vec![write(0, 0, number, 30_000)],
            vec![write(0, 10_000, 0, 9_000)],
        ]);
        for _ in 0..3 {
            life.seal(&[vec![write(1, 0, number, 9)]]);
        }
    }
    let runs = life.vault().chain_handle(CHAIN).unwrap().state().runs.len();
    assert!(runs > 1, "{runs}");
    life
}

#[test]
fn a_lost_run_is_told_of_by_file_and_reason_and_is_made_again_by_the_next_pass_that_needs_it() {
    let mut life = maintained();
    let state = life.vault().chain_handle(CHAIN).unwrap().state();
    let path = life
        .chain_path()
        .join(format!("runs/{:016}.run", state.runs[0].number));
    fs::remove_file(&path).unwrap();
    let refused = life.reader().open_point(CHAIN, Sequence(12));
    assert!(
        matches!(&refused, Err(ReadError::Index { source: crate::FileError::Storage(error), .. }) if error.path == path),
        "{refused:?}"
    );
    let report = verify(&life.path(), |_| ()).unwrap();
    let named = report.chains[0].problems.iter().any(|problem| {
        matches!(&problem.kind, crate::ProblemKind::File(crate::FileError::Storage(error)) if error.path == path)
    });
    assert!(named, "{report:?}");
    life.drop_points(|point| point.sequence.0 == 4);
    life.maintain();
    life.assert_whole();
}

#[test]
fn a_mending_that_is_stopped_changes_nothing() {
    struct Never;
    impl Pace for Never {
        fn spend(&mut self, _bytes: farshore_blocks::ByteCount) -> Go {
            Go::Stop
        }
    }
    let life = maintained();
    harm(&life, &[Harm::Cut(5000)]);
    let before = life.names("runs");
    let stopped = life.vault().mend_index(CHAIN, &mut Never).unwrap();
    assert_eq!((stopped.ended, stopped.runs_made), (Ended::Stopped, 0));
    assert_eq!(life.names("runs"), before);
    mend(&life);
    life.assert_whole();
}

#[test]
fn an_index_is_not_made_again_from_files_that_are_damaged() {
    let life = maintained();
    let segments = life.chain_path().join("segments");
    for name in life.names("segments") {
        let path = segments.join(&name);
        let whole = fs::read(&path).unwrap();
        harm(&life, &[Harm::Removed]);
        let runs = life.vault().chain_handle(CHAIN).unwrap().state().runs;
        // Without its last group a file ends where it could.
        let cut = last_group(&whole);
        for damaged in [&whole[..whole.len() - 4096], &whole[..5000], &whole[..cut]] {
            fs::write(&path, damaged).unwrap();
            let refused = life.vault().mend_index(CHAIN, &mut Unlimited);
            let error = refused.map(|_| name.clone()).unwrap_err();
            assert!(matches!(error, MaintenanceError::File(_)), "{name}: {error:?}");
        }
        fs::write(&path, &whole).unwrap();
        let still = life.vault().chain_handle(CHAIN).unwrap().state().runs;
        assert_eq!(still.last(), runs.last(), "{name}");
        mend(&life);
        life.assert_whole();
    }
}

/// Where the last group of a file of frames begins.
fn last_group(bytes: &[u8]) -> usize {
    let begins = |at: &usize| bytes[*at..].starts_with(b"FARSHGRP");
    (4096..bytes.len()).step_by(4096).rfind(begins).unwrap()
}

#[test]
fn a_cycle_that_is_given_up_while_its_index_is_made_again_takes_it_along() {
    /// Gives the cycle up when a pass first asks.
    struct GivesUp(Option<(ChainWriter, Epoch, u64)>);
    impl Pace for GivesUp {
        fn spend(&mut self, _bytes: farshore_blocks::ByteCount) -> Go {
            if let Some((mut writer, epoch, cycle)) = self.0.take() {
                writer.abandon(epoch, cycle).unwrap();
            }
            Go::On
        }
    }
    let mut life = Life::new(&SIZES, tiny(40_000));
    life.seal(&[vec![write(0, 0, 1, 9_000)]]);
    let messages: Vec<_> = (0..8u64)
        .map(|step| vec![write(0, step * 5_000, 2, 4_000)])
        .collect();
    let cycle = leave_open(&mut life, &messages);
    let handle = life.vault().chain_handle(CHAIN).unwrap();
    let is_open = |run: &crate::tree::RunSummary| run.first_sequence > Sequence(1);
    assert!(handle.state().runs.iter().any(is_open));
    for run in handle.state().runs.iter().filter(|run| is_open(run)) {
        fs::remove_file(handle.layout.run(run.number)).unwrap();
    }
    let (vault, writer) = life.open.take().unwrap();
    let mut pace = GivesUp(Some((writer, life.epoch, cycle.begin.cycle)));
    // The segments may be gone before they are read, or the runs before they are replaced.
    let mended = vault.mend_index(CHAIN, &mut pace);
    assert!(mended.is_err() || mended.unwrap().runs_made == 0);
    assert!(!handle.state().runs.iter().any(is_open));
    drop((vault, handle));
    life.reopen();
    life.assert_whole();
    life.seal(&[vec![write(0, 100, 3, 9_000)]]);
    life.assert_whole();
}

//! One promise at a time.

use super::*;
use crate::{
    Go, Pin, PinRefused, ReadError, RetentionPolicy,
    scripted::{read_all, tiny, write},
};

pub(super) const SIZES: [usize; 2] = [200_000, 5_000];

/// Fifteen points that write one another over, in part, about three in a segment.
pub(super) fn a_life() -> Life {
    a_life_in(250_000)
}

fn a_life_in(segment_bytes: u32) -> Life {
    let mut life = Life::new(&SIZES, tiny(segment_bytes));
    for number in 1..=15u64 {
        let start = number * 9_000 % 150_000;
        let byte = number as u8;
        life.seal(&[
            vec![write(0, start, byte, 20_000), write(1, 10 * number, byte, 1_000)],
            vec![write(0, 0, byte, 30_000)],
        ]);
    }
    life
}

fn tiers(daily: u32) -> RetentionPolicy {
    RetentionPolicy {
        keep_all: std::time::Duration::ZERO,
        daily,
        weekly: 0,
        ..RetentionPolicy::default()
    }
}

#[test]
fn dropping_alone_changes_no_file_and_maintenance_gives_space_back() {
    let mut life = a_life();
    let before = life.chain_bytes();
    life.drop_points(|point| !point.sequence.0.is_multiple_of(5));
    assert_eq!(life.chain_bytes(), before);
    life.assert_whole();
    let done = life.maintain();
    assert!(
        done.settled_through.is_some() && done.packed_bytes.0 > 0,
        "{done:?}"
    );
    assert_eq!(before - done.given_back_bytes().0, life.chain_bytes());
    assert!(
        life.chain_bytes() < before * 7 / 10,
        "{} of {before}",
        life.chain_bytes()
    );
    life.assert_whole();
    let again = life.maintain();
    assert_eq!(
        (again.written_bytes().0, again.removed_bytes.0),
        (0, 0),
        "{again:?}"
    );
    life.reopen();
    life.assert_whole();
}

#[test]
fn a_chain_that_drops_nothing_is_not_rewritten() {
    let mut life = Life::new(&[1_200_000], tiny(250_000));
    for number in 0..18u64 {
        life.seal(&[vec![write(0, number * 65_536, 1 + number as u8, 65_536)]]);
    }
    let done = life.maintain();
    assert!(done.settled_through > Some(Sequence(10)), "{done:?}");
    assert_eq!(done.packed_bytes.0, 0, "{done:?}");
    life.assert_whole();
}

#[test]
fn a_chain_without_a_policy_keeps_everything() {
    let life = a_life();
    assert!(life.vault().thin(CHAIN, WallTime::now()).unwrap().drop.is_empty());
    life.assert_whole();
}

#[test]
fn a_policy_is_followed_and_a_pinned_point_survives_it() {
    let mut life = a_life();
    life.vault().set_retention(CHAIN, &tiers(0)).unwrap();
    life.vault().pin(CHAIN, Sequence(4), Pin::Pinned).unwrap();
    let plan = life.vault().thin(CHAIN, WallTime::now()).unwrap();
    assert_eq!(plan.drop.len(), 13);
    assert!(life.vault().thin(CHAIN, WallTime::now()).unwrap().drop.is_empty());
    life.source
        .points
        .retain(|(point, _)| [4, 15].contains(&point.sequence.0));
    life.maintain();
    life.reopen();
    life.assert_whole();
    assert_eq!(life.reader().gaps(CHAIN).unwrap().len(), 2);
    life.vault().unpin(CHAIN, Sequence(4)).unwrap();
    assert_eq!(
        life.vault().thin(CHAIN, WallTime::now()).unwrap().drop,
        [Sequence(4)]
    );
    life.source.points.remove(0);
    life.maintain();
    life.assert_whole();
    assert_eq!(life.reader().gaps(CHAIN).unwrap().len(), 1);
}

#[test]
fn a_lock_can_be_made_longer_and_nothing_else_until_it_has_ended() {
    let mut life = a_life();
    let vault = life.vault().clone();
    // The source's clock says 15 at the newest point.
    vault
        .pin(CHAIN, Sequence(3), Pin::LockedUntil(WallTime(16)))
        .unwrap();
    vault
        .pin(CHAIN, Sequence(3), Pin::LockedUntil(WallTime(17)))
        .unwrap();
    let refused = [
        vault.unpin(CHAIN, Sequence(3)),
        vault.pin(CHAIN, Sequence(3), Pin::Pinned),
        vault.pin(CHAIN, Sequence(3), Pin::LockedUntil(WallTime(16))),
    ];
    for refused in refused {
        let until = WallTime(17);
        assert!(
            matches!(refused, Err(PinRefused::Locked { until: end, .. }) if end == until),
            "{refused:?}"
        );
    }
    let unknown = vault.pin(CHAIN, Sequence(99), Pin::Pinned);
    assert!(
        matches!(unknown, Err(PinRefused::UnknownPoint { .. })),
        "{unknown:?}"
    );
    assert_eq!(
        life.reader().pins(CHAIN).unwrap(),
        [(Sequence(3), Pin::LockedUntil(WallTime(17)))]
    );
    drop(vault);
    life.seal(&[]);
    life.seal(&[]);
    life.vault().unpin(CHAIN, Sequence(3)).unwrap();
    assert!(life.reader().pins(CHAIN).unwrap().is_empty());
}

#[test]
fn only_the_newest_point_is_still_valid_and_only_later() {
    let life = a_life();
    let note = |point, at| {
        life.vault()
            .note_still_valid(CHAIN, Sequence(point), WallTime(at))
            .unwrap()
    };
    note(14, 100);
    assert_eq!(life.reader().still_valid(CHAIN).unwrap(), None);
    note(15, 100);
    note(15, 90);
    assert_eq!(life.reader().still_valid(CHAIN).unwrap(), Some(WallTime(100)));
}

#[test]
fn a_point_that_is_read_is_not_dropped() {
    let life = a_life();
    life.vault().set_retention(CHAIN, &tiers(0)).unwrap();
    let _read = life.reader().open_point(CHAIN, Sequence(6)).unwrap();
    let plan = life.vault().thin(CHAIN, WallTime::now()).unwrap();
    assert_eq!(plan.drop.len(), 13);
    assert!(!plan.drop.contains(&Sequence(6)));
}

#[test]
fn a_point_that_was_dropped_while_it_is_read_stays_readable_until_it_is_closed() {
    let mut life = a_life();
    let expected = life.source.points[5].1.clone();
    let opened = life.reader().open_point(CHAIN, Sequence(6)).unwrap();
    // Dropped between the lease and the plan, as it were.
    life.drop_points(|_| true);
    let done = life.maintain();
    assert!(done.packed_bytes.0 > 0, "{done:?}");
    let read = |point: &crate::PointReader| {
        let mut disk = vec![0xee; SIZES[0]];
        let whole = point.read_at(VolumeIndex(0), farshore_blocks::ByteOffset(0), &mut disk);
        whole.map(|()| disk)
    };
    assert_eq!(read(&opened).unwrap(), expected[0]);
    let again = life.reader().open_point(CHAIN, Sequence(6));
    assert!(matches!(again, Err(ReadError::UnknownPoint { .. })));
    life.assert_whole();
    let before = life.chain_bytes();
    drop(opened);
    life.maintain();
    assert!(life.chain_bytes() < before, "{} of {before}", life.chain_bytes());
    life.assert_whole();
}

#[test]
fn a_reader_finds_what_moved_since_it_opened() {
    let mut life = a_life();
    let reader = life.reader();
    let expected = life.source.points[9].1.clone();
    let opened = reader.open_point(CHAIN, Sequence(10)).unwrap();
    life.drop_points(|point| point.sequence.0 != 10);
    assert!(life.maintain().packed_bytes.0 > 0);
    let mut disk = vec![0xee; SIZES[0]];
    opened
        .read_at(VolumeIndex(0), farshore_blocks::ByteOffset(0), &mut disk)
        .unwrap();
    assert_eq!(disk, expected[0]);
    assert_eq!(read_all(&reader, Sequence(10)), expected);
}

#[test]
fn nothing_is_removed_while_somebody_reads_everything() {
    let mut life = a_life();
    life.drop_points(|_| true);
    let layout = life.vault().chain_handle(CHAIN).unwrap().layout.clone();
    let all = crate::reader::Lease::take(&layout, Sequence(0)).unwrap();
    let (segments, runs) = (life.names("segments"), life.names("runs"));
    let done = life.maintain();
    assert_eq!((done.ended, done.packed_bytes.0), (Ended::HeldByReader, 0));
    assert_eq!(life.names("segments"), segments);
    assert!(life.names("runs").is_superset(&runs));
    drop(all);
    assert_eq!(life.maintain().ended, Ended::Done);
    assert!(!life.names("runs").is_superset(&runs));
    life.assert_whole();
}

#[test]
fn few_runs_are_left_however_many_were_flushed() {
    let mut life = Life::new(&SIZES, tiny(60_000));
    for number in 0..60u64 {
        let writes = (0..6).map(|block| write(0, block * 8_000 + number, number as u8, 3_000));
        life.seal(&[writes.collect()]);
    }
    assert!(life.names("runs").len() > 30);
    life.maintain();
    assert!(life.names("runs").len() <= 9, "{:?}", life.names("runs"));
    life.assert_whole();
}

#[test]
fn what_a_crash_left_of_a_pass_changes_nothing() {
    let mut life = a_life();
    life.drop_points(|point| point.sequence.0.is_multiple_of(2));
    life.maintain();
    for number in 16..=20 {
        life.seal(&[vec![write(0, 0, number, 60_000)]]);
    }
    let state = life.vault().chain_handle(CHAIN).unwrap().state();
    let layout = life.vault().chain_handle(CHAIN).unwrap().layout.clone();
    let pack = layout.segment(crate::format::SegmentName::packed(state.next_pack));
    let run = layout.run(state.next_run);
    for path in [&pack, &run] {
        fs::write(path, [0xab; 9_000]).unwrap();
    }
    life.assert_whole();
    life.reopen();
    assert!(!pack.exists() && !run.exists());
    life.assert_whole();
    // Also if nothing sweeps before the numbers are used.
    for path in [&pack, &run] {
        fs::write(path, [0xab; 900_000]).unwrap();
    }
    life.drop_points(|_| true);
    assert!(life.maintain().packed_bytes.0 > 0);
    life.assert_whole();
}

#[test]
fn what_a_writer_abandoned_during_a_pass_is_swept_by_the_next() {
    let mut life = a_life();
    let before = life.names("segments");
    let handle = life.vault().chain_handle(CHAIN).unwrap();
    let pass = handle.maintenance.lock().unwrap();
    let large = || (0..3).map(|part| write(0, part * 60_000, 7, 60_000)).collect();
    life.abandon(&[large(), large(), large()]);
    let left = life.names("segments");
    assert!(left.len() > before.len() + 1, "{left:?}");
    drop(pass);
    life.seal(&[vec![write(0, 0, 9, 4_096)]]);
    life.maintain();
    assert!(
        life.names("segments").len() <= before.len() + 1,
        "{:?}",
        life.names("segments")
    );
    life.assert_whole();
}

#[test]
fn a_pass_that_is_stopped_leaves_nothing_behind() {
    struct Never;
    impl Pace for Never {
        fn spend(&mut self, _bytes: farshore_blocks::ByteCount) -> Go {
            Go::Stop
        }
    }
    let mut life = a_life();
    life.drop_points(|_| true);
    let before = (life.names("segments"), life.names("runs"));
    let done = life.maintain_at(&mut Never);
    assert_eq!((done.ended, done.written_bytes().0), (Ended::Stopped, 0));
    assert_eq!((life.names("segments"), life.names("runs")), before);
    life.assert_whole();
}

#[test]
fn what_the_guest_trimmed_is_given_back() {
    let mut life = a_life_in(60_000);
    let full = life.chain_bytes();
    life.seal(&[vec![
        write(0, 0, 0, 65_536),
        write(0, 65_536, 0, 65_536),
        write(0, 131_072, 0, 65_536),
    ]]);
    life.seal(&[vec![write(0, 196_608, 0, 3_392), write(1, 0, 0, 5_000)]]);
    life.drop_points(|_| true);
    life.maintain();
    // The segments in which the last few points begin and end, and the index.
    assert!(
        life.chain_bytes() < 100_000 && full > 800_000,
        "{} of {full}",
        life.chain_bytes()
    );
    assert_eq!(life.live_bytes(), 0);
    life.assert_whole();
}

#[test]
fn a_damaged_frame_is_left_where_it_is_and_does_not_stop_the_rest() {
    let mut life = a_life();
    let point = life.source.points[0].1.clone();
    life.drop_points(|point| point.sequence.0 > 1);
    // In the second message of point 1, which stays.
    let first = life.chain_path().join("segments/0000000001.segment");
    let mut bytes = fs::read(&first).unwrap();
    bytes[36_864] ^= 1;
    fs::write(&first, bytes).unwrap();
    let done = life.maintain();
    assert_eq!(done.unreadable.len(), 1, "{done:?}");
    assert!(done.packed_bytes.0 > 0, "{done:?}");
    assert!(first.exists());
    let report = verify(&life.path(), |_| ()).unwrap();
    assert!(
        report.chains[0]
            .problems
            .iter()
            .all(|problem| problem.point == Sequence(1)),
        "{report:?}"
    );
    assert!(!report.is_clean());
    assert_eq!(
        read_all(&life.reader(), Sequence(15)),
        life.source.points.last().unwrap().1
    );
    assert_ne!(point, life.source.volumes);
}

#[test]
fn the_space_of_a_volume_that_went_away_is_given_back_with_the_last_point_that_has_it() {
    let mut life = Life::new(&SIZES, tiny(60_000));
    let (large, small) = (60_000, 500);
    let parts = [0, 60_000, 120_000].map(|offset| vec![write(0, offset, 1, large)]);
    life.seal(&[parts.as_slice(), &[vec![write(1, 0, 1, small)]]].concat());
    for number in 2..=6u8 {
        life.seal(&[vec![write(0, 0, number, small), write(1, 0, number, small)]]);
    }
    let whole = life.chain_bytes();
    life.source.volumes[0].clear();
    let (volumes, epoch) = (life.source.description().volumes, life.epoch);
    life.writer().set_volumes(epoch, &volumes).unwrap();
    for number in 7..=12u8 {
        life.seal(&[vec![write(1, 0, number, small)]]);
    }
    // A point that has it needs it.
    life.drop_points(|point| ![5, 9, 12].contains(&point.sequence.0));
    life.maintain();
    life.assert_whole();
    assert!(
        life.chain_bytes() > whole / 2,
        "{} of {whole}",
        life.chain_bytes()
    );
    life.drop_points(|point| point.sequence.0 == 5);
    life.maintain();
    life.assert_whole();
    let left = life.chain_bytes();
    assert!(left < whole / 3, "{left} of {whole} bytes are left");
    // So does an index that is made again from what is left.
    for run in life.names("runs") {
        std::fs::remove_file(life.vault().chain_handle(CHAIN).unwrap().layout.runs().join(run)).unwrap();
    }
    life.vault().mend_index(CHAIN, &mut Unlimited).unwrap();
    life.assert_whole();
}

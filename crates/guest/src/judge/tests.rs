//! The judge against disks that are right, torn, reordered and ahead of one another.

use farshore_blocks::clock::WallTime;

use super::*;
use crate::{
    disk_layout::DiskRange,
    record::{RECORD_BYTES, RECORD_LENGTH},
};

const SLOTS: u64 = 8;
const GUEST: u64 = 42;

/// A disk that got records 1..=last in order.
fn disk(stream: Stream, last: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(SLOTS).unwrap() * RECORD_BYTES];
    for number in 1..=last {
        write(&mut bytes, number % SLOTS, stream, number);
    }
    bytes
}

fn write(disk: &mut [u8], slot: u64, stream: Stream, number: u64) {
    write_of_guest(disk, slot, stream, number, GUEST);
}

fn write_of_guest(disk: &mut [u8], slot: u64, stream: Stream, number: u64, guest: u64) {
    let record = Record {
        number,
        run: 1,
        guest,
        stream,
        written_at: WallTime(1),
    };
    let start = usize::try_from(slot).unwrap() * RECORD_BYTES;
    disk[start..start + RECORD_BYTES].copy_from_slice(record.encode().bytes());
}

fn scan(disk: &Vec<u8>, stream: Stream) -> RegionScan {
    let range = DiskRange {
        offset: 0,
        length: SLOTS * RECORD_LENGTH,
    };
    RegionScan::read(disk, range, stream).unwrap()
}

fn judge_disks(a: &Vec<u8>, b: &Vec<u8>, acknowledged: (u64, u64)) -> Judgement {
    let acknowledged = Acknowledged {
        region_a: acknowledged.0,
        region_b: acknowledged.1,
        journal: 0,
    };
    judge(&scan(a, Stream::RegionA), &scan(b, Stream::RegionB), acknowledged)
}

fn judge_a(disk: &Vec<u8>) -> RegionVerdict {
    judge_region(&scan(disk, Stream::RegionA))
}

#[test]
fn every_instant_of_an_honest_guest_is_exact() {
    for last in 0..=3 * SLOTS {
        for ahead in 0..=1 {
            let judgement = judge_disks(
                &disk(Stream::RegionA, last + ahead),
                &disk(Stream::RegionB, last),
                (last + ahead, last),
            );
            assert!(
                judgement.lost_nothing(),
                "{last}+{ahead}: {}",
                judgement.describe()
            );
            assert_eq!(
                (judgement.region_a.last, judgement.region_b.last),
                (last + ahead, last)
            );
        }
    }
}

#[test]
fn a_flipped_byte_is_torn_and_its_slot_is_named() {
    for last in [3, 8, 21] {
        let mut a = disk(Stream::RegionA, last);
        a[3 * RECORD_BYTES + 1000] ^= 0x10;
        let verdict = judge_a(&a);
        assert_eq!(verdict.torn, 1, "last {last}");
        assert_eq!(verdict.first_fault.unwrap().slot, 3);
        assert!(!verdict.is_exact_prefix());
    }
}

#[test]
fn a_write_that_tore_is_not_excused_even_if_it_was_the_last() {
    let mut a = disk(Stream::RegionA, 5);
    let next = Record {
        number: 6,
        run: 1,
        guest: GUEST,
        stream: Stream::RegionA,
        written_at: WallTime(1),
    };
    let start = 6 * RECORD_BYTES;
    a[start..start + 512].copy_from_slice(&next.encode().bytes()[..512]);
    let verdict = judge_a(&a);
    assert_eq!((verdict.last, verdict.torn), (5, 1));
}

#[test]
fn a_lost_write_between_others_is_a_gap() {
    let mut a = disk(Stream::RegionA, 5);
    a[2 * RECORD_BYTES..3 * RECORD_BYTES].fill(0);
    let verdict = judge_a(&a);
    assert_eq!((verdict.gaps, verdict.torn), (1, 0));
    let fault = verdict.first_fault.unwrap();
    assert_eq!(
        (fault.slot, fault.expected, fault.fault),
        (2, Some(2), Fault::Missing)
    );
}

#[test]
fn an_older_record_in_a_newer_slot_is_stale() {
    let mut a = disk(Stream::RegionA, 13);
    write(&mut a, 2, Stream::RegionA, 2);
    let fault = judge_a(&a).first_fault.unwrap();
    assert_eq!(
        (fault.slot, fault.expected, fault.fault),
        (2, Some(10), Fault::Stale { found: 2 })
    );
}

#[test]
fn a_write_of_the_future_makes_everything_between_a_gap() {
    let mut a = disk(Stream::RegionA, 3);
    write(&mut a, 6, Stream::RegionA, 6);
    let verdict = judge_a(&a);
    assert_eq!((verdict.last, verdict.gaps), (6, 2));
}

#[test]
fn a_record_in_a_slot_of_another_is_misplaced() {
    let mut a = disk(Stream::RegionA, 5);
    write(&mut a, 7, Stream::RegionA, 4);
    let verdict = judge_a(&a);
    assert_eq!(verdict.first_fault.unwrap().fault, Fault::Misplaced { found: 4 });
    assert_eq!(verdict.last, 5);
}

#[test]
fn a_record_of_another_stream_or_guest_is_foreign() {
    let mut a = disk(Stream::RegionA, 5);
    write(&mut a, 3, Stream::RegionB, 3);
    assert_eq!(judge_a(&a).first_fault.unwrap().fault, Fault::Foreign);

    let mut a = disk(Stream::RegionA, 5);
    write_of_guest(&mut a, 3, Stream::RegionA, 3, GUEST + 1);
    assert_eq!(judge_a(&a).first_fault.unwrap().fault, Fault::Foreign);
}

#[test]
fn disks_of_different_instants_break_the_order() {
    let order = |a, b| judge_disks(&disk(Stream::RegionA, a), &disk(Stream::RegionB, b), (0, 0));
    assert_eq!(order(4, 5).order, Order::BAhead);
    assert_eq!(order(6, 4).order, Order::BBehind);
    assert_eq!(order(20, 5).order, Order::BBehind);
    assert!(!order(4, 5).is_exact_instant());
    assert!(!order(6, 4).is_exact_instant());
}

#[test]
fn disks_of_different_guests_do_not_belong_together() {
    let mut b = disk(Stream::RegionB, 0);
    write_of_guest(&mut b, 1, Stream::RegionB, 1, GUEST + 1);
    assert_eq!(
        judge_disks(&disk(Stream::RegionA, 1), &b, (0, 0)).order,
        Order::DifferentGuests
    );
}

#[test]
fn what_was_acknowledged_and_is_absent_is_counted() {
    let judgement = judge_disks(&disk(Stream::RegionA, 10), &disk(Stream::RegionB, 10), (13, 12));
    assert!(judgement.is_exact_instant());
    assert!(!judgement.lost_nothing());
    assert_eq!(
        (judgement.acknowledged_lost_a, judgement.acknowledged_lost_b),
        (3, 2)
    );
}

#[test]
fn an_image_that_ends_before_the_region_is_an_error() {
    let short = vec![0; RECORD_BYTES];
    let range = DiskRange {
        offset: 0,
        length: 2 * RECORD_LENGTH,
    };
    assert!(RegionScan::read(&short, range, Stream::RegionA).is_err());
}

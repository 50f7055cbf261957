//! Assembled reads against an array in which each byte is missing or there.

use proptest::prelude::*;

use bytes::BufMut;

use super::{PIECES_MAXIMUM, ReadAssembly, Refusal, Room, StatusAssembly, Violation};
use crate::wire::error_code::ErrorCode;
use crate::wire::reply::WireDescriptor;

impl Room<'_> {
    fn fill(self, byte: u8) {
        match self {
            Self::Behind(mut behind) => behind.put_bytes(byte, behind.remaining_mut()),
            Self::Within(bytes) => bytes.fill(byte),
        }
    }
}

const BASE: u64 = 1000;
const LENGTH: u32 = 40;

proptest! {
    #[test]
    fn a_read_is_complete_exactly_when_each_byte_came_once(
        pieces in proptest::collection::vec((BASE - 3..BASE + 43, 0..14u32), 0..30),
    ) {
        let mut assembly = ReadAssembly::new(BASE, LENGTH);
        let mut expected = [None; LENGTH as usize];
        for (number, (offset, length)) in pieces.into_iter().enumerate() {
            let fill = u8::try_from(number + 1).unwrap();
            let place: Vec<usize> = (offset..offset + u64::from(length))
                .map(|position| usize::try_from(position.wrapping_sub(BASE)).unwrap())
                .collect();
            let fits = !place.is_empty() && place.iter().all(|index| expected.get(*index) == Some(&None));
            match assembly.piece(offset, length) {
                Ok(room) => {
                    prop_assert!(fits);
                    room.fill(fill);
                    place.iter().for_each(|index| expected[*index] = Some(fill));
                }
                Err(violation) => {
                    prop_assert!(!fits);
                    prop_assert_eq!(violation, Violation::Piece { offset, length });
                }
            }
        }
        let expected: Option<Vec<u8>> = expected.into_iter().collect();
        match (assembly.finish(), expected) {
            (Ok(Ok(content)), Some(expected)) => prop_assert_eq!(content, expected),
            (Err(Violation::Incomplete), None) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn shuffled_pieces_make_a_whole() {
    let mut assembly = ReadAssembly::new(0, LENGTH);
    for index in (0..LENGTH)
        .step_by(2)
        .chain((1..LENGTH).step_by(2).collect::<Vec<_>>().into_iter().rev())
    {
        assembly
            .piece(u64::from(index), 1)
            .unwrap()
            .fill(u8::try_from(index).unwrap());
    }
    let expected: Vec<u8> = (0..u8::try_from(LENGTH).unwrap()).collect();
    assert_eq!(assembly.finish().unwrap().unwrap(), expected);
}

#[test]
fn scattered_pieces_are_bounded() {
    let mut assembly = ReadAssembly::new(0, 1 << 20);
    let refused = (0..1 << 19)
        .map(|index| assembly.piece(index * 2, 1).err())
        .position(|error| error.is_some());
    assert_eq!(refused, Some(PIECES_MAXIMUM));
}

#[test]
fn a_refusal_wins_over_what_came() {
    let mut assembly = ReadAssembly::new(0, 1);
    assembly.piece(0, 1).unwrap();
    let refusal = || Refusal {
        code: ErrorCode::INPUT_OUTPUT,
        message: "bad".to_owned(),
    };
    assembly.refuse(refusal());
    assert_eq!(assembly.finish(), Ok(Err(refusal())));
}

#[test]
fn the_status_of_other_contexts_is_not_taken_for_the_wanted_one() {
    let run = |flags| vec![WireDescriptor { length: 1, flags }];
    let mut assembly = StatusAssembly::new(7);
    assembly.take(6, run(1)).unwrap();
    assembly.take(7, run(2)).unwrap();
    assert_eq!(assembly.take(7, run(3)), Err(Violation::WrongKind));
    let mut assembly = StatusAssembly::new(7);
    assembly.take(6, run(1)).unwrap();
    assert_eq!(assembly.finish(), Err(Violation::Incomplete));
}

//! How extents become runs of a read and descriptors of a status, against a picture of single bytes.

use proptest::prelude::*;

use super::{Content, HOLE_BYTES_MINIMUM, descriptors, runs};
use crate::export::{ExportExtent, ExtentState};

fn extents() -> impl Strategy<Value = Vec<ExportExtent>> {
    let state = prop_oneof![
        Just(ExtentState::Data),
        Just(ExtentState::Zero),
        Just(ExtentState::Hole)
    ];
    let length = prop_oneof![0..5000u64, 0..40_000u64];
    proptest::collection::vec(
        (length, state).prop_map(|(length, state)| ExportExtent { length, state }),
        0..12,
    )
}

fn flags(state: ExtentState) -> u32 {
    match state {
        ExtentState::Data => 0,
        ExtentState::Zero => 2,
        ExtentState::Hole => 3,
    }
}

proptest! {
    #[test]
    fn runs_cover_the_read_and_call_nothing_zero_that_is_not(extents in extents(), length in 1..60_000u32) {
        let picture: Vec<ExtentState> =
            extents.iter().flat_map(|extent| std::iter::repeat_n(extent.state, usize::try_from(extent.length).unwrap())).collect();
        let runs = runs(&extents, length);
        let mut position = 0;
        for run in &runs {
            prop_assert!(run.length > 0);
            if run.content == Content::Zeroes {
                prop_assert!(run.length >= HOLE_BYTES_MINIMUM);
                let end = position + run.length as usize;
                prop_assert!(picture[position..end].iter().all(|state| *state != ExtentState::Data));
            }
            position += run.length as usize;
        }
        prop_assert_eq!(position, length as usize);
        prop_assert!(runs.windows(2).all(|pair| pair[0].content != pair[1].content));
    }

    #[test]
    fn descriptors_say_what_the_extents_say(extents in extents(), length in 1..60_000u32, limit in 1..6usize) {
        let picture: Vec<u32> =
            extents.iter().flat_map(|extent| std::iter::repeat_n(flags(extent.state), usize::try_from(extent.length).unwrap())).collect();
        let told = descriptors(&extents, length, limit);
        prop_assert!(told.len() <= limit);
        prop_assert!(told.windows(2).all(|pair| pair[0].flags != pair[1].flags));
        let spelled: Vec<u32> = told.iter().flat_map(|run| std::iter::repeat_n(run.flags, run.length as usize)).collect();
        let whole = picture.len().min(length as usize);
        prop_assert_eq!(&spelled[..], &picture[..spelled.len()]);
        prop_assert!(spelled.len() == whole || told.len() == limit);
    }
}

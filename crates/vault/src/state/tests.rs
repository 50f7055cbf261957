//! States and the edits that add up to them.

use std::time::Duration;

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeDigest, Digest, Epoch, HolderNonce, Incarnation, Sequence,
    clock::WallTime,
};

use super::*;
use crate::{
    edit::{IndexChange, PackChange, SealedPoint},
    format::Position,
    records::{
        BasePoint, ChainDescription, CycleKind, Gap, OpenCycle, Pin, PointKind, PointRecord,
        VolumeDescription,
    },
    retention::RetentionPolicy,
    tree::{Attachment, RootNode, RunSummary},
};

const CHAIN: ChainId = ChainId::from_bytes([1; 16]);
const EPOCH: Epoch = Epoch {
    number: 3,
    holder: HolderNonce::from_bytes([2; 16]),
};

fn at(segment: u32, offset: u32) -> Position {
    Position { segment, offset }
}

fn digest_of(sequence: u64) -> Digest {
    Digest::of(&sequence.to_le_bytes())
}

fn sealed(sequence: u64, tail: Position) -> ChainEdit {
    let record = PointRecord {
        sequence: Sequence(sequence),
        digest: digest_of(sequence),
        parent: if sequence == 1 {
            Digest::default()
        } else {
            digest_of(sequence - 1)
        },
        epoch: EPOCH,
        cycle: sequence + 100,
        cycle_kind: CycleKind::Delta,
        kind: PointKind::AppConsistent,
        captured_at: WallTime(sequence),
        clock_offset_nanoseconds: -7,
        clock_uncertainty: Duration::from_millis(2),
        sealed_at: WallTime(sequence + 1),
        machine: Bytes::new(),
        changes: vec![ChangeDigest {
            digest: Digest::of(b"x"),
            frames: 1,
            bytes: ByteCount(9),
        }],
        messages: 4,
        stored_bytes: ByteCount(8192),
    };
    let machine = Digest::of(b"machine");
    ChainEdit::Sealed {
        point: Box::new(SealedPoint { record, machine }),
        tail,
    }
}

fn run(number: u64, first: u64, last: u64) -> RunSummary {
    RunSummary {
        number,
        entries: 5,
        levels: 1,
        root: RootNode {
            position: 4096,
            crc32: 8,
        },
        attachment: Attachment {
            position: 12288,
            length: 0,
            crc32: 0,
        },
        file_bytes: 12288,
        first_sequence: Sequence(first),
        last_sequence: Sequence(last),
    }
}

fn open(sequence: u64) -> OpenCycle {
    OpenCycle {
        cycle: 55,
        kind: CycleKind::Resync,
        epoch: EPOCH,
        base: Some(BasePoint {
            sequence: Sequence(sequence - 1),
            digest: digest_of(sequence - 1),
        }),
        sequence: Sequence(sequence),
        last_message: 6,
        watermarks: vec![ByteOffset(4096)],
        changes: vec![ChangeDigest::default()],
    }
}

/// Edits of every kind, each of which fits those before it.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn life() -> Vec<Edit> {
    let root_of = |size| VolumeDescription {
        name: "root".to_owned(),
        size: ByteCount(size),
    };
    let description = ChainDescription {
        vm: "web".to_owned(),
        volumes: vec![root_of(1 << 39)],
    };
    let volumes_set = |from, size| ChainEdit::VolumesSet {
        from: Sequence(from),
        volumes: vec![root_of(size)],
    };
    let added = |runs: Vec<RunSummary>, through, open| {
        ChainEdit::Indexed(IndexChange {
            added: runs,
            indexed_through: Some(through),
            open,
            ..IndexChange::default()
        })
    };
    let mut edits = vec![
        Edit::Generation {
            incarnation: Incarnation::from_bytes([7; 16]),
        },
        Edit::Machine {
            digest: Digest::of(b"machine"),
            specification: Bytes::from_static(b"machine"),
        },
    ];
    let mut chain = vec![ChainEdit::Created(description), ChainEdit::EpochGranted(EPOCH)];
    let point = |sequence: u64| sealed(sequence, at(u32::try_from(sequence).unwrap(), 8192));
    chain.extend((1..=2).map(point));
    chain.push(volumes_set(3, 1 << 40));
    chain.extend((3..=4).map(point));
    chain.extend([volumes_set(5, 1 << 41), volumes_set(5, 1 << 42)]);
    chain.extend((5..=6).map(point));
    chain.push(volumes_set(7, 1 << 43));
    chain.extend([
        ChainEdit::Dropped {
            first: Sequence(4),
            last: Sequence(4),
        },
        ChainEdit::Dropped {
            first: Sequence(2),
            last: Sequence(3),
        },
        ChainEdit::PinChanged {
            sequence: Sequence(5),
            pin: Some(Pin::LockedUntil(WallTime(99))),
        },
        ChainEdit::PinChanged {
            sequence: Sequence(1),
            pin: Some(Pin::Pinned),
        },
        ChainEdit::PinChanged {
            sequence: Sequence(1),
            pin: None,
        },
        ChainEdit::RetentionSet(RetentionPolicy {
            keep_all: Duration::from_secs(9),
            hourly: 1,
            daily: 2,
            weekly: 3,
            monthly: 4,
            yearly: 5,
            limit: Some(ByteCount(6)),
        }),
        added(vec![run(1, 1, 6)], at(6, 8192), None),
        added(vec![run(2, 7, 7)], at(7, 8192), Some(open(7))),
        ChainEdit::Indexed(IndexChange {
            added: vec![run(3, 1, 6)],
            removed: vec![1],
            settled_through: Some(Sequence(6)),
            ..IndexChange::default()
        }),
        ChainEdit::Packed(PackChange {
            segments: vec![1, 2],
            packs: vec![],
            into: Some(1),
            holds: vec![1, 2],
        }),
        ChainEdit::Packed(PackChange {
            segments: vec![3],
            packs: vec![1],
            into: Some(2),
            holds: vec![1, 3],
        }),
        ChainEdit::StillValid {
            sequence: Sequence(6),
            at: WallTime(1234),
        },
    ]);
    edits.extend(chain.into_iter().map(|edit| Edit::from((CHAIN, edit))));
    edits
}

fn state_of(edits: &[Edit]) -> VaultState {
    let mut state = VaultState::default();
    for edit in edits {
        state.apply(edit.clone()).unwrap();
    }
    state
}

#[test]
fn every_edit_reads_back_as_it_was_written() {
    let abandoned = Edit::from((CHAIN, ChainEdit::Abandoned { tail: at(8, 4096) }));
    let gap = Gap {
        first: Sequence(2),
        last: Sequence(4),
        parent: digest_of(1),
        digest: digest_of(4),
    };
    let others = [
        abandoned,
        Edit::from((CHAIN, ChainEdit::Gap(gap))),
        Edit::from((CHAIN, ChainEdit::Removed)),
    ];
    for edit in life()
        .into_iter()
        .chain(state_of(&life()).as_edits())
        .chain(others)
    {
        let body = edit.encode();
        assert_eq!(Edit::decode(edit.kind(), &body).unwrap(), edit);
        for length in 0..body.len() {
            assert!(
                Edit::decode(edit.kind(), &body[..length]).is_err(),
                "{edit:?} cut to {length}"
            );
        }
        let longer = [&body[..], &[0]].concat();
        assert!(Edit::decode(edit.kind(), &longer).is_err());
    }
    assert!(Edit::decode(99, &[0; 64]).is_err());
}

#[test]
fn a_checkpoint_after_any_edit_adds_up_to_the_same_state() {
    let life = life();
    for length in 0..=life.len() {
        let state = state_of(&life[..length]);
        let mut again = state_of(&state.as_edits());
        again.machines.clone_from(&state.machines);
        assert_eq!(again, state, "after {length} edits");
        if let Some(chain) = state.chain(CHAIN) {
            chain.check().unwrap();
        }
    }
}

#[test]
fn gaps_beside_one_another_are_one_and_prove_the_chain() {
    let state = state_of(&life());
    let chain = state.chain(CHAIN).unwrap();
    let gaps: Vec<_> = chain.gaps().copied().collect();
    let expected = Gap {
        first: Sequence(2),
        last: Sequence(4),
        parent: digest_of(1),
        digest: digest_of(4),
    };
    assert_eq!(gaps, [expected]);
    let points: Vec<_> = chain.points().map(|point| point.sequence.0).collect();
    assert_eq!(points, [1, 5, 6]);
    assert_eq!(chain.home_of(1).unwrap(), crate::format::SegmentName::packed(2));
    assert_eq!(chain.home_of(6).unwrap(), crate::format::SegmentName::ingested(6));
    assert_eq!(chain.home_of(2), None);
}

#[test]
fn an_edit_that_does_not_fit_is_refused_and_changes_nothing() {
    let state = state_of(&life());
    let refused = [
        ChainEdit::EpochGranted(EPOCH),
        sealed(6, at(9, 4096)),
        sealed(7, at(2, 4096)),
        ChainEdit::Dropped {
            first: Sequence(6),
            last: Sequence(6),
        },
        ChainEdit::Dropped {
            first: Sequence(2),
            last: Sequence(2),
        },
        ChainEdit::PinChanged {
            sequence: Sequence(3),
            pin: Some(Pin::Pinned),
        },
        ChainEdit::Indexed(IndexChange {
            removed: vec![9],
            ..IndexChange::default()
        }),
        ChainEdit::Packed(PackChange {
            segments: vec![1],
            ..PackChange::default()
        }),
    ];
    for edit in refused {
        let mut changed = state.clone();
        assert!(
            changed.apply(Edit::from((CHAIN, edit.clone()))).is_err(),
            "{edit:?}"
        );
        assert_eq!(changed, state, "{edit:?}");
    }
}

#[test]
fn a_tail_that_no_cycle_can_reach_is_refused() {
    let mut state = state_of(&life()[..4]);
    let before = state.clone();
    for segment in [u32::MAX, 2 << 20] {
        let edit = sealed(1, at(segment, 4096));
        assert!(state.apply(Edit::from((CHAIN, edit))).is_err());
        assert!(state == before);
    }
}

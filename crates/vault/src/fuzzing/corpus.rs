//! Makes the kept corpus from the frozen fixtures and from structures that they do not have.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, Digest, Epoch, Sequence, clock::WallTime};

use super::damaged;
use crate::{
    ChainDescription, CycleKind, Gap, OpenCycle, Pin, RetentionPolicy, VaultReader, VolumeDescription,
    edit::{ChainEdit, ChainLayoutWords, Edit, IndexChange, PackChange},
    format::{
        Group, Identity, MessageEnds, MessagePart, Position, SegmentName,
        fields::Encoder,
        record::{InBatch, RecordPlace, encode_record},
    },
    layout::VaultLayout,
    scripted::{CHAIN, HOLDER},
    segment::SegmentFile,
    tree::RunSummary,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    let directory = root().join("corpus").join(target);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), bytes).unwrap();
}

#[test]
#[ignore = "writes the corpus anew, where the fixtures were made anew or the format has grown"]
fn make_the_corpus_anew() {
    for name in ["open-cycle", "power-cut"] {
        let path = root().join("fixtures/v1").join(name);
        keep("head", name, &fs::read(path.join("head")).unwrap());
        keep_journal(&path, name);
        keep_chain(&path, name);
    }
    keep_pack();
    for edit in edits() {
        let name = format!("kind-{:02}", edit.kind());
        let body = edit.encode();
        let kind = u8::try_from(edit.kind()).unwrap();
        keep("edit", &name, &[&[kind], &body[..]].concat());
        let place = RecordPlace {
            vault: farshore_blocks::Incarnation::from_bytes([3; 16]),
            generation: 1,
            ordinal: 0,
        };
        keep(
            "journal_record",
            &name,
            &encode_record(place, edit.kind(), InBatch::ALONE, &body),
        );
    }
    keep_damage();
}

/// Pairs of journals: as they are, and as they are while a journal is written.
fn keep_journal(vault: &Path, name: &str) {
    let read = |suffix: &str| fs::read(vault.join(format!("journal/{:016}.{suffix}", 1))).unwrap();
    let (journal, mirror) = (read("journal"), read("mirror"));
    let pair = |journal: &[u8], mirror: &[u8]| {
        let mut pair = Encoder::default();
        pair.byte_string(journal).array(mirror);
        pair.done()
    };
    keep("journal_pair", name, &pair(&journal, &mirror));
    keep("journal_pair", &format!("{name}-alone"), &pair(&journal, &[]));
    let rotten = damaged(&journal, &[], &[0, 0, 0, 3, 0, 0, 0, 0]);
    keep("journal_pair", &format!("{name}-rotten"), &pair(&rotten, &mirror));
}

fn keep_chain(vault: &Path, name: &str) {
    let reader = VaultReader::open(vault).unwrap();
    let state = reader.with_chain(CHAIN, Clone::clone).unwrap();
    let layout = VaultLayout::new(vault).chain(CHAIN);
    let identity = reader.identity(CHAIN);
    for number in &state.segments {
        let segment = SegmentName::ingested(*number);
        keep(
            "segment",
            &format!("{name}-{number}"),
            &fs::read(layout.segment(segment)).unwrap(),
        );
        let file = SegmentFile::open(&layout, identity, segment).unwrap();
        let found = file.group_at(4096).unwrap().unwrap();
        keep(
            "group",
            &format!("{name}-{number}"),
            &found.group.encode(identity, found.at),
        );
        let entry = found.entries(Sequence(1)).next().unwrap();
        let mut bytes = Vec::new();
        entry.encode_into(&mut bytes).unwrap();
        keep("entry", &format!("{name}-{number}"), &bytes);
    }
    for run in &state.runs {
        let file = fs::read(layout.run(run.number)).unwrap();
        let bytes = [summary(run), file].concat();
        keep("run", &format!("{name}-{}", run.number), &bytes);
    }
}

fn summary(run: &RunSummary) -> Vec<u8> {
    let mut bytes = Encoder::default();
    bytes.u64(run.number).u64(run.entries).u8(run.levels);
    bytes.u64(run.root.position).u32(run.root.crc32);
    bytes.u64(run.attachment.position);
    bytes.u64(run.attachment.length).u32(run.attachment.crc32);
    bytes.u64(run.file_bytes);
    bytes.u64(run.first_sequence.0).u64(run.last_sequence.0);
    bytes.done()
}

/// A pack with one group of frames that have origins, and a group of one that also has sequences.
fn keep_pack() {
    let vault = root().join("fixtures/v1/open-cycle");
    let reader = VaultReader::open(&vault).unwrap();
    let layout = VaultLayout::new(&vault).chain(CHAIN);
    let identity: Identity = reader.identity(CHAIN);
    let file = SegmentFile::open(&layout, identity, SegmentName::ingested(1)).unwrap();
    let found = file.group_at(4096).unwrap().unwrap();
    let origins = found.places().map(|(origin, _)| origin).collect();
    let payload = |(offset, frame): (u32, &crate::format::StoredFrame)| {
        file.raw(offset, offset + frame.stored_bytes).unwrap()
    };
    let payloads: Vec<u8> = found.frames().flat_map(payload).collect();
    let group = Group {
        origins,
        part: MessagePart {
            index: 0,
            ends: MessageEnds::Here,
        },
        ..found.group.clone()
    };
    let name = SegmentName::packed(1);
    let at = Position::beginning_of(1);
    let directory = group.encode(identity, at);
    let mut bytes = [name.encode(identity), directory.clone(), payloads].concat();
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    keep("segment", "pack", &bytes);
    keep("group", "pack", &directory);
    // As packs are written now: their frames also say of which points they are.
    let told = Group {
        sequences: vec![group.words.sequence; group.frames.len()],
        ..group
    };
    let directory = told.encode(identity, at);
    keep("group", "pack-2", &directory);
}

const EPOCH: Epoch = Epoch {
    number: 3,
    holder: HOLDER,
};
const POSITION: Position = Position {
    segment: 2,
    offset: 8192,
};

fn open() -> OpenCycle {
    OpenCycle {
        cycle: 5,
        kind: CycleKind::Base,
        epoch: EPOCH,
        base: None,
        sequence: Sequence(1),
        last_message: 4,
        watermarks: vec![ByteOffset(4096)],
        changes: vec![ChangeDigest::default()],
    }
}

/// What happens to a chain and its points.
fn of_chains() -> Vec<ChainEdit> {
    let description = ChainDescription {
        vm: "web".to_owned(),
        volumes: vec![VolumeDescription {
            name: "disk0".to_owned(),
            size: ByteCount(8192),
        }],
    };
    let gap = Gap {
        first: Sequence(1),
        last: Sequence(2),
        parent: Digest::default(),
        digest: Digest::of(b"2"),
    };
    let pin = |pin| ChainEdit::PinChanged {
        sequence: Sequence(1),
        pin,
    };
    vec![
        ChainEdit::Created(description),
        ChainEdit::Removed,
        ChainEdit::EpochGranted(EPOCH),
        ChainEdit::Abandoned { tail: POSITION },
        ChainEdit::Packed(PackChange {
            segments: vec![1, 2],
            packs: vec![1],
            into: Some(2),
            holds: vec![1, 2],
        }),
        ChainEdit::Dropped {
            first: Sequence(1),
            last: Sequence(2),
        },
        ChainEdit::Gap(gap),
        pin(Some(Pin::LockedUntil(WallTime(7)))),
        ChainEdit::RetentionSet(RetentionPolicy {
            keep_all: Duration::from_secs(3600),
            hourly: 24,
            daily: 7,
            weekly: 4,
            monthly: 12,
            yearly: 1,
            limit: Some(ByteCount(1 << 40)),
        }),
        ChainEdit::StillValid {
            sequence: Sequence(1),
            at: WallTime(9),
        },
    ]
}

/// What happens to its files.
fn of_files() -> [ChainEdit; 4] {
    [
        ChainEdit::Indexed(IndexChange {
            removed: vec![1, 2],
            indexed_through: Some(POSITION),
            open: Some(open()),
            settled_through: Some(Sequence(1)),
            ..IndexChange::default()
        }),
        ChainEdit::VolumesSet {
            from: Sequence(2),
            volumes: vec![VolumeDescription {
                name: "root".to_owned(),
                size: ByteCount(1 << 21),
            }],
        },
        ChainEdit::Layout(ChainLayoutWords {
            tail: POSITION,
            indexed_through: POSITION,
            open: Some(open()),
            settled_through: Sequence(1),
            segments: vec![1, 2],
            packs: vec![(1, vec![3, 4])],
            next_run: 3,
            next_pack: 2,
        }),
        ChainEdit::Ended(vec![POSITION]),
    ]
}

/// One edit of each kind, with something in each of its lists.
fn edits() -> Vec<Edit> {
    let specification = Bytes::from_static(b"machine");
    let whole = [
        Edit::Generation {
            incarnation: farshore_blocks::Incarnation::from_bytes([3; 16]),
        },
        Edit::Machine {
            digest: Digest::of(&specification),
            specification,
        },
    ];
    let of_chain = of_chains().into_iter().chain(of_files());
    let of_chain = of_chain.map(|edit| Edit::from((CHAIN, edit)));
    whole
        .into_iter()
        .chain(of_chain)
        .chain(sealed_in_a_fixture())
        .collect()
}

/// The first point's record, as the journal of a fixture has it.
fn sealed_in_a_fixture() -> Option<Edit> {
    let reader = VaultReader::open(&root().join("fixtures/v1/open-cycle")).unwrap();
    let state = reader.with_chain(CHAIN, Clone::clone).unwrap();
    let record = state.points().next()?.as_ref().clone();
    let machine = Digest::of(&record.machine);
    let record = crate::PointRecord {
        machine: Bytes::new(),
        ..record
    };
    let point = Box::new(crate::edit::SealedPoint { record, machine });
    let tail = state.tail;
    Some(Edit::from((CHAIN, ChainEdit::Sealed { point, tail })))
}

/// Of each file of both fixtures: as it is, with nothing in it, and with a forged number.
fn keep_damage() {
    for file in (0..8u8).chain(128..135) {
        keep("whole_vault", &format!("whole-{file}"), &[file, 0]);
        keep(
            "whole_vault",
            &format!("empty-{file}"),
            &[file, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        );
        keep(
            "whole_vault",
            &format!("forged-{file}"),
            &[file, 1, 0, 0, 255, 1, 0, 0, 3, 0],
        );
    }
}

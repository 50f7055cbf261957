//! Random lives of a chain that is thinned, settled and compacted all the time.

use proptest::prelude::*;

use super::*;
use crate::{Go, scripted::tiny};

const SIZES: [usize; 2] = [150_000, 9_999];
const SEGMENT_LIMIT: u32 = 40_000;

#[derive(Clone)]
pub(super) enum Act {
    Seal(Vec<Vec<Write>>),
    /// With everything synced, dropped and maintained behind each message, and the vault opened again at the end.
    SealSlowly(Vec<Vec<Write>>),
    Abandon(Vec<Vec<Write>>),
    /// Drops the points whose place from the newest has its bit set.
    Drop(u32),
    Maintain,
    /// A disk grows by so many bytes, of which the last ones are written.
    Grow(u32, usize),
    /// A disk of this size is added.
    Add(usize),
    /// A disk goes away, if another one stays.
    Remove(u32),
    /// Begins a pass that is stopped when it asks so many times.
    MaintainUntil(u32),
    Reopen,
}

fn a_write() -> impl Strategy<Value = Write> {
    let place = (0u32..2).prop_flat_map(|volume| (Just(volume), 0..SIZES[volume as usize]));
    (place, 1usize..9000, 0u8..5).prop_map(|((volume, offset), length, byte)| Write {
        volume,
        offset: offset as u64,
        bytes: vec![byte; length.min(SIZES[volume as usize] - offset)],
    })
}

pub(super) fn messages() -> impl Strategy<Value = Vec<Vec<Write>>> {
    prop::collection::vec(prop::collection::vec(a_write(), 0..5), 0..4)
}

pub(super) fn an_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => messages().prop_map(Act::Seal),
        4 => messages().prop_map(Act::SealSlowly),
        2 => messages().prop_map(Act::Abandon),
        3 => any::<u32>().prop_map(Act::Drop),
        4 => Just(Act::Maintain),
        2 => (1u32..4).prop_map(Act::MaintainUntil),
        2 => Just(Act::Reopen),
        2 => (0u32..2, 1usize..70_000).prop_map(|(volume, by)| Act::Grow(volume, by)),
        1 => (1usize..70_000).prop_map(Act::Add),
        1 => (0u32..3).prop_map(Act::Remove),
    ]
}

/// Without the bytes, so that a failure can be read.
impl std::fmt::Debug for Act {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spans = |messages: &[Vec<Write>]| -> Vec<Vec<(u32, u64, usize, u8)>> {
            let span = |write: &Write| (write.volume, write.offset, write.bytes.len(), write.bytes[0]);
            messages
                .iter()
                .map(|message| message.iter().map(span).collect())
                .collect()
        };
        match self {
            Self::Seal(messages) => write!(formatter, "Seal({:?})", spans(messages)),
            Self::SealSlowly(messages) => write!(formatter, "SealSlowly({:?})", spans(messages)),
            Self::Abandon(messages) => write!(formatter, "Abandon({:?})", spans(messages)),
            Self::Drop(bits) => write!(formatter, "Drop({bits})"),
            Self::Maintain => formatter.write_str("Maintain"),
            Self::Grow(volume, by) => write!(formatter, "Grow({volume}, {by})"),
            Self::Add(size) => write!(formatter, "Add({size})"),
            Self::Remove(volume) => write!(formatter, "Remove({volume})"),
            Self::MaintainUntil(asked) => write!(formatter, "MaintainUntil({asked})"),
            Self::Reopen => formatter.write_str("Reopen"),
        }
    }
}

struct Until(u32);

impl Pace for Until {
    fn spend(&mut self, _bytes: farshore_blocks::ByteCount) -> Go {
        self.0 -= 1;
        if self.0 == 0 { Go::Stop } else { Go::On }
    }
}

fn seal_slowly(life: &mut Life, messages: &[Vec<Write>]) {
    life.nonce += 1;
    let cycle = life.source.cycle(life.epoch, life.nonce, messages);
    life.writer().begin(&cycle.begin).unwrap();
    for (number, frames) in (1..).zip(&cycle.messages) {
        let epoch = life.epoch;
        life.writer().append(epoch, number, frames, &[]).unwrap();
        life.writer().sync().unwrap();
        life.drop_points(|point| point.sequence.0 % 3 == number % 3);
        life.maintain();
    }
    life.reopen();
    life.writer().begin(&cycle.begin).unwrap();
    let point = life.writer().seal(&cycle.seal).unwrap();
    life.source.sealed(cycle, point);
}

/// Those of the writes that the disks still have room for.
pub(super) fn fitting(life: &Life, mut messages: Vec<Vec<Write>>) -> Vec<Vec<Write>> {
    for message in &mut messages {
        message.retain(|write| {
            let disk = life.source.volumes[write.volume as usize].len();
            write.offset as usize + write.bytes.len() <= disk
        });
    }
    messages
}

fn change_volumes(life: &mut Life, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    change(&mut life.source.volumes);
    let (volumes, epoch) = (life.source.description().volumes, life.epoch);
    life.writer().set_volumes(epoch, &volumes).unwrap();
}

fn grow(life: &mut Life, volume: u32, by: usize) {
    let size = life.source.volumes[volume as usize].len();
    if size == 0 {
        return;
    }
    change_volumes(life, |disks| disks[volume as usize].resize(size + by, 0));
    let end = by.min(5000);
    let offset = (size + by - end) as u64;
    let bytes = vec![7; end];
    life.seal(&[vec![Write {
        volume,
        offset,
        bytes,
    }]]);
}

fn remove(life: &mut Life, volume: u32) {
    let disks = &life.source.volumes;
    let others = (0u32..)
        .zip(disks)
        .filter(|(index, disk)| *index != volume && !disk.is_empty());
    if others.count() > 0 && (volume as usize) < disks.len() {
        change_volumes(life, |disks| disks[volume as usize].clear());
        life.seal(&[]);
    }
}

pub(super) fn act_out(life: &mut Life, act: Act) {
    match act {
        Act::Seal(messages) => {
            let messages = fitting(life, messages);
            life.seal(&messages);
        }
        Act::SealSlowly(messages) => {
            let messages = fitting(life, messages);
            seal_slowly(life, &messages);
        }
        Act::Abandon(messages) => {
            let messages = fitting(life, messages);
            life.abandon(&messages);
        }
        Act::Grow(volume, by) => grow(life, volume, by),
        Act::Add(size) => change_volumes(life, |disks| disks.push(vec![0; size])),
        Act::Remove(volume) => remove(life, volume),
        Act::Drop(bits) => {
            let newest = life.source.newest.map_or(0, |newest| newest.sequence.0);
            life.drop_points(|point| bits >> ((newest - point.sequence.0) % 32) & 1 == 1);
        }
        Act::Maintain => assert_eq!(life.maintain().ended, Ended::Done),
        Act::MaintainUntil(asked) => drop(life.maintain_at(&mut Until(asked))),
        Act::Reopen => life.reopen(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_retained_point_equals_the_disks_whatever_maintenance_did(acts in prop::collection::vec(an_act(), 1..60)) {
        let mut life = Life::new(&SIZES, tiny(SEGMENT_LIMIT));
        for (number, act) in acts.into_iter().enumerate() {
            act_out(&mut life, act);
            if number % 16 == 15 {
                life.assert_whole();
            }
        }
        life.assert_whole();
        life.maintain();
        life.assert_whole();
        life.reopen();
        life.assert_whole();
    }
}

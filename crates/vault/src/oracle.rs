//! Random lives of a vault beside plain byte vectors: every point reads as the disks were, whatever was written
//! over what, and however often the vault was opened again in between.
#![expect(clippy::cast_possible_truncation, reason = "test disks are small")]

use std::{sync::Arc, thread};

use proptest::prelude::*;

use crate::{
    ChainWriter, Vault, VaultReader,
    scripted::{CHAIN, Source, SourceCycle, Write, read_all, scratch, tiny},
    storage::LocalStorage,
    verify,
};

const SIZES: [usize; 2] = [40_000, 9_999];
const SEGMENT_LIMIT: u32 = 40_000;

#[derive(Debug, Clone)]
struct PlannedCycle {
    messages: Vec<Vec<Write>>,
    /// Behind which message the vault is closed and opened again.
    reopen_behind: Option<usize>,
    /// Whether every message is synced.
    sync: bool,
    /// Which disk is larger from this cycle on, and by how much: told before its first message, or behind it.
    grows: Option<(usize, usize, Told)>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Before,
    BehindTheFirstMessage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Sealed,
    Abandoned,
}

fn a_write() -> impl Strategy<Value = Write> {
    let place = (0u32..2).prop_flat_map(|volume| (Just(volume), 0..SIZES[volume as usize]));
    (place, 1usize..6000, 0u8..4).prop_map(|((volume, offset), length, byte)| Write {
        volume,
        offset: offset as u64,
        bytes: vec![byte; length.min(SIZES[volume as usize] - offset)],
    })
}

fn a_cycle() -> impl Strategy<Value = PlannedCycle> {
    let messages = prop::collection::vec(prop::collection::vec(a_write(), 0..5), 0..5);
    let end = prop_oneof![4 => Just(End::Sealed), 1 => Just(End::Abandoned)];
    let told = prop_oneof![Just(Told::Before), Just(Told::BehindTheFirstMessage)];
    let grows = prop::option::of((0usize..2, 1usize..80_000, told));
    (messages, prop::option::of(0usize..5), any::<bool>(), grows, end).prop_map(
        |(messages, reopen_behind, sync, grows, end)| PlannedCycle {
            messages,
            reopen_behind,
            sync,
            grows,
            end,
        },
    )
}

fn ship(writer: &mut ChainWriter, cycle: &SourceCycle, range: std::ops::Range<usize>, sync: bool) {
    for number in range {
        let message = number as u64 + 1;
        writer
            .append(cycle.begin.epoch, message, &cycle.messages[number], &[])
            .unwrap();
        if sync {
            assert_eq!(writer.sync().unwrap().message_number, message);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_point_equals_the_disks_whatever_happened_between(plans in prop::collection::vec(a_cycle(), 1..7)) {
        let directory = scratch();
        let path = directory.path().join("vault");
        let mut vault = Vault::create_on(&path, Arc::new(LocalStorage), tiny(SEGMENT_LIMIT)).unwrap();
        let mut source = Source::new(&SIZES);
        let (mut writer, epoch) = source.enroll(&vault);
        for (nonce, plan) in (1..).zip(plans) {
            let mut messages = plan.messages;
            if let Some((volume, by, _)) = plan.grows {
                source.grow(volume, by);
                let offset = source.volumes[volume].len() as u64 - 1;
                messages.push(vec![Write { volume: volume as u32, offset, bytes: vec![9] }]);
            }
            let told = plan.grows.map(|(_, _, told)| told);
            if told == Some(Told::Before) {
                source.tell_volumes(&mut writer, epoch);
            }
            let cycle = source.cycle(epoch, nonce, &messages);
            let count = messages.len();
            let cut = plan.reopen_behind.unwrap_or(0).min(count);
            writer.begin(&cycle.begin).unwrap();
            if told == Some(Told::BehindTheFirstMessage) {
                ship(&mut writer, &cycle, 0..cut.min(count - 1).min(1), plan.sync);
                source.tell_volumes(&mut writer, epoch);
                ship(&mut writer, &cycle, cut.min(count - 1).min(1)..cut, plan.sync);
            } else {
                ship(&mut writer, &cycle, 0..cut, plan.sync);
            }
            if plan.reopen_behind.is_some() {
                drop((writer, vault));
                vault = Vault::open_on(&path, Arc::new(LocalStorage), tiny(SEGMENT_LIMIT)).unwrap();
                writer = vault.chain_writer(CHAIN).unwrap();
            }
            let held = writer.begin(&cycle.begin).unwrap().last_message as usize;
            prop_assert_eq!(held, cut);
            ship(&mut writer, &cycle, held..count, plan.sync);
            match plan.end {
                End::Sealed => {
                    let point = writer.seal(&cycle.seal).unwrap();
                    source.sealed(cycle, point);
                }
                End::Abandoned => writer.abandon(epoch, nonce).unwrap(),
            }
        }
        source.assert_equal(&VaultReader::open(&path).unwrap());
        let report = verify(&path, |_| ()).unwrap();
        prop_assert!(report.is_clean(), "{:?}", report);
        prop_assert_eq!(report.chains[0].points as usize, source.points.len());
    }
}

#[test]
fn points_are_read_while_others_are_written() {
    let directory = scratch();
    let path = directory.path().join("vault");
    let vault = Vault::create(&path).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    let fill = |nonce: u64| Write {
        volume: 1,
        offset: 0,
        bytes: vec![nonce as u8; SIZES[1]],
    };
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let reader = VaultReader::open(&path).unwrap();
            let mut reads = 0;
            loop {
                let points = reader.points(CHAIN).unwrap();
                let Some(newest) = points.last() else { continue };
                let disks = read_all(&reader, newest.sequence);
                assert_eq!(disks[1], vec![newest.sequence.0 as u8; SIZES[1]]);
                reads += 1;
                if newest.sequence.0 == 150 {
                    return reads;
                }
            }
        });
        for nonce in 1..=150 {
            source.replicate(&mut writer, epoch, nonce, &[vec![fill(nonce)]]);
        }
        assert!(reading.join().unwrap() > 1);
    });
}

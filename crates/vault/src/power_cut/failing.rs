//! A disk that is full or fails at any operation fails what was being done, with a reason, and nothing else.

use std::error::Error;

use super::{
    SEGMENT_LIMIT, SIZES,
    disk::{Disk, Loss, materialize},
    recording::{Fault, Recording},
};
use crate::{
    AppendRefused, BeginRefused, ChainWriter, PointRecord, SealRefused, SyncRefused, Vault, VaultReader,
    scripted::{CHAIN, Source, SourceCycle, Write, read_all, scratch, tiny, write},
    verify,
};

/// How a source goes on after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// With the same writer, unless that refuses.
    Same,
    /// With the vault opened again.
    Reopened,
}

/// Ships the cycle from wherever it stands.
fn try_to_ship(writer: &mut ChainWriter, cycle: &SourceCycle) -> Result<PointRecord, Box<dyn Error>> {
    if let Ok(sealed) = writer.seal(&cycle.seal) {
        return Ok(sealed);
    }
    let open = writer.begin(&cycle.begin)?;
    for (message, frames) in (1..)
        .zip(&cycle.messages)
        .filter(|(message, _)| *message > open.last_message)
    {
        writer.append(cycle.begin.epoch, message, frames, &[])?;
        writer.sync()?;
    }
    Ok(writer.seal(&cycle.seal)?)
}

fn is_a_reason(error: &(dyn Error + 'static)) -> bool {
    let text = error.to_string();
    error.is::<BeginRefused>()
        || error.is::<AppendRefused>()
        || error.is::<SyncRefused>()
        || error.is::<SealRefused>() && !text.is_empty()
}

/// Two cycles on a disk that fails at `fault`; gives whether it was reached.
fn survive(fault: &Fault, retry: Retry) -> bool {
    let directory = scratch();
    let path = directory.path().join("vault");
    let storage = Recording::of(directory.path());
    let mut vault = Some(Vault::create_on(&path, storage.clone(), tiny(SEGMENT_LIMIT)).unwrap());
    let mut source = Source::new(&SIZES);
    let (writer, epoch) = source.enroll(vault.as_ref().unwrap());
    let mut writer = Some(writer);
    let setup = storage.position();
    let operations = setup + fault.operations.start..setup + fault.operations.end;
    storage.fail(Some(Fault { operations }));
    let cycles: [&[Vec<Write>]; 2] = [
        &[
            vec![write(0, 0, 1, 4000), write(0, 100, 2, 1000)],
            vec![write(1, 0, 3, 2500)],
        ],
        &[
            vec![write(0, 50, 4, 100)],
            vec![write(0, 60, 5, 3000), write(1, 9, 6, 900)],
        ],
    ];
    for (nonce, messages) in (1..).zip(cycles) {
        let cycle = source.cycle(epoch, nonce, messages);
        let mut attempts = 0;
        let point = loop {
            attempts += 1;
            assert!(attempts < 50, "{fault:?}");
            let shipped = match writer.as_mut() {
                Some(writer) => try_to_ship(writer, &cycle),
                None => Err("not open".into()),
            };
            match shipped {
                Ok(point) => break point,
                Err(error) => assert!(writer.is_none() || is_a_reason(error.as_ref()), "{error}"),
            }
            // Older points are whole all the while.
            source.assert_equal_or_one_more(&VaultReader::open(&path).unwrap());
            let broken = writer
                .as_mut()
                .is_none_or(|writer| matches!(writer.sync(), Err(SyncRefused::Broken(_))));
            if broken || retry == Retry::Reopened {
                drop((writer.take(), vault.take()));
                vault = Vault::open_on(&path, storage.clone(), tiny(SEGMENT_LIMIT)).ok();
                writer = vault.as_ref().and_then(|opened| opened.chain_writer(CHAIN).ok());
            }
        };
        source.sealed(cycle, point);
    }
    source.assert_equal(&VaultReader::open(&path).unwrap());
    assert!(verify(&path, |_| ()).unwrap().is_clean());
    // Also what a failed sync left in the cache alone must have reached the disk by another one.
    let mut disk = Disk::default();
    for operation in storage.operations() {
        disk.apply(&operation);
    }
    let after = scratch();
    materialize(&disk.after(Loss::Everything), after.path());
    source.assert_equal(&VaultReader::open(&after.path().join("vault")).unwrap());
    storage.position() > setup + fault.operations.start
}

#[test]
fn a_disk_that_is_full_or_fails_at_any_operation_fails_the_cycle_and_nothing_else() {
    for retry in [Retry::Same, Retry::Reopened] {
        for duration in [1, 4] {
            let mut start = 0;
            while survive(
                &Fault {
                    operations: start..start + duration,
                },
                retry,
            ) {
                start += 1;
            }
            assert!(start > 30, "{start}");
        }
    }
}

#[test]
fn a_full_disk_is_named_as_the_reason() {
    let directory = scratch();
    let storage = Recording::of(directory.path());
    let vault = Vault::create_on(
        &directory.path().join("vault"),
        storage.clone(),
        tiny(SEGMENT_LIMIT),
    )
    .unwrap();
    let source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    let cycle = source.cycle(epoch, 1, &[vec![write(0, 0, 1, 4000)]]);
    writer.begin(&cycle.begin).unwrap();
    let operations = storage.position() + 1..usize::MAX;
    storage.fail(Some(Fault { operations }));
    match writer.append(epoch, 1, &cycle.messages[0], &[]) {
        Err(AppendRefused::Storage(error)) => assert!(error.is_out_of_space(), "{error}"),
        other => panic!("{other:?}"),
    }
    storage.fail(None);
    cycle.append_from(&mut writer, 1);
    let point = writer.seal(&cycle.seal).unwrap();
    assert_eq!(read_all(&vault.reader().unwrap(), point.sequence), cycle.after);
}

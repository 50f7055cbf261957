//! A read fails, whichever: what was going on fails with it, by an error, and nothing is lost or wrong afterwards.

use std::{error::Error, fs, path::Path, sync::Arc};

use farshore_blocks::{Sequence, clock::WallTime};

use crate::{
    Pin, RetentionPolicy, Unlimited, Vault, VaultReader,
    damage::faults,
    scripted::{CHAIN, Source, SourceCycle, Write, scratch, tiny, try_to_read_all, write},
    storage::LocalStorage,
    vault::Limits,
    verify,
    writer::FlushLimits,
};

const SIZES: [usize; 2] = [65_536, 9000];
const SEGMENT_BYTES: u32 = 30_000;

/// Whether a vault was maintained since its points were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upkeep {
    Done,
    Due,
}

/// A vault with runs, gaps, groups that are in no run, an open cycle of two acknowledged messages and, if its upkeep was
/// done, packs.
fn a_vault(path: &Path, upkeep: Upkeep) -> (Source, SourceCycle) {
    let vault = Vault::create_on(path, Arc::new(LocalStorage), tiny(SEGMENT_BYTES)).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    for (nonce, byte) in (1..=8).zip(1u8..) {
        let stays = write(0, 4096 * nonce, byte, 3000);
        let goes = write(1, 0, byte, 8000);
        source.replicate(&mut writer, epoch, nonce, &[vec![stays, goes]]);
    }
    vault.pin(CHAIN, Sequence(3), Pin::Pinned).unwrap();
    let nothing = RetentionPolicy {
        keep_all: std::time::Duration::ZERO,
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        limit: None,
    };
    vault.set_retention(CHAIN, &nothing).unwrap();
    vault.thin(CHAIN, WallTime(1000)).unwrap();
    source
        .points
        .retain(|(point, _)| [3, 8].contains(&point.sequence.0));
    if upkeep == Upkeep::Done {
        vault.maintain(CHAIN, &mut Unlimited).unwrap();
    }
    drop((writer, vault));
    // The open cycle stays out of the index, so that its groups are read when the chain is opened.
    let limits = Limits {
        flush: FlushLimits::default(),
        ..tiny(SEGMENT_BYTES)
    };
    let vault = Vault::open_on(path, Arc::new(LocalStorage), limits).unwrap();
    let mut writer = vault.chain_writer(CHAIN).unwrap();
    let messages: [Vec<Write>; 3] = [
        vec![write(0, 0, 7, 6000)],
        vec![write(1, 50, 8, 600)],
        vec![write(0, 100, 9, 50)],
    ];
    let cycle = source.cycle(epoch, 50, &messages);
    writer.begin(&cycle.begin).unwrap();
    for (number, frames) in (1..=2).zip(&cycle.messages) {
        writer.append(epoch, number, frames, &[]).unwrap();
    }
    writer.sync().unwrap();
    source.assert_equal(&VaultReader::open(path).unwrap());
    (source, cycle)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let into = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &into),
            false => drop(fs::copy(entry.path(), into).unwrap()),
        }
    }
}

/// Every read that does not fail is right.
fn read(path: &Path, source: &Source) -> Result<(), Box<dyn Error>> {
    let reader = VaultReader::open(path)?;
    let points = reader.points(CHAIN)?;
    for (point, (sealed, disks)) in points.iter().zip(&source.points) {
        assert_eq!(point.digest, sealed.digest);
        assert!(try_to_read_all(&reader, point.sequence)? == *disks, "wrong bytes");
    }
    let report = verify(path, |_| ())?;
    assert!(report.is_clean() || faults::has_failed());
    Ok(())
}

/// Goes on with the open cycle, seals it and lets the vault be maintained.
fn go_on(path: &Path, cycle: &SourceCycle) -> Result<(), Box<dyn Error>> {
    let vault = Vault::open_on(path, Arc::new(LocalStorage), tiny(SEGMENT_BYTES))?;
    let mut writer = vault.chain_writer(CHAIN)?;
    let open = writer.begin(&cycle.begin)?;
    assert_eq!(open.last_message, 2, "acknowledged messages were cut off");
    cycle.append_from(&mut writer, 3);
    writer.seal(&cycle.seal)?;
    vault.maintain(CHAIN, &mut Unlimited)?;
    Ok(())
}

/// Runs `act` with every read failing in its turn, each time on a fresh copy; gives how many there were.
fn with_each_read_failing(upkeep: Upkeep, act: impl Fn(&Path, &Source, &SourceCycle)) -> usize {
    let directory = scratch();
    let original = directory.path().join("vault");
    let (source, cycle) = a_vault(&original, upkeep);
    for passing in 0.. {
        let path = directory.path().join("copy");
        copy(&original, &path);
        faults::fail_after(Some(passing));
        act(&path, &source, &cycle);
        let reached = faults::has_failed();
        faults::fail_after(None);
        // Without the fault everything is as if nothing had happened.
        let reader = VaultReader::open(&path).unwrap();
        let sealed = reader.points(CHAIN).unwrap().len() > source.points.len();
        if !sealed {
            go_on(&path, &cycle).unwrap();
        }
        let mut after = source.clone();
        let points = reader.points(CHAIN).unwrap();
        after.sealed(cycle.clone(), points.last().unwrap().clone());
        after.assert_equal(&reader);
        assert!(verify(&path, |_| ()).unwrap().is_clean());
        fs::remove_dir_all(&path).unwrap();
        if !reached {
            return passing;
        }
    }
    0
}

#[test]
fn a_read_that_fails_is_an_error_and_never_wrong_bytes() {
    let reads = with_each_read_failing(Upkeep::Done, |path, source, _| {
        let _ = read(path, source);
    });
    assert!(reads > 50, "{reads}");
}

#[test]
fn a_read_that_fails_while_a_chain_is_opened_or_sealed_loses_nothing() {
    let reads = with_each_read_failing(Upkeep::Done, |path, _, cycle| {
        let _ = go_on(path, cycle);
    });
    assert!(reads > 20, "{reads}");
}

#[test]
fn a_read_that_fails_while_a_chain_is_maintained_loses_nothing() {
    let maintain = |path: &Path| -> Result<(), Box<dyn Error>> {
        let vault = Vault::open_on(path, Arc::new(LocalStorage), tiny(SEGMENT_BYTES))?;
        vault.maintain(CHAIN, &mut Unlimited)?;
        Ok(())
    };
    let reads = with_each_read_failing(Upkeep::Due, |path, _, _| {
        let _ = maintain(path);
    });
    assert!(reads > 30, "{reads}");
}

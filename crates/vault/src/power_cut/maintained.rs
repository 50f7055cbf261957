//! The power is cut, and the disk fails, after every single operation of thinning, settling and compaction.
#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]

use std::collections::BTreeMap;

use farshore_blocks::Sequence;

use super::*;
use crate::{
    Ended, Unlimited,
    retention::{GoReason, LimitStanding, RetentionPlan, StayReason, Verdict},
};

/// Room for several points in a segment, so that segments die in part.
pub(super) const PACKED_LIMIT: u32 = 60_000;

/// What has to be there after a cut.
struct Expected {
    /// Operations before this were done before.
    from: usize,
    points: Vec<Sequence>,
}

struct MaintainedLife {
    operations: Vec<Operation>,
    /// During which operations the chain was thinned and maintained.
    maintained: Vec<std::ops::Range<usize>>,
    /// What was listed from when on.
    listed: Vec<Expected>,
    disks: BTreeMap<Sequence, Vec<Vec<u8>>>,
}

pub(super) fn drop_points(vault: &Vault, points: &mut Vec<Sequence>, goes: impl Fn(u64) -> bool) {
    let newest = points.last().copied();
    let verdict = |point: &Sequence| match goes(point.0) && Some(*point) != newest {
        true => (*point, Verdict::Goes(GoReason::Thinned)),
        false => (*point, Verdict::Stays(vec![StayReason::InWindow])),
    };
    let plan = RetentionPlan {
        drop: Vec::new(),
        verdicts: points.iter().map(verdict).collect(),
        stays_bytes: farshore_blocks::ByteCount(0),
        limit: LimitStanding::Unlimited,
    };
    vault.chain_handle(CHAIN).unwrap().carry_out(&plan).unwrap();
    points.retain(|point| !goes(point.0) || Some(*point) == newest);
}

/// Twelve points, of which some are dropped and the rest maintained, three times.
fn live(root: &Path) -> MaintainedLife {
    let storage = Recording::of(root);
    let vault = Vault::create_on(&root.join("vault"), storage.clone(), tiny(PACKED_LIMIT)).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    let mut points = Vec::new();
    let mut listed = Vec::new();
    let mut expect = |points: &Vec<Sequence>| {
        listed.push(Expected {
            from: storage.position(),
            points: points.clone(),
        });
    };
    let mut packed = 0;
    let mut maintained = Vec::new();
    for number in 1..=12u64 {
        let start = number * 700 % 4000;
        let byte = number as u8;
        let messages = [
            vec![write(0, start, byte, 4000)],
            vec![write(1, start / 2, byte, 900)],
        ];
        source.replicate(&mut writer, epoch, number, &messages);
        points.push(Sequence(number));
        expect(&points);
        if number % 4 == 0 {
            let from = storage.position();
            drop_points(&vault, &mut points, |point| point % 4 != 1);
            expect(&points);
            let done = vault.maintain(CHAIN, &mut Unlimited).unwrap();
            assert_eq!(done.ended, Ended::Done);
            packed += done.packed_bytes.0;
            maintained.push(from..storage.position());
        }
    }
    assert!(packed > 0);
    let disks = source
        .points
        .iter()
        .map(|(point, disks)| (point.sequence, disks.clone()));
    MaintainedLife {
        operations: storage.operations(),
        maintained,
        disks: disks.collect(),
        listed,
    }
}

impl MaintainedLife {
    /// Opens what a cut left: the points of before or of after what was under way are there, and no others, and
    /// maintenance can go on.
    fn check(&self, cut: usize, image: &Image) -> Checked {
        let directory = scratch();
        materialize(image, directory.path());
        let path = directory.path().join("vault");
        self.check_points(cut, &path)?;
        let vault = Vault::open_on(&path, Recording::of(directory.path()), tiny(PACKED_LIMIT))?;
        let _writer = vault.chain_writer(CHAIN)?;
        self.check_points(cut, &path)?;
        ensure(verify(&path, |_| ())?.is_clean(), "a chain cannot be proven")?;
        vault.maintain(CHAIN, &mut Unlimited)?;
        self.check_points(cut, &path)?;
        ensure(
            verify(&path, |_| ())?.is_clean(),
            "a maintained chain cannot be proven",
        )
    }

    fn check_points(&self, cut: usize, path: &Path) -> Checked {
        let reader = VaultReader::open(path)?;
        let listed: Vec<_> = reader.points(CHAIN)?.iter().map(|point| point.sequence).collect();
        let behind = self.listed.partition_point(|expected| expected.from <= cut);
        let known = self.listed.get(behind.saturating_sub(1)..=behind);
        let known = known.unwrap_or(&self.listed[behind - 1..]);
        ensure(
            known.iter().any(|expected| expected.points == listed),
            "other points are listed",
        )?;
        for point in listed {
            let same = try_to_read_all(&reader, point)? == self.disks[&point];
            ensure(same, "a point reads wrong")?;
        }
        Ok(())
    }

    fn check_all(&self, ignored: impl Fn(&Operation) -> bool) -> Checked {
        let mut disk = Disk::holding(&Image::new(), Replaces::Synced);
        for cut in 0..=self.operations.len() {
            if self
                .maintained
                .iter()
                .any(|during| during.contains(&cut) || during.end == cut)
            {
                for loss in [Loss::Everything, Loss::Nothing, Loss::Some(1), Loss::Some(2)] {
                    self.check(cut, &disk.after(loss))
                        .map_err(|error| format!("cut after {cut}, losing {loss:?}: {error}"))?;
                }
            }
            if let Some(operation) = self.operations.get(cut).filter(|operation| !ignored(operation)) {
                disk.apply(operation);
            }
        }
        Ok(())
    }
}

#[test]
fn maintenance_that_is_cut_off_after_any_operation_loses_nothing() {
    let directory = scratch();
    let life = live(directory.path());
    life.check_all(|_| false).unwrap();
}

#[test]
fn no_sync_of_maintenance_can_be_left_out() {
    let directory = scratch();
    let life = live(directory.path());
    let is_pack = |path: &Path| path.extension().is_some_and(|suffix| suffix == "pack");
    let packs = |operation: &Operation| matches!(operation, Operation::Sync(path) if is_pack(path));
    let names = |operation: &Operation| matches!(operation, Operation::SyncDirectory(path) if path.ends_with("segments"));
    let runs = |operation: &Operation| matches!(operation, Operation::Sync(path) if path.to_string_lossy().contains("runs/"));
    assert!(life.operations.iter().any(packs));
    assert!(life.check_all(packs).is_err());
    assert!(life.check_all(names).is_err());
    assert!(life.check_all(runs).is_err());
}

/// Maintains a chain on a disk that fails at one operation; gives whether it was reached.
fn survive(failing: usize) -> bool {
    let directory = scratch();
    let path = directory.path().join("vault");
    let storage = Recording::of(directory.path());
    let vault = Vault::create_on(&path, storage.clone(), tiny(PACKED_LIMIT)).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    let mut points = Vec::new();
    for number in 1..=12u64 {
        let messages = [vec![
            write(0, number * 300, number as u8, 4000),
            write(1, 0, 1, 900),
        ]];
        source.replicate(&mut writer, epoch, number, &messages);
        points.push(Sequence(number));
    }
    drop_points(&vault, &mut points, |point| point % 4 != 1);
    source
        .points
        .retain(|(point, _)| points.contains(&point.sequence));
    let start = storage.position() + failing;
    storage.fail(Some(Fault {
        operations: start..start + 1,
    }));
    let reached = vault.maintain(CHAIN, &mut Unlimited).is_err() || storage.position() > start;
    source.assert_equal(&VaultReader::open(&path).unwrap());
    storage.fail(None);
    let done = vault.maintain(CHAIN, &mut Unlimited).unwrap();
    assert_eq!(done.ended, Ended::Done);
    source.assert_equal(&VaultReader::open(&path).unwrap());
    drop((writer, vault));
    let vault = Vault::open_on(&path, storage.clone(), tiny(PACKED_LIMIT)).unwrap();
    let _writer = vault.chain_writer(CHAIN).unwrap();
    source.assert_equal(&VaultReader::open(&path).unwrap());
    assert!(verify(&path, |_| ()).unwrap().is_clean());
    reached
}

#[test]
fn a_disk_that_fails_at_any_operation_fails_the_pass_and_nothing_else() {
    let reached = (0..).take_while(|failing| survive(*failing)).count();
    assert!(reached > 12, "{reached}");
}

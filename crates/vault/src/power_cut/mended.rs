//! The power is cut, and the disk fails, after every single operation of making a lost index again.
#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]

use std::{collections::BTreeSet, sync::Arc};

use farshore_blocks::Sequence;

use super::{
    maintained::{PACKED_LIMIT, drop_points},
    *,
};
use crate::{
    Ended, Unlimited,
    storage::Content,
    tree::{NodeCache, Run},
};

/// A chain with a settled run, younger ones and one of an open cycle.
struct Harmed {
    storage: Arc<Recording>,
    vault: Vault,
    _writer: ChainWriter,
    source: Source,
    /// The runs that were harmed.
    harmed: BTreeSet<u64>,
}

/// Lives until the index is lost: of each two runs one is removed and one is overwritten, durably.
fn live(root: &Path) -> Harmed {
    let storage = Recording::of(root);
    let vault = Vault::create_on(&root.join("vault"), storage.clone(), tiny(PACKED_LIMIT)).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    let mut points = Vec::new();
    for number in 1..=12u64 {
        let (start, byte) = (number * 700 % 4000, number as u8);
        let messages = [
            vec![write(0, start, byte, 4000), write(1, 0, byte, 900)],
            vec![write(0, start + 100, 0, 2000)],
        ];
        source.replicate(&mut writer, epoch, number, &messages);
        points.push(Sequence(number));
        if number == 8 {
            drop_points(&vault, &mut points, |point| point % 4 != 1);
            let done = vault.maintain(CHAIN, &mut Unlimited).unwrap();
            assert!(done.packed_bytes.0 > 0);
        }
    }
    source
        .points
        .retain(|(point, _)| points.contains(&point.sequence));
    let open: Vec<_> = (0..6).map(|step| vec![write(0, step * 50, 7, 40)]).collect();
    let open = source.cycle(epoch, 50, &open);
    writer.begin(&open.begin).unwrap();
    for (number, frames) in (1..).zip(&open.messages) {
        writer.append(epoch, number, frames, &[]).unwrap();
        writer.sync().unwrap();
    }
    let handle = vault.chain_handle(CHAIN).unwrap();
    let runs = handle.state().runs;
    let newest = handle.state().newest_sequence();
    assert!(handle.state().settled_through > Sequence(0));
    assert!(runs.len() > 2 && runs.iter().any(|run| run.first_sequence > newest));
    for (number, run) in runs.iter().enumerate() {
        let path = handle.layout.run(run.number);
        if number % 2 == 0 {
            handle.disk.remove_file(&path).unwrap();
        } else {
            let mut file = handle.disk.open_file(&path, Content::Kept).unwrap();
            file.write_at(&[7; 100], 5000).unwrap();
            file.sync().unwrap();
        }
    }
    handle.disk.sync_directory(&handle.layout.runs()).unwrap();
    Harmed {
        storage,
        vault,
        _writer: writer,
        source,
        harmed: runs.iter().map(|run| run.number).collect(),
    }
}

impl Harmed {
    /// Opens what a cut left. What the journal names is what was harmed or is whole, and all can be mended.
    fn check(&self, image: &Image) -> Checked {
        let directory = scratch();
        materialize(image, directory.path());
        let path = directory.path().join("vault");
        let vault = Vault::open_on(&path, Recording::of(directory.path()), tiny(PACKED_LIMIT))?;
        let handle = vault.chain_handle(CHAIN)?;
        for summary in handle.state().runs {
            if !self.harmed.contains(&summary.number) {
                let nodes = Arc::new(NodeCache::new(0));
                Run::open(
                    &handle.layout.run(summary.number),
                    handle.identity,
                    &summary,
                    nodes,
                )?
                .check()?;
            }
        }
        let _writer = vault.chain_writer(CHAIN)?;
        let mended = vault.mend_index(CHAIN, &mut Unlimited)?;
        ensure(mended.ended == Ended::Done, "it is not mended")?;
        let reader = VaultReader::open(&path)?;
        ensure(
            reader.points(CHAIN)?.len() == self.source.points.len(),
            "other points are listed",
        )?;
        for (point, disks) in &self.source.points {
            let same = try_to_read_all(&reader, point.sequence)? == *disks;
            ensure(same, "a point reads wrong")?;
        }
        ensure(verify(&path, |_| ())?.is_clean(), "a chain cannot be proven")
    }

    fn check_all(&self, from: usize, ignored: impl Fn(&Operation) -> bool) -> Checked {
        let mut disk = Disk::holding(&Image::new(), Replaces::Synced);
        let operations = self.storage.operations();
        for cut in 0..=operations.len() {
            if cut >= from {
                for loss in [Loss::Everything, Loss::Nothing, Loss::Some(1), Loss::Some(2)] {
                    self.check(&disk.after(loss))
                        .map_err(|error| format!("cut after {cut}, losing {loss:?}: {error}"))?;
                }
            }
            if let Some(operation) = operations.get(cut).filter(|operation| !ignored(operation)) {
                disk.apply(operation);
            }
        }
        Ok(())
    }
}

#[test]
fn mending_that_is_cut_off_after_any_operation_can_be_repeated_and_needs_its_syncs() {
    let directory = scratch();
    let life = live(directory.path());
    let from = life.storage.position();
    let mended = life.vault.mend_index(CHAIN, &mut Unlimited).unwrap();
    assert_eq!((mended.runs_made, mended.faults.len()), (3, life.harmed.len()));
    life.check_all(from, |_| false).unwrap();
    let runs = |operation: &Operation| matches!(operation, Operation::Sync(path) if path.to_string_lossy().contains("runs/"));
    let names =
        |operation: &Operation| matches!(operation, Operation::SyncDirectory(path) if path.ends_with("runs"));
    assert!(life.check_all(from, runs).is_err());
    assert!(life.check_all(from, names).is_err());
}

#[test]
fn a_disk_that_fails_at_any_operation_of_a_mending_loses_nothing() {
    let survive = |failing: usize| {
        let directory = scratch();
        let life = live(directory.path());
        let start = life.storage.position() + failing;
        life.storage.fail(Some(Fault {
            operations: start..start + 1,
        }));
        let reached =
            life.vault.mend_index(CHAIN, &mut Unlimited).is_err() || life.storage.position() > start;
        life.storage.fail(None);
        life.vault.mend_index(CHAIN, &mut Unlimited).unwrap();
        let path = directory.path().join("vault");
        life.source.assert_equal(&VaultReader::open(&path).unwrap());
        assert!(verify(&path, |_| ()).unwrap().is_clean());
        reached
    };
    let reached = (0..).take_while(|failing| survive(*failing)).count();
    assert!(reached > 12, "{reached}");
}

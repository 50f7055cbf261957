//! The power is cut after every single operation of a scripted life of a vault, with unsynced names and bytes
//! lost, kept, zeroed, torn or reordered; whatever was acknowledged must be whole when the vault is opened again.
//!
//! That these tests can fail is itself tested: with any one kind of sync ignored, some cut must break a promise.

mod disk;
mod failing;
mod maintained;
mod mended;
mod recording;

use std::{error::Error, path::Path, sync::Arc};

use farshore_blocks::Epoch;

use crate::{
    ChainWriter, Vault, VaultReader,
    scripted::{CHAIN, HOLDER, OTHER_HOLDER, Source, SourceCycle, scratch, tiny, try_to_read_all, write},
    verify,
};
use disk::{Disk, Image, Loss, Replaces, materialize};
use recording::{Fault, Operation, Recording};

const SEGMENT_LIMIT: u32 = 20_000;
const SIZES: [usize; 2] = [8192, 4096];
const LOSSES: [Loss; 8] = [
    Loss::Everything,
    Loss::Nothing,
    Loss::Bytes,
    Loss::Zeroes,
    Loss::Some(1),
    Loss::Some(2),
    Loss::Some(3),
    Loss::Some(4),
];

type Ignored = Box<dyn Fn(&Operation) -> bool>;
type Checked = Result<(), Box<dyn Error>>;

/// What was done, and by which operation it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    CreateVault,
    CreateChain,
    Grant(Epoch),
    Begin(usize),
    Sync(usize, u64),
    Seal(usize),
    Abandon(usize),
    /// A volume grew.
    Grow,
    Reopen,
}

/// A life of a vault: what was done, and what it did to the disk.
struct Life {
    operations: Vec<Operation>,
    /// Each step with the operations before it began and after it was acknowledged.
    steps: Vec<(Step, usize, usize)>,
    cycles: Vec<SourceCycle>,
    /// The disks and records of all points that were sealed.
    source: Source,
}

/// Lives it.
struct Living<'storage> {
    storage: &'storage Arc<Recording>,
    steps: Vec<(Step, usize, usize)>,
    cycles: Vec<SourceCycle>,
    source: Source,
    nonce: u64,
}

impl Living<'_> {
    fn step<T>(&mut self, step: impl FnOnce(&T) -> Step, act: impl FnOnce(&mut Source) -> T) -> T {
        let start = self.storage.position();
        let done = act(&mut self.source);
        self.steps.push((step(&done), start, self.storage.position()));
        done
    }

    fn ship(
        &mut self,
        writer: &mut ChainWriter,
        epoch: Epoch,
        messages: &[Vec<crate::scripted::Write>],
    ) -> usize {
        self.nonce += 1;
        let cycle = self.source.cycle(epoch, self.nonce, messages);
        let number = self.cycles.len();
        self.cycles.push(cycle.clone());
        self.step(
            |()| Step::Begin(number),
            |_| drop(writer.begin(&cycle.begin).unwrap()),
        );
        for (message, frames) in (1..).zip(&cycle.messages) {
            writer.append(epoch, message, frames, &[]).unwrap();
            // Every second message is synced by itself; what is behind them is synced by the seal alone.
            if message % 2 == 1 {
                self.step(
                    |()| Step::Sync(number, message),
                    |_| assert!(writer.sync().unwrap().message_number == message),
                );
            }
        }
        number
    }

    fn grow(&mut self, writer: &mut ChainWriter, epoch: Epoch, (volume, by): (usize, usize)) {
        self.source.grow(volume, by);
        // The cycles that are under way end with it.
        for cycle in self.cycles.iter_mut().skip(self.source.points.len() + 1) {
            cycle.after[volume] = self.source.volumes[volume].clone();
        }
        self.step(|()| Step::Grow, |source| source.tell_volumes(writer, epoch));
    }

    fn seal(&mut self, writer: &mut ChainWriter, number: usize) {
        let cycle = self.cycles[number].clone();
        let point = self.step(|_| Step::Seal(number), |_| writer.seal(&cycle.seal).unwrap());
        self.source.sealed(cycle, point);
    }
}

fn live(root: &Path) -> Life {
    let storage = Recording::of(root);
    let mut life = Living {
        storage: &storage,
        steps: Vec::new(),
        cycles: Vec::new(),
        source: Source::new(&SIZES),
        nonce: 0,
    };
    let path = root.join("vault");
    let vault = life.step(
        |_| Step::CreateVault,
        |_| Vault::create_on(&path, storage.clone(), tiny(SEGMENT_LIMIT)).unwrap(),
    );
    life.step(
        |()| Step::CreateChain,
        |source| {
            vault.create_chain(CHAIN, &source.description()).unwrap();
        },
    );
    let epoch = life.step(
        |epoch| Step::Grant(*epoch),
        |_| vault.grant_epoch(CHAIN, HOLDER).unwrap(),
    );
    let mut writer = vault.chain_writer(CHAIN).unwrap();
    let first = [
        vec![write(0, 0, 1, 4000), write(1, 0, 2, 700)],
        vec![write(0, 1000, 3, 2000)],
        vec![write(0, 3999, 4, 50), write(1, 100, 0, 300)],
        vec![write(1, 50, 5, 100)],
    ];
    let cycle = life.ship(&mut writer, epoch, &first);
    life.seal(&mut writer, cycle);
    let second = [vec![write(0, 10, 6, 100)], vec![write(0, 60, 7, 100)]];
    let cycle = life.ship(&mut writer, epoch, &second);
    life.seal(&mut writer, cycle);
    let lost = life.ship(&mut writer, epoch, &[vec![write(0, 10, 66, 3000)]]);
    life.step(|()| Step::Abandon(lost), |_| writer.abandon(epoch, 3).unwrap());
    let epoch = life.step(
        |epoch| Step::Grant(*epoch),
        |_| vault.grant_epoch(CHAIN, OTHER_HOLDER).unwrap(),
    );
    life.grow(&mut writer, epoch, (1, 5000));
    let cycle = life.ship(
        &mut writer,
        epoch,
        &[vec![write(1, 0, 8, 2000)], vec![write(1, 3000, 9, 6000)]],
    );
    drop((writer, vault));
    let (_vault, mut writer) = life.step(|_| Step::Reopen, |_| reopen(&path, &storage).unwrap());
    let shipped = life.cycles[cycle].clone();
    writer.begin(&shipped.begin).unwrap();
    shipped.append_from(&mut writer, 2);
    life.seal(&mut writer, cycle);
    let empty = life.ship(&mut writer, epoch, &[]);
    life.grow(&mut writer, epoch, (0, 3000));
    life.seal(&mut writer, empty);
    let Living {
        steps,
        cycles,
        source,
        ..
    } = life;
    Life {
        operations: storage.operations(),
        steps,
        cycles,
        source,
    }
}

fn reopen(path: &Path, storage: &Arc<Recording>) -> Result<(Vault, ChainWriter), crate::VaultError> {
    let vault = Vault::open_on(path, storage.clone(), tiny(SEGMENT_LIMIT))?;
    let writer = vault.chain_writer(CHAIN)?;
    Ok((vault, writer))
}

/// What a vault must hold after a cut, by the steps that were acknowledged before.
#[derive(Debug, Default)]
struct Promised {
    vault: bool,
    chain: bool,
    epoch: Option<Epoch>,
    points: usize,
    /// The open cycle and its last acknowledged message.
    open: Option<(usize, u64)>,
}

impl Life {
    fn promised(&self, cut: usize) -> (Promised, Option<Step>) {
        let mut promised = Promised::default();
        for (step, start, end) in &self.steps {
            if *end > cut {
                return (promised, Some(*step).filter(|_| *start < cut));
            }
            match step {
                Step::CreateVault => promised.vault = true,
                Step::CreateChain => promised.chain = true,
                Step::Grant(epoch) => promised.epoch = Some(*epoch),
                Step::Begin(_) => {}
                Step::Sync(cycle, message) => promised.open = Some((*cycle, *message)),
                Step::Seal(_) => {
                    promised.points += 1;
                    promised.open = None;
                }
                Step::Abandon(_) => promised.open = None,
                Step::Grow | Step::Reopen => {}
            }
        }
        (promised, None)
    }

    /// Opens what a cut after `cut` operations left and checks every promise; goes on with the open cycle to see
    /// that what is held of it is right. The operations that this took are returned.
    fn check(&self, cut: usize, image: &Image) -> Result<Vec<Operation>, Box<dyn Error>> {
        let directory = scratch();
        materialize(image, directory.path());
        let path = directory.path().join("vault");
        let storage = Recording::of(directory.path());
        let (promised, in_flight) = self.promised(cut);
        let reader = match VaultReader::open(&path) {
            Err(crate::VaultError::NotAVault { .. }) if !promised.vault => {
                Vault::create_on(&path, storage, tiny(SEGMENT_LIMIT))?;
                return Ok(Vec::new());
            }
            other => other?,
        };
        if reader.chains()?.is_empty() && !promised.chain {
            let vault = Vault::open_on(&path, storage, tiny(SEGMENT_LIMIT))?;
            self.source.enroll(&vault);
            return Ok(Vec::new());
        }
        let sealing = usize::from(matches!(in_flight, Some(Step::Seal(_))));
        let listed = self.check_points(&reader)?;
        ensure(
            (promised.points..=promised.points + sealing).contains(&listed),
            "wrong number of points",
        )?;
        let (vault, mut writer) = reopen(&path, &storage)?;
        let recovery = storage.operations();
        let relisted = self.check_points(&reader)?;
        ensure(
            relisted >= listed && relisted <= promised.points + sealing,
            "recovery lost or made a point",
        )?;
        let epoch = vault.current_epoch(CHAIN)?;
        let granting = match in_flight {
            Some(Step::Grant(epoch)) => Some(epoch),
            _ => None,
        };
        ensure(epoch == promised.epoch || epoch == granting, "wrong epoch")?;
        self.go_on(&promised, in_flight, relisted, epoch, (&reader, &mut writer))?;
        ensure(verify(&path, |_| ())?.is_clean(), "a chain cannot be proven")?;
        Ok(recovery)
    }

    /// All listed points are the first of those that were sealed, and read as they should.
    fn check_points(&self, reader: &VaultReader) -> Result<usize, Box<dyn Error>> {
        let listed = reader.points(CHAIN)?;
        for (point, (sealed, disks)) in listed.iter().zip(&self.source.points) {
            ensure(point.digest == sealed.digest, "a point is another")?;
            let opened = reader.open_point(CHAIN, point.sequence)?;
            for (volume, disk) in (0..).zip(disks) {
                let size = opened.volumes()[volume as usize].size.0;
                ensure(size == disk.len() as u64, "a volume has another size")?;
                let mut bytes = vec![0; disk.len()];
                opened.read_at(
                    farshore_blocks::VolumeIndex(volume),
                    farshore_blocks::ByteOffset(0),
                    &mut bytes,
                )?;
                ensure(bytes == *disk, "a point reads wrong")?;
            }
        }
        Ok(listed.len())
    }

    fn go_on(
        &self,
        promised: &Promised,
        in_flight: Option<Step>,
        points: usize,
        epoch: Option<Epoch>,
        (reader, writer): (&VaultReader, &mut ChainWriter),
    ) -> Checked {
        let head = writer.head();
        ensure(
            head.newest.map_or(0, |point| point.sequence.0) == points as u64,
            "the newest point is not listed",
        )?;
        let Some((number, acknowledged)) = promised.open else {
            return Ok(());
        };
        let Some(open) = head.open else {
            let ended = matches!(in_flight, Some(Step::Abandon(_))) || points > promised.points;
            return ensure(ended, "an open cycle is gone");
        };
        let mut cycle = self.cycles[number].clone();
        ensure(open.cycle == cycle.begin.cycle, "another cycle is open")?;
        ensure(
            open.last_message >= acknowledged,
            "an acknowledged message is gone",
        )?;
        let epoch = epoch.ok_or("no epoch")?;
        cycle.begin.epoch = epoch;
        cycle.seal.epoch = epoch;
        let open = writer.begin(&cycle.begin)?;
        for (message, frames) in (1..)
            .zip(&cycle.messages)
            .filter(|(message, _)| *message > open.last_message)
        {
            writer.append(epoch, message, frames, &[])?;
        }
        let point = writer.seal(&cycle.seal)?;
        ensure(
            try_to_read_all(reader, point.sequence)? == cycle.after,
            "a resumed cycle reads wrong",
        )
    }

    /// Checks every cut with every loss; gives what is broken first.
    fn check_all(&self, ignored: impl Fn(&Operation) -> bool, replaces: Replaces) -> Checked {
        let mut disk = Disk::holding(&Image::new(), replaces);
        for cut in 0..=self.operations.len() {
            for loss in LOSSES {
                self.check(cut, &disk.after(loss))
                    .map_err(|error| format!("cut after {cut}, losing {loss:?}: {error}"))?;
            }
            if let Some(operation) = self.operations.get(cut).filter(|operation| !ignored(operation)) {
                disk.apply(operation);
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn a_life() -> Life {
    let directory = scratch();
    live(directory.path())
}

#[test]
fn whatever_was_acknowledged_survives_a_power_cut_after_any_operation() {
    let life = a_life();
    assert!(life.operations.len() > 80, "{}", life.operations.len());
    let second_journal = |operation: &Operation| matches!(operation, Operation::OpenFile(path, _) if path.ends_with("0000000000000002.journal"));
    assert!(
        life.operations.iter().any(second_journal),
        "the journal is never begun anew"
    );
    life.check_all(|_| false, Replaces::Synced).unwrap();
}

#[test]
fn no_sync_can_be_left_out() {
    let life = a_life();
    let chain = Path::new("vault/chains").join(CHAIN.to_string());
    let file = |folder: &'static str| move |operation: &Operation| matches!(operation, Operation::Sync(path) if path.to_string_lossy().contains(folder));
    let directory = |name: &'static str| move |operation: &Operation| matches!(operation, Operation::SyncDirectory(path) if path.ends_with(name));
    let left_out: [(&str, Ignored); 8] = [
        ("segments", Box::new(file("segments/"))),
        ("runs", Box::new(file("runs/"))),
        ("the journal", Box::new(file(".journal"))),
        ("the names of segments", Box::new(directory("segments"))),
        ("the names of runs", Box::new(directory("runs"))),
        ("the names of journals", Box::new(directory("journal"))),
        (
            "the names in a chain",
            Box::new(move |operation| matches!(operation, Operation::SyncDirectory(path) if *path == chain)),
        ),
        ("the names of chains", Box::new(directory("chains"))),
    ];
    for (what, ignored) in left_out {
        assert!(life.operations.iter().any(&ignored), "{what} are never synced");
        let broken = life.check_all(&ignored, Replaces::Synced);
        assert!(
            broken.is_err(),
            "{what}: nothing is broken when they are not synced"
        );
    }
    assert!(life.check_all(|_| false, Replaces::NotSynced).is_err());
}

#[test]
fn a_power_cut_while_recovering_from_a_power_cut_loses_nothing_more() {
    let life = a_life();
    let mut disk = Disk::holding(&Image::new(), Replaces::Synced);
    let mut recoveries = 0;
    for cut in 0..=life.operations.len() {
        for loss in [Loss::Everything, Loss::Some(5)] {
            let image = disk.after(loss);
            let recovery = life.check(cut, &image).unwrap();
            let put_right = |operation: &Operation| !matches!(operation, Operation::SyncDirectory(_));
            recoveries += usize::from(recovery.iter().any(put_right));
            let mut again = Disk::holding(&image, Replaces::Synced);
            for operation in &recovery {
                again.apply(operation);
                for loss in [Loss::Everything, Loss::Some(6)] {
                    life.check(cut, &again.after(loss)).unwrap();
                }
            }
        }
        if let Some(operation) = life.operations.get(cut) {
            disk.apply(operation);
        }
    }
    assert!(recoveries > 20, "{recoveries}");
}

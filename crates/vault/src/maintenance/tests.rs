//! What maintenance promises, beside plain byte vectors.
#![expect(clippy::cast_possible_truncation, reason = "test disks are small")]

mod forged;
mod mended;
mod month;
mod promises;
mod random;
mod slow;
mod together;

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use farshore_blocks::{Epoch, Sequence, VolumeIndex, clock::WallTime};
use tempfile::TempDir;

use super::{Ended, Maintained, Pace, Unlimited};
use crate::{
    ChainWriter, PointRecord, Vault, VaultReader,
    entry::CHUNK_BYTES,
    format::Position,
    memtable::Memtable,
    retention::{GoReason, LimitStanding, RetentionPlan, StayReason, Verdict},
    scripted::{CHAIN, Source, Write, scratch},
    segment::walk,
    storage::LocalStorage,
    tree::{NodeCache, Run},
    vault::Limits,
    verify,
    versions::{Layer, resolve},
};

/// A vault with one chain, and the disks that it protects.
struct Life {
    directory: TempDir,
    limits: Limits,
    open: Option<(Vault, ChainWriter)>,
    epoch: Epoch,
    /// Its points are those that are retained.
    source: Source,
    nonce: u64,
}

impl Life {
    fn new(sizes: &[usize], limits: Limits) -> Self {
        let directory = scratch();
        let path = directory.path().join("vault");
        let vault = Vault::create_on(&path, Arc::new(LocalStorage), limits).unwrap();
        let source = Source::new(sizes);
        let (writer, epoch) = source.enroll(&vault);
        Self {
            directory,
            limits,
            open: Some((vault, writer)),
            epoch,
            source,
            nonce: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("vault")
    }

    fn chain_path(&self) -> PathBuf {
        self.path().join("chains").join(CHAIN.to_string())
    }

    fn vault(&self) -> &Vault {
        &self.open.as_ref().unwrap().0
    }

    fn writer(&mut self) -> &mut ChainWriter {
        &mut self.open.as_mut().unwrap().1
    }

    fn reader(&self) -> VaultReader {
        VaultReader::open(&self.path()).unwrap()
    }

    fn reopen(&mut self) {
        self.open = None;
        let vault = Vault::open_on(&self.path(), Arc::new(LocalStorage), self.limits).unwrap();
        let writer = vault.chain_writer(CHAIN).unwrap();
        self.open = Some((vault, writer));
    }

    fn seal(&mut self, messages: &[Vec<Write>]) -> Sequence {
        self.nonce += 1;
        let (_, writer) = self.open.as_mut().unwrap();
        self.source.replicate(writer, self.epoch, self.nonce, messages);
        self.source.points.last().unwrap().0.sequence
    }

    fn abandon(&mut self, messages: &[Vec<Write>]) {
        self.nonce += 1;
        let cycle = self.source.cycle(self.epoch, self.nonce, messages);
        let (_, writer) = self.open.as_mut().unwrap();
        writer.begin(&cycle.begin).unwrap();
        cycle.append_from(writer, 1);
        if !messages.is_empty() {
            writer.sync().unwrap();
        }
        writer.abandon(self.epoch, self.nonce).unwrap();
    }

    /// Drops the retained points that are named, but never the newest.
    fn drop_points(&mut self, goes: impl Fn(&PointRecord) -> bool) {
        let newest = self.source.newest.map(|newest| newest.sequence);
        let goes = |point: &PointRecord| goes(point) && Some(point.sequence) != newest;
        let plan = plan_of(
            self.source
                .points
                .iter()
                .map(|(point, _)| (point.sequence, goes(point))),
        );
        self.vault()
            .chain_handle(CHAIN)
            .unwrap()
            .carry_out(&plan)
            .unwrap();
        self.source.points.retain(|(point, _)| !goes(point));
    }

    fn maintain(&self) -> Maintained {
        self.maintain_at(&mut Unlimited)
    }

    fn maintain_at(&self, pace: &mut dyn Pace) -> Maintained {
        self.vault().maintain(CHAIN, pace).unwrap()
    }

    /// Every retained point reads as the disks were, no other is there, and all of it can be proven.
    fn assert_whole(&self) {
        self.source.assert_equal(&self.reader());
        self.assert_provable();
    }

    fn assert_provable(&self) {
        let report = verify(&self.path(), |_| ()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(report.chains[0].points as usize, self.source.points.len());
    }

    /// What the files of the chain take: segments, packs and runs.
    fn chain_bytes(&self) -> u64 {
        let files = |folder| fs::read_dir(self.chain_path().join(folder)).unwrap();
        let files = files("segments").chain(files("runs"));
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    fn names(&self, folder: &str) -> BTreeSet<String> {
        let files = fs::read_dir(self.chain_path().join(folder)).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// The stored bytes of all frames of which at least one byte shows at a retained point, found by looking up every
    /// chunk at every point.
    fn live_bytes(&self) -> u64 {
        let chain = self.vault().chain_handle(CHAIN).unwrap();
        let state = chain.state();
        let nodes = Arc::new(NodeCache::new(1 << 20));
        let runs = state.runs.iter().rev();
        let runs = runs.map(|run| {
            Run::open(
                &chain.layout.run(run.number),
                chain.identity,
                run,
                Arc::clone(&nodes),
            )
            .unwrap()
        });
        let runs: Vec<_> = runs.collect();
        let mut unindexed = Memtable::default();
        let place = (&chain.layout, chain.identity);
        walk::<crate::FileError>(place, state.indexed_through, state.tail, |_, found| {
            let entries = found.entries(found.group.words.sequence);
            entries.for_each(|entry| unindexed.insert(entry));
            Ok(())
        })
        .unwrap();
        let mut layers = vec![Layer::Memtable(&unindexed)];
        layers.extend(runs.iter().map(Layer::Run));
        let mut frames = std::collections::BTreeMap::new();
        for point in state.points() {
            for (volume, disk) in (0..).zip(&self.source.volumes) {
                for chunk in 0..(disk.len() as u64).div_ceil(CHUNK_BYTES) {
                    let shown = resolve(&layers, VolumeIndex(volume), chunk, point.sequence).unwrap();
                    frames.extend(shown.iter().map(|entry| {
                        let place = &entry.place;
                        let origin = Position {
                            segment: place.segment,
                            offset: place.position,
                        };
                        ((origin, place.stored_bytes), u64::from(place.stored_bytes))
                    }));
                }
            }
        }
        frames.values().sum()
    }
}

fn plan_of(points: impl Iterator<Item = (Sequence, bool)>) -> RetentionPlan {
    let verdicts: Vec<_> = points
        .map(|(sequence, goes)| match goes {
            true => (sequence, Verdict::Goes(GoReason::Thinned)),
            false => (sequence, Verdict::Stays(vec![StayReason::InWindow])),
        })
        .collect();
    RetentionPlan {
        drop: Vec::new(),
        verdicts,
        stays_bytes: farshore_blocks::ByteCount(0),
        limit: LimitStanding::Unlimited,
    }
}

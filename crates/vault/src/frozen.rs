//! Makes the frozen fixtures in `fixtures/v1/`: small vaults that every later build must read.
//!
//! What is in them is fixed (contents, nonces, epochs, limits), so that the digests in `tests/fixtures.rs` hold
//! whenever they are made again. Only identities, inode numbers and the time of sealing differ.
//!
//! A new fixture is a new function of steps, and a line in the test at the end. What is there already is never made
//! again: `maintained` has the shape of packs and tables that earlier builds wrote.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use farshore_blocks::{
    ByteCount, ByteOffset, Epoch, Extent, HolderNonce, Sequence, VolumeIndex, clock::WallTime,
};

use crate::{
    ChainWriter, Pin, PointKind, RetentionPolicy, Unlimited, Vault, VaultReader,
    layout::VaultLayout,
    scripted::{CHAIN, OTHER_HOLDER, Source, SourceCycle, Write, write},
    storage::LocalStorage,
    vault::Limits,
    verify,
    writer::FlushLimits,
};

const SIZES: [usize; 2] = [256 * 1024, 150_000];
const SEGMENT_BYTES: u32 = 40_000;

/// A vault that is being made, with the source whose disks it holds.
pub(crate) struct Making {
    path: PathBuf,
    vault: Vault,
    source: Source,
    writer: ChainWriter,
    epoch: Epoch,
    nonce: u64,
}

impl Making {
    /// A vault whose index is flushed once it has so many entries in memory.
    fn new(path: &Path, flushed_entries: usize) -> Self {
        let limits = Limits {
            segment_bytes: SEGMENT_BYTES,
            journal_bytes: 1 << 20,
            flush: FlushLimits {
                entries: flushed_entries,
                groups: 100,
                window_entries: 40,
            },
        };
        let vault = Vault::create_on(path, Arc::new(LocalStorage), limits).unwrap();
        let source = Source::new(&SIZES);
        let (writer, epoch) = source.enroll(&vault);
        Self {
            path: path.to_owned(),
            vault,
            source,
            writer,
            epoch,
            nonce: 0,
        }
    }

    /// The next cycle, with those frames compressed that gain by it.
    fn cycle(&mut self, messages: &[Vec<Write>]) -> SourceCycle {
        self.nonce += 1;
        let mut cycle = self.source.cycle(self.epoch, self.nonce, messages);
        for frame in cycle.messages.iter_mut().flatten() {
            *frame = frame.clone().compressed(3);
        }
        cycle
    }

    /// Ships a cycle and syncs it.
    fn ship(&mut self, messages: &[Vec<Write>]) -> SourceCycle {
        let cycle = self.cycle(messages);
        self.writer.begin(&cycle.begin).unwrap();
        cycle.append_from(&mut self.writer, 1);
        self.writer.sync().unwrap();
        cycle
    }

    fn seal(&mut self, kind: PointKind, messages: &[Vec<Write>]) {
        let mut cycle = self.ship(messages);
        cycle.seal.kind = kind;
        let point = self.writer.seal(&cycle.seal).unwrap();
        self.source.sealed(cycle, point);
    }

    /// Ships a cycle and gives it up.
    fn abandon(&mut self, messages: &[Vec<Write>]) {
        self.ship(messages);
        self.writer.abandon(self.epoch, self.nonce).unwrap();
    }

    /// Ships a cycle whose messages say how far the first volume is complete, and leaves it open.
    fn leave_open(&mut self, messages: &[(Vec<Write>, u64)]) {
        let writes: Vec<_> = messages.iter().map(|(writes, _)| writes.clone()).collect();
        let cycle = self.cycle(&writes);
        self.writer.begin(&cycle.begin).unwrap();
        for ((number, frames), (_, watermark)) in (1..).zip(&cycle.messages).zip(messages) {
            let watermarks = [(VolumeIndex(0), ByteOffset(*watermark))];
            self.writer
                .append(self.epoch, number, frames, &watermarks)
                .unwrap();
            self.writer.sync().unwrap();
        }
    }

    fn tell_volumes(&mut self) {
        self.source.tell_volumes(&mut self.writer, self.epoch);
    }

    fn grant(&mut self, holder: HolderNonce) {
        self.epoch = self.vault.grant_epoch(CHAIN, holder).unwrap();
    }

    fn journal(&self, suffix: &str) -> PathBuf {
        self.path.join(format!("journal/{:016}.{suffix}", 1))
    }

    /// How the index stands: its runs, whether groups of sealed points are in none, and whether the open cycle is
    /// in one.
    fn index(&self) -> (usize, bool, bool) {
        let reader = VaultReader::open(&self.path).unwrap();
        let looked = reader.with_chain(CHAIN, |state| {
            let unindexed = state.indexed_through < state.tail;
            (state.runs.len(), unindexed, state.open.is_some())
        });
        looked.unwrap()
    }

    /// Closes the vault; nothing of the process that made it stays.
    fn close(self) -> Source {
        self.source.assert_equal(&VaultReader::open(&self.path).unwrap());
        drop((self.writer, self.vault));
        let layout = VaultLayout::new(&self.path);
        fs::remove_file(layout.lock()).unwrap();
        fs::remove_dir(layout.chain(CHAIN).leases()).unwrap();
        self.source
    }
}

/// Bytes that no compression makes shorter.
fn dense(volume: u32, range: Range<u64>) -> Write {
    let mut state = range.start ^ u64::from(volume) ^ 0x9e37_79b9_7f4a_7c15;
    let bytes = range.clone().map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    Write {
        volume,
        offset: range.start,
        bytes: bytes.collect(),
    }
}

/// Two volumes, five points under two epochs, every encoding, frames over chunks' borders, an abandoned cycle, runs
/// and groups that are in none, and a cycle that is open.
fn an_open_cycle(path: &Path) {
    let mut making = Making::new(path, 12);
    let base = [
        vec![
            dense(0, 0..3000),
            // Over the border of a chunk; over two of them; and all zero.
            dense(0, 65_000..66_500),
            write(0, 100_000, 7, 65_536),
            write(1, 40_000, 0, 50_000),
        ],
        vec![write(1, 0, 5, 30_000), dense(1, 149_000..150_000)],
    ];
    making.seal(PointKind::CrashConsistent, &base);
    making.seal(
        PointKind::AppConsistent,
        &[vec![
            dense(0, 1500..2500),
            write(0, 130_000, 0, 4096),
            write(1, 100, 6, 100),
        ]],
    );
    making.abandon(&[vec![dense(0, 8000..9000)], vec![write(1, 0, 1, 4096)]]);
    making.seal(PointKind::CrashConsistent, &[]);
    making.grant(OTHER_HOLDER);
    making.seal(
        PointKind::CrashConsistent,
        &[vec![
            dense(0, 65_500..65_600),
            write(1, 29_000, 3, 2000),
            write(0, 65_530, 9, 20),
        ]],
    );
    making.seal(PointKind::AppConsistent, &[vec![write(0, 200_000, 4, 2000)]]);
    making.leave_open(&[
        (vec![dense(0, 10_000..10_700)], 16_384),
        (vec![write(1, 1000, 0, 500), write(0, 20_000, 8, 800)], 65_536),
    ]);
    assert_eq!(making.index(), (2, true, false));
    making.close();
}

/// As a power cut leaves it: the newest record is whole in the journal alone, half a record follows there, and the
/// last group of the open cycle is torn.
fn a_power_cut(path: &Path) {
    let mut making = Making::new(path, 5);
    making.seal(
        PointKind::CrashConsistent,
        &[vec![dense(0, 4096..6000), write(1, 0, 2, 9000)]],
    );
    making.seal(PointKind::CrashConsistent, &[vec![dense(0, 5000..7000)]]);
    let mirror = making.journal("mirror");
    let mirrored = fs::read(&mirror).unwrap();
    making.seal(PointKind::AppConsistent, &[vec![write(1, 8000, 0, 4096)]]);
    let journal = making.journal("journal");
    let whole = fs::read(&journal).unwrap();
    making.leave_open(&[
        (vec![write(0, 30_000, 1, 700)], 40_000),
        (vec![dense(0, 50_000..52_000)], 60_000),
    ]);
    assert_eq!(making.index(), (2, false, true));
    making.grant(OTHER_HOLDER);
    let granted = fs::read(&journal).unwrap();
    let chain = VaultLayout::new(path).chain(CHAIN);
    let source = making.close();
    let half = |from: usize, to: usize| from + (to - from) / 2;
    fs::write(&journal, &granted[..half(whole.len(), granted.len())]).unwrap();
    fs::write(&mirror, &whole[..half(mirrored.len(), whole.len())]).unwrap();
    let mut segments: Vec<_> = fs::read_dir(chain.segments())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    let last = segments.last().unwrap();
    let bytes = fs::read(last).unwrap();
    fs::write(last, &bytes[..bytes.len() - 4096 + 1000]).unwrap();
    source.assert_equal(&VaultReader::open(path).unwrap());
}

/// Points were dropped and thinned, and what is left was carried over into a pack.
fn a_maintained_vault(path: &Path) {
    let mut making = Making::new(path, 4);
    // Frames of several blocks, of which parts are overwritten later.
    making.seal(
        PointKind::CrashConsistent,
        &[
            vec![dense(0, 0..20_000), dense(1, 4096..24_000)],
            vec![write(0, 65_536, 3, 40_000)],
        ],
    );
    for step in 0..8 {
        // What stays, what the next cycle overwrites, and a part of the first frames.
        let stays = 110_000 + 4096 * step;
        making.seal(
            PointKind::CrashConsistent,
            &[vec![
                dense(0, stays..stays + 3000),
                dense(1, 100_000..112_000),
                write(0, 2000 * step, 9, 1000),
            ]],
        );
    }
    making.vault.pin(CHAIN, Sequence(3), Pin::Pinned).unwrap();
    let policy = RetentionPolicy {
        keep_all: Duration::ZERO,
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        limit: None,
    };
    making.vault.set_retention(CHAIN, &policy).unwrap();
    making.vault.thin(CHAIN, WallTime(1000)).unwrap();
    let reader = VaultReader::open(path).unwrap();
    let retained: Vec<_> = reader
        .points(CHAIN)
        .unwrap()
        .iter()
        .map(|point| point.sequence.0)
        .collect();
    assert_eq!(retained, [3, 9]);
    making
        .source
        .points
        .retain(|(point, _)| retained.contains(&point.sequence.0));
    making.vault.maintain(CHAIN, &mut Unlimited).unwrap();
    let (packs, settled) = reader
        .with_chain(CHAIN, |state| (state.packs.len(), state.settled_through))
        .unwrap();
    assert!(
        packs > 0 && settled > Sequence(3),
        "{packs} packs, settled through {settled}"
    );
    making.leave_open(&[(vec![write(1, 10, 1, 500)], 4096)]);
    making.close();
}

/// Volumes that grew, came and went: each of three points has others, and so will the one whose cycle is open.
fn changed_volumes(path: &Path) {
    let mut making = Making::new(path, 6);
    making.seal(
        PointKind::CrashConsistent,
        &[vec![dense(0, 0..3000), write(1, 140_000, 5, 10_000)]],
    );
    making.source.grow(1, 50_000);
    making.tell_volumes();
    making.seal(
        PointKind::CrashConsistent,
        &[vec![write(1, 145_000, 6, 20_000), dense(1, 199_000..200_000)]],
    );
    making.source.volumes.push(vec![0; 30_000]);
    making.tell_volumes();
    making.seal(
        PointKind::AppConsistent,
        &[vec![
            dense(2, 0..3000),
            write(2, 29_000, 7, 1000),
            write(0, 2000, 1, 100),
        ]],
    );
    making.source.volumes[2].clear();
    making.source.grow(0, 4096);
    making.tell_volumes();
    making.leave_open(&[
        (vec![write(0, 256 * 1024 + 4000, 3, 96)], 16_384),
        (vec![dense(1, 100..900)], 65_536),
    ]);
    assert_eq!(making.index(), (2, false, false));
    making.close();
}

/// Points were dropped and thinned, what is left was carried over into a pack, a cycle was given up in the middle of a
/// segment, trimmed bytes lie over others, and later points are in runs and in none: all of the index can be made again.
fn a_mendable_vault(path: &Path) {
    let mut making = Making::new(path, 4);
    making.seal(
        PointKind::CrashConsistent,
        &[
            vec![dense(0, 0..20_000), dense(1, 4096..24_000)],
            // Shipped twice, and the second time as zeroes.
            vec![write(0, 2000, 0, 3000), write(0, 65_536, 3, 40_000)],
        ],
    );
    making.abandon(&[vec![dense(0, 8000..9000)], vec![write(1, 0, 1, 4096)]]);
    for step in 0..6 {
        let stays = 110_000 + 4096 * step;
        making.seal(
            PointKind::CrashConsistent,
            &[vec![
                dense(0, stays..stays + 3000),
                dense(1, 100_000..112_000),
                write(0, stays + 1000, 0, 500),
                write(1, 10_000 + 500 * step, 0, 400),
            ]],
        );
    }
    let policy = RetentionPolicy {
        keep_all: Duration::ZERO,
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        limit: None,
    };
    making.vault.pin(CHAIN, Sequence(4), Pin::Pinned).unwrap();
    making.vault.set_retention(CHAIN, &policy).unwrap();
    making.vault.thin(CHAIN, WallTime(1000)).unwrap();
    making
        .source
        .points
        .retain(|(point, _)| [4, 7].contains(&point.sequence.0));
    making.vault.maintain(CHAIN, &mut Unlimited).unwrap();
    for step in 0..3 {
        making.seal(
            PointKind::CrashConsistent,
            &[vec![
                dense(0, 5000..7000 + step),
                write(0, 0, 0, 1000),
                write(1, 0, 9, 100),
            ]],
        );
    }
    making.leave_open(&[(vec![write(1, 10, 1, 500)], 4096)]);
    let reader = VaultReader::open(path).unwrap();
    let state = reader.with_chain(CHAIN, Clone::clone).unwrap();
    assert!(!state.packs.is_empty() && state.runs.len() > 1);
    assert!(state.settled_through > Sequence(4) && state.ends.is_some_and(|ends| !ends.is_empty()));
    making.close();
}

/// Prints what `tests/fixtures.rs` expects of a fixture.
fn describe(name: &str, path: &Path) {
    let reader = VaultReader::open(path).unwrap();
    let mut lines = String::new();
    for record in reader.points(CHAIN).unwrap() {
        let point = reader.open_point(CHAIN, record.sequence).unwrap();
        lines += &format!("    ({:?}, \"{}\", [\n", record.kind, record.digest);
        for (volume, described) in (0..).zip(point.volumes()) {
            let whole = Extent::new(ByteOffset(0), described.size);
            let mut bytes = Vec::new();
            for piece in whole.iter().flat_map(|whole| whole.pieces(ByteCount(65_536))) {
                let mut buffer = vec![0; usize::try_from(piece.length().0).unwrap()];
                point
                    .read_at(VolumeIndex(volume), piece.start(), &mut buffer)
                    .unwrap();
                bytes.extend(buffer);
            }
            lines += &format!("        \"{}\",\n", farshore_blocks::Digest::of(&bytes));
        }
        lines += "    ]),\n";
    }
    assert!(verify(path, |_| ()).unwrap().is_clean());
    println!("{name}\n{lines}");
}

/// Makes a vault in an empty place.
type Maker = fn(&Path);

#[test]
#[ignore = "writes the fixtures that are missing; those that are there are never written again"]
fn make_the_missing_fixtures() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
    let makers: &[(&str, Maker)] = &[
        ("open-cycle", an_open_cycle),
        ("power-cut", a_power_cut),
        ("maintained", a_maintained_vault),
        ("changed-volumes", changed_volumes),
        ("mendable", a_mendable_vault),
    ];
    for (name, make) in makers {
        let path = fixtures.join(name);
        if path.exists() {
            continue;
        }
        fs::create_dir_all(&fixtures).unwrap();
        make(&path);
        describe(name, &path);
    }
}

//! What the writer promises, on a real file system.

use std::sync::Arc;

use farshore_blocks::{ByteCount, ByteOffset, ChainId, Digest, Extent, Frame, Sequence, VolumeIndex};
use tempfile::TempDir;

use super::*;
use crate::{
    Allocation, Vault, VaultError, VaultReader,
    scripted::{CHAIN, HOLDER, OTHER_HOLDER, Source, read_all, tiny, write},
    storage::LocalStorage,
    verify,
};

const SIZES: [usize; 2] = [256 * 1024, 100_000];

struct Fixture {
    directory: TempDir,
    vault: Vault,
    source: Source,
    writer: ChainWriter,
    epoch: Epoch,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let vault = Vault::create_on(
        &directory.path().join("vault"),
        Arc::new(LocalStorage),
        tiny(32_768),
    )
    .unwrap();
    let source = Source::new(&SIZES);
    let (writer, epoch) = source.enroll(&vault);
    Fixture {
        directory,
        vault,
        source,
        writer,
        epoch,
    }
}

impl Fixture {
    fn reader(&self) -> VaultReader {
        VaultReader::open(&self.directory.path().join("vault")).unwrap()
    }

    fn reopen(self) -> Self {
        let Self {
            directory,
            vault,
            source,
            writer,
            epoch,
        } = self;
        drop((vault, writer));
        let vault = Vault::open_on(
            &directory.path().join("vault"),
            Arc::new(LocalStorage),
            tiny(32_768),
        )
        .unwrap();
        let writer = vault.chain_writer(CHAIN).unwrap();
        Self {
            directory,
            vault,
            source,
            writer,
            epoch,
        }
    }
}

#[test]
fn every_point_reads_as_the_disks_were_at_its_instant() {
    let mut at = fixture();
    let first = [
        vec![write(0, 0, 1, 65536), write(1, 4096, 2, 4096)],
        vec![write(0, 1000, 3, 1000)],
    ];
    at.source.replicate(&mut at.writer, at.epoch, 1, &first);
    at.source.assert_equal(&at.reader());
    at.source.replicate(&mut at.writer, at.epoch, 2, &[]);
    at.source.replicate(
        &mut at.writer,
        at.epoch,
        3,
        &[vec![write(0, 500, 0, 2000), write(1, 0, 9, 100)]],
    );
    at.source.assert_equal(&at.reader());
    let at = at.reopen();
    at.source.assert_equal(&at.reader());
    let report = verify(at.vault.path(), |_| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.chains[0].points, report.chains[0].frames), (3, 5));
}

#[test]
fn a_point_is_not_listed_before_it_is_sealed() {
    let mut at = fixture();
    let cycle = at.source.cycle(at.epoch, 1, &[vec![write(0, 0, 1, 100)]]);
    at.writer.begin(&cycle.begin).unwrap();
    cycle.append_from(&mut at.writer, 1);
    at.writer.sync().unwrap();
    at.source.assert_equal(&at.reader());
    assert!(at.reader().open_point(CHAIN, Sequence(1)).is_err());
}

#[test]
fn a_cycle_goes_on_after_a_restart_where_it_was_durable() {
    let mut at = fixture();
    let messages = [
        vec![write(0, 0, 1, 5000), write(0, 2000, 2, 1000)],
        vec![write(0, 2500, 3, 4000), write(1, 7, 4, 5000)],
        vec![write(0, 100, 5, 100)],
    ];
    let cycle = at.source.cycle(at.epoch, 1, &messages);
    at.writer.begin(&cycle.begin).unwrap();
    let watermark = [(VolumeIndex(1), ByteOffset(4096))];
    at.writer.append(at.epoch, 1, &cycle.messages[0], &[]).unwrap();
    at.writer
        .append(at.epoch, 2, &cycle.messages[1], &watermark)
        .unwrap();
    assert_eq!(at.writer.sync().unwrap(), DurableThrough { message_number: 2 });
    at.writer.append(at.epoch, 3, &cycle.messages[2], &[]).unwrap();
    let segment = at
        .vault
        .path()
        .join("chains")
        .join(CHAIN.to_string())
        .join("segments/0000000002.segment");
    let at = at.reopen();
    assert_eq!(
        at.writer.head().open.unwrap().last_message,
        3,
        "nothing but a power cut loses it"
    );
    let length = std::fs::metadata(&segment).unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let mut at = at.reopen();
    let open = at.writer.head().open.unwrap();
    assert_eq!((open.last_message, open.cycle), (2, 1));
    assert_eq!(open.watermarks, [ByteOffset(0), ByteOffset(4096)]);
    assert_eq!(at.writer.begin(&cycle.begin).unwrap(), open);
    cycle.append_from(&mut at.writer, 3);
    let point = at.writer.seal(&cycle.seal).unwrap();
    at.source.sealed(cycle, point);
    at.source.assert_equal(&at.reader());
    assert!(verify(at.vault.path(), |_| ()).unwrap().is_clean());
}

#[test]
fn a_message_twice_is_held_once_and_a_gap_is_refused() {
    let mut at = fixture();
    let cycle = at
        .source
        .cycle(at.epoch, 1, &[vec![write(0, 0, 1, 10)], vec![write(0, 5, 2, 10)]]);
    at.writer.begin(&cycle.begin).unwrap();
    for (number, expected) in [(1, Appended::Written), (1, Appended::AlreadyHeld)] {
        let appended = at
            .writer
            .append(at.epoch, number, &cycle.messages[0], &[])
            .unwrap();
        assert_eq!(appended, expected);
    }
    let gap = at.writer.append(at.epoch, 3, &cycle.messages[1], &[]);
    assert!(matches!(
        gap,
        Err(AppendRefused::Gap {
            expected: 2,
            given: 3
        })
    ));
    cycle.append_from(&mut at.writer, 2);
    let point = at.writer.seal(&cycle.seal).unwrap();
    assert_eq!(at.writer.seal(&cycle.seal).unwrap(), point);
    let mut at = at.reopen();
    assert_eq!(at.writer.seal(&cycle.seal).unwrap(), point);
}

#[test]
fn a_fenced_source_is_refused_wherever_it_writes() {
    let mut at = fixture();
    let old = at.epoch;
    let cycle = at.source.cycle(old, 1, &[vec![write(0, 0, 1, 10)]]);
    at.writer.begin(&cycle.begin).unwrap();
    at.writer.append(old, 1, &cycle.messages[0], &[]).unwrap();
    assert_eq!(at.vault.grant_epoch(CHAIN, HOLDER).unwrap(), old);
    let new = at.vault.grant_epoch(CHAIN, OTHER_HOLDER).unwrap();
    assert_eq!(new.number, old.number + 1);
    assert!(matches!(
        at.writer.begin(&cycle.begin),
        Err(BeginRefused::WrongEpoch(_))
    ));
    let append = at.writer.append(old, 2, &cycle.messages[0], &[]);
    assert!(matches!(append, Err(AppendRefused::WrongEpoch(_))));
    assert!(matches!(
        at.writer.seal(&cycle.seal),
        Err(SealRefused::WrongEpoch(_))
    ));
    assert!(matches!(
        at.writer.abandon(old, 1),
        Err(AbandonRefused::WrongEpoch(_))
    ));
    let mut at = at.reopen();
    assert!(matches!(
        at.writer.seal(&cycle.seal),
        Err(SealRefused::WrongEpoch(_))
    ));
    assert_eq!(at.vault.current_epoch(CHAIN).unwrap(), Some(new));
    assert_eq!(at.reader().current_epoch(CHAIN).unwrap(), Some(new));
    // The new holder may not write into the old cycle unawares, but may resume it.
    let append = at.writer.append(new, 2, &cycle.messages[0], &[]);
    assert!(matches!(append, Err(AppendRefused::NotBegun { .. })));
    let resumed = at.source.cycle(new, 1, &[vec![write(0, 0, 1, 10)]]);
    at.writer.begin(&resumed.begin).unwrap();
    resumed.append_from(&mut at.writer, 1);
    at.writer.seal(&resumed.seal).unwrap();
}

#[test]
fn a_seal_that_differs_in_anything_is_refused_and_changes_nothing() {
    let mut at = fixture();
    at.source
        .replicate(&mut at.writer, at.epoch, 1, &[vec![write(0, 0, 7, 10)]]);
    let cycle = at
        .source
        .cycle(at.epoch, 2, &[vec![write(0, 0, 1, 10)], vec![write(1, 0, 2, 10)]]);
    assert!(matches!(
        at.writer.seal(&cycle.seal),
        Err(SealRefused::NoOpenCycle)
    ));
    at.writer.begin(&cycle.begin).unwrap();
    at.writer.append(at.epoch, 1, &cycle.messages[0], &[]).unwrap();
    let missing = at.writer.seal(&cycle.seal);
    assert!(matches!(
        missing,
        Err(SealRefused::Messages {
            announced: 2,
            held: 1
        })
    ));
    cycle.append_from(&mut at.writer, 2);
    let wrong = |change: &dyn Fn(&mut SealRequest)| {
        let mut request = cycle.seal.clone();
        change(&mut request);
        request
    };
    let mut seal = |request: SealRequest| at.writer.seal(&request).unwrap_err();
    let refused = seal(wrong(&|request| request.cycle = 9));
    assert!(matches!(refused, SealRefused::OtherCycle { open: 2, given: 9 }));
    let refused = seal(wrong(&|request| request.sequence = Sequence(3)));
    assert!(matches!(refused, SealRefused::WrongSequence { .. }));
    let refused = seal(wrong(&|request| request.parent = Digest::default()));
    assert!(matches!(refused, SealRefused::WrongParent { .. }));
    let refused = seal(wrong(&|request| request.changes.truncate(1)));
    assert!(matches!(
        refused,
        SealRefused::VolumeCount { given: 1, volumes: 2 }
    ));
    let refused = seal(wrong(&|request| request.changes[1].bytes.0 += 1));
    assert!(matches!(
        refused,
        SealRefused::Counts {
            volume: VolumeIndex(1),
            ..
        }
    ));
    let refused = seal(wrong(&|request| request.changes[0].digest = Digest::of(b"other")));
    assert!(matches!(
        refused,
        SealRefused::ChangeDigest {
            volume: VolumeIndex(0),
            ..
        }
    ));
    let refused = seal(wrong(&|request| request.epoch.number += 1));
    assert!(matches!(refused, SealRefused::WrongEpoch(_)));
    at.source.assert_equal(&at.reader());
    let point = at.writer.seal(&cycle.seal).unwrap();
    let otherwise = wrong(&|request| request.machine.clear());
    assert!(matches!(
        at.writer.seal(&otherwise),
        Err(SealRefused::SealedOtherwise { .. })
    ));
    at.source.sealed(cycle, point);
    at.source.assert_equal(&at.reader());
}

#[test]
fn a_cycle_on_anything_but_the_newest_point_is_refused() {
    let mut at = fixture();
    let first = at.source.cycle(at.epoch, 1, &[vec![write(0, 0, 7, 10)]]);
    for kind in [CycleKind::Delta, CycleKind::Resync] {
        let refused = at.writer.begin(&CycleBegin { kind, ..first.begin });
        assert!(matches!(refused, Err(BeginRefused::WrongKind { .. })));
    }
    at.source
        .replicate(&mut at.writer, at.epoch, 1, &[vec![write(0, 0, 7, 10)]]);
    let again = at.writer.begin(&CycleBegin {
        cycle: 2,
        ..first.begin
    });
    assert!(matches!(again, Err(BeginRefused::WrongBase { .. })));
    let next = at.source.cycle(at.epoch, 2, &[]).begin;
    let kind = CycleKind::Base;
    let base = at.writer.begin(&CycleBegin { kind, ..next });
    assert!(matches!(base, Err(BeginRefused::WrongKind { .. })));
    at.writer.begin(&next).unwrap();
    let other = at.writer.begin(&CycleBegin { cycle: 3, ..next });
    assert!(matches!(other, Err(BeginRefused::CycleOpen { open: 2 })));
}

#[test]
fn frames_outside_the_volumes_are_refused() {
    let mut at = fixture();
    let cycle = at.source.cycle(at.epoch, 1, &[]);
    at.writer.begin(&cycle.begin).unwrap();
    let frame = |volume, offset| {
        let extent = Extent::new(ByteOffset(offset), ByteCount(2)).unwrap();
        Frame::zero(VolumeIndex(volume), extent).unwrap()
    };
    let refused = at.writer.append(at.epoch, 1, &[frame(2, 0)], &[]);
    assert!(matches!(
        refused,
        Err(AppendRefused::UnknownVolume { volumes: 2, .. })
    ));
    for offset in [99_999, u64::MAX - 2] {
        let refused = at
            .writer
            .append(at.epoch, 1, &[frame(1, 0), frame(1, offset)], &[]);
        assert!(matches!(refused, Err(AppendRefused::OutOfBounds { .. })));
    }
    let watermark = (VolumeIndex(1), ByteOffset(100_001));
    let refused = at.writer.append(at.epoch, 1, &[], &[watermark]);
    assert!(matches!(refused, Err(AppendRefused::OutOfBounds { .. })));
    at.writer.seal(&cycle.seal).unwrap();
}

#[test]
fn an_abandoned_cycle_gives_its_space_back() {
    let mut at = fixture();
    at.source
        .replicate(&mut at.writer, at.epoch, 1, &[vec![write(0, 0, 7, 10)]]);
    let before = at.vault.used_bytes().unwrap();
    let cycle = at.source.cycle(at.epoch, 2, &[vec![write(0, 0, 1, 30_000)]]);
    at.writer.begin(&cycle.begin).unwrap();
    cycle.append_from(&mut at.writer, 1);
    at.writer.sync().unwrap();
    assert!(at.vault.used_bytes().unwrap().0 > before.0 + 30_000);
    assert!(matches!(
        at.writer.abandon(at.epoch, 9),
        Err(AbandonRefused::OtherCycle { .. })
    ));
    at.writer.abandon(at.epoch, 2).unwrap();
    // What is left is the flushed index, and the records of it.
    assert!(at.vault.used_bytes().unwrap().0 < before.0 + 16_384);
    assert!(matches!(
        at.writer.abandon(at.epoch, 2),
        Err(AbandonRefused::NoOpenCycle)
    ));
    at.source
        .replicate(&mut at.writer, at.epoch, 3, &[vec![write(1, 0, 1, 9000)]]);
    at.source.assert_equal(&at.reader());
}

#[test]
fn a_vault_and_a_chain_have_one_writer_each() {
    let at = fixture();
    let second = Vault::open(at.vault.path());
    assert!(matches!(second, Err(VaultError::Locked { .. })), "{second:?}");
    assert!(matches!(
        at.vault.chain_writer(CHAIN),
        Err(VaultError::WriterTaken(CHAIN))
    ));
    let path = at.vault.path().to_owned();
    drop(at.vault);
    assert!(
        matches!(Vault::open(&path), Err(VaultError::Locked { .. })),
        "the writer keeps the lock"
    );
    drop(at.writer);
    let vault = Vault::open(&path).unwrap();
    vault.chain_writer(CHAIN).unwrap();
}

#[test]
fn a_vault_is_shared_by_threads_and_a_writer_goes_to_one() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    fn goes<T: Send>(_: &T) {}
    let at = fixture();
    shared(&at.vault);
    shared(&at.reader());
    goes(&at.writer);
}

#[test]
fn a_vault_is_created_only_where_nothing_is() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        Vault::open(directory.path()),
        Err(VaultError::NotAVault { .. })
    ));
    let vault = Vault::create(directory.path()).unwrap();
    assert!(vault.free_bytes().unwrap().0 > 0);
    drop(vault);
    assert!(matches!(
        Vault::create(directory.path()),
        Err(VaultError::NotEmpty { .. })
    ));
    std::fs::remove_file(directory.path().join("head")).unwrap();
    Vault::create(directory.path()).unwrap();
}

#[test]
fn a_chain_is_created_once() {
    let at = fixture();
    at.vault.create_chain(CHAIN, &at.source.description()).unwrap();
    let mut other = at.source.description();
    // How large a volume is, the chain's writer says.
    other.volumes[0].size.0 += 1;
    at.vault.create_chain(CHAIN, &other).unwrap();
    other.volumes[0].name.push('x');
    let refused = at.vault.create_chain(CHAIN, &other);
    assert!(matches!(refused, Err(VaultError::ChainDiffers { .. })));
    other.volumes[1].name = other.volumes[0].name.clone();
    let twice = ChainId::from_bytes([9; 16]);
    assert!(matches!(
        at.vault.create_chain(twice, &other),
        Err(VaultError::DescriptionRefused)
    ));
    assert!(matches!(
        at.vault.chain_writer(twice),
        Err(VaultError::UnknownChain(_))
    ));
    assert_eq!(at.vault.chains(), [(CHAIN, at.source.description())]);
}

#[test]
fn holes_zeroes_and_data_are_told_apart() {
    let mut at = fixture();
    let writes = vec![
        write(0, 4096, 1, 4096),
        write(0, 8192, 2, 4096),
        write(0, 12288, 0, 4096),
    ];
    at.source.replicate(&mut at.writer, at.epoch, 1, &[writes]);
    let point = at.reader().open_point(CHAIN, Sequence(1)).unwrap();
    let whole = Extent::new(ByteOffset(0), ByteCount(SIZES[0] as u64)).unwrap();
    let extents: Vec<_> = point.extents(VolumeIndex(0), whole).unwrap();
    let extents: Vec<_> = extents
        .iter()
        .map(|(extent, what)| (extent.start().0, extent.length().0, *what))
        .collect();
    let expected = [
        (0, 4096, Allocation::Hole),
        (4096, 8192, Allocation::Data),
        (12288, 4096, Allocation::Zero),
        (16384, 256 * 1024 - 16384, Allocation::Hole),
    ];
    assert_eq!(extents, expected);
    assert_eq!(read_all(&at.reader(), Sequence(1))[0], at.source.volumes[0]);
}

#[test]
fn a_segment_that_was_cut_off_is_not_filled_up_with_zeroes() {
    let mut at = fixture();
    // Five groups: all of them are flushed, so that opening the chain reads none of them again.
    let messages: Vec<_> = (0..5)
        .map(|number| vec![write(0, number * 4096, 1, 4000)])
        .collect();
    let cycle = at.source.cycle(at.epoch, 1, &messages);
    at.writer.begin(&cycle.begin).unwrap();
    cycle.append_from(&mut at.writer, 1);
    at.writer.sync().unwrap();
    at.writer.seal(&cycle.seal).unwrap();
    let path = at.directory.path().join("vault");
    let segments = path.join(format!("chains/{CHAIN}/segments"));
    let Fixture {
        directory: _kept,
        vault,
        writer,
        ..
    } = at;
    drop((vault, writer));
    let mut paths: Vec<_> = std::fs::read_dir(segments)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let last = paths.last().unwrap();
    let whole = std::fs::read(last).unwrap();
    for length in [whole.len() - 1, 4096, 100] {
        std::fs::write(last, &whole[..length]).unwrap();
        let vault = Vault::open(&path).unwrap();
        let refused = vault.chain_writer(CHAIN).unwrap_err();
        assert!(
            matches!(refused, VaultError::File(FileError::Damaged(_))),
            "{refused}"
        );
        drop(vault);
        assert_eq!(std::fs::metadata(last).unwrap().len(), length as u64);
    }
    std::fs::write(last, &whole).unwrap();
    assert!(Vault::open(&path).unwrap().chain_writer(CHAIN).is_ok());
}

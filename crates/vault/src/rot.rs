//! Bytes that rot, get lost or land elsewhere: every one is an error that says where, never wrong data.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::{ByteOffset, Sequence, VolumeIndex, clock::WallTime};
use tempfile::TempDir;

use crate::{
    Opened, Pin, ReadError, RetentionPolicy, Unlimited, Vault, VaultReader,
    scripted::{CHAIN, Source, scratch, tiny, write},
    storage::LocalStorage,
    verify,
};

const SIZES: [usize; 2] = [8192, 1500];

struct Fixture {
    directory: TempDir,
    source: Source,
}

fn fixture() -> Fixture {
    let directory = scratch();
    let mut source = Source::new(&SIZES);
    let vault = Vault::create_on(
        &directory.path().join("vault"),
        Arc::new(LocalStorage),
        tiny(20_000),
    )
    .unwrap();
    let (mut writer, epoch) = source.enroll(&vault);
    let first = [
        vec![write(0, 0, 1, 1200), write(1, 100, 2, 900)],
        vec![write(0, 600, 3, 1000)],
    ];
    source.replicate(&mut writer, epoch, 1, &first);
    source.replicate(
        &mut writer,
        epoch,
        2,
        &[vec![write(0, 1000, 4, 900), write(1, 0, 0, 512)]],
    );
    for (nonce, byte) in (3..=8).zip(3u8..) {
        // The limits are so small that the index is flushed in between.
        let writes = [vec![write(0, nonce * 700, byte, 1500)], vec![write(1, 0, 9, 100)]];
        source.replicate(&mut writer, epoch, nonce, &writes);
    }
    Fixture { directory, source }
}

impl Fixture {
    fn path(&self) -> PathBuf {
        self.directory.path().join("vault")
    }

    fn chain(&self) -> PathBuf {
        self.path().join("chains").join(CHAIN.to_string())
    }

    /// Every file that holds something.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.path()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => directories.push(path),
                    false => files.push(path),
                }
            }
        }
        files.retain(|path| !path.ends_with("lock") && fs::metadata(path).unwrap().len() > 0);
        files.sort();
        files
    }

    /// Verification finds something wrong, and no read gives wrong bytes.
    fn assert_noticed(&self, what: &str) {
        if let Ok(report) = verify(&self.path(), |_| ()) {
            assert!(!report.is_clean(), "{what}: verification found nothing");
        }
        let Ok(reader) = VaultReader::open(&self.path()) else {
            return;
        };
        for (point, disks) in &self.source.points {
            let Ok(opened) = reader.open_point(CHAIN, point.sequence) else {
                continue;
            };
            for (volume, disk) in (0..).zip(disks) {
                let mut bytes = vec![0; disk.len()];
                if opened
                    .read_at(VolumeIndex(volume), ByteOffset(0), &mut bytes)
                    .is_ok()
                {
                    assert!(bytes == *disk, "{what}: point {} reads wrong", point.sequence);
                }
            }
        }
    }
}

fn changed(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A vault that was thinned, settled and compacted, with later points behind that.
fn maintained() -> Fixture {
    let directory = scratch();
    let path = directory.path().join("vault");
    let mut source = Source::new(&SIZES);
    let vault = Vault::create_on(&path, Arc::new(LocalStorage), tiny(30_000)).unwrap();
    let (mut writer, epoch) = source.enroll(&vault);
    let mut replicate = |source: &mut Source, nonce: u64| {
        let byte = u8::try_from(nonce).unwrap();
        let messages = [
            vec![
                write(0, nonce * 500, byte, 1500),
                write(0, nonce * 500 + 300, 0, 700),
            ],
            vec![write(1, 0, byte, 900)],
        ];
        source.replicate(&mut writer, epoch, nonce, &messages);
    };
    (1..=8).for_each(|nonce| replicate(&mut source, nonce));
    vault.pin(CHAIN, Sequence(3), Pin::Pinned).unwrap();
    let nothing = RetentionPolicy {
        keep_all: std::time::Duration::ZERO,
        daily: 0,
        weekly: 0,
        ..RetentionPolicy::default()
    };
    vault.set_retention(CHAIN, &nothing).unwrap();
    vault.thin(CHAIN, WallTime(1000)).unwrap();
    source
        .points
        .retain(|(point, _)| [3, 8].contains(&point.sequence.0));
    assert!(vault.maintain(CHAIN, &mut Unlimited).unwrap().packed_bytes.0 > 0);
    (9..=10).for_each(|nonce| replicate(&mut source, nonce));
    Fixture { directory, source }
}

#[test]
fn no_damaged_byte_goes_unnoticed() {
    let at = fixture();
    let files = at.files();
    assert!(files.len() >= 6, "{files:?}");
    flip_one_of(4, &at);
}

#[test]
fn no_damaged_byte_of_a_maintained_vault_goes_unnoticed() {
    let at = maintained();
    let has = |suffix| {
        at.files()
            .iter()
            .any(|path| path.extension().is_some_and(|found| found == suffix))
    };
    assert!(
        ["pack", "segment", "run", "journal", "mirror"]
            .into_iter()
            .all(has)
    );
    flip_one_of(12, &at);
}

/// Flips a bit in one byte of so many, in every file.
fn flip_one_of(share: usize, at: &Fixture) {
    at.source.assert_equal(&VaultReader::open(&at.path()).unwrap());
    assert!(verify(&at.path(), |_| ()).unwrap().is_clean());
    for path in at.files() {
        let whole = fs::read(&path).unwrap();
        for position in interesting(&whole, share) {
            // One bit of each byte; which one differs from byte to byte.
            changed(&path, |bytes| bytes[position] ^= 1 << (position % 8));
            at.assert_noticed(&format!("{} at {position}", path.display()));
            fs::write(&path, &whole).unwrap();
        }
    }
}

/// Of so many bytes that are not one of many zeroes in a row, one; of the others, a few.
fn interesting(bytes: &[u8], share: usize) -> Vec<usize> {
    let lonely = |at: &usize| {
        let around = &bytes[at.saturating_sub(8)..(at + 8).min(bytes.len())];
        at.is_multiple_of(509) || around.iter().any(|byte| *byte != 0)
    };
    let all: Vec<usize> = (0..bytes.len()).filter(lonely).collect();
    // Spread by a multiplication; of a quarter of them, every field of every structure is hit.
    let chosen = |at: &usize| (at.wrapping_mul(0x9e37_79b1) >> 7).is_multiple_of(share);
    let all: Vec<usize> = all.into_iter().filter(chosen).collect();
    // Long rows of one value are data, where every byte is like its neighbour.
    all.into_iter()
        .filter(|at| at % 41 == 0 || bytes[*at] != bytes[at.saturating_sub(1)])
        .collect()
}

#[test]
fn no_file_that_ends_too_early_goes_unnoticed() {
    let at = fixture();
    for path in at.files() {
        let whole = fs::read(&path).unwrap();
        let journal = path.starts_with(at.path().join("journal"));
        // A copy of the journal that ends too early is made whole from the other.
        if journal {
            continue;
        }
        for length in (0..whole.len()).step_by(173) {
            fs::write(&path, &whole[..length]).unwrap();
            at.assert_noticed(&format!("{} cut to {length}", path.display()));
            fs::write(&path, &whole).unwrap();
        }
    }
}

#[test]
fn a_journal_that_ends_too_early_is_made_whole_from_its_other_copy() {
    let at = fixture();
    let journal = at.path().join("journal");
    let copies: Vec<_> = at
        .files()
        .into_iter()
        .filter(|path| path.starts_with(&journal))
        .collect();
    assert_eq!(copies.len(), 2, "{copies:?}");
    for path in copies {
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(41) {
            fs::write(&path, &whole[..length]).unwrap();
            at.source.assert_equal(&VaultReader::open(&at.path()).unwrap());
            drop(Vault::open(&at.path()).unwrap());
            assert!(fs::read(&path).unwrap() == whole);
        }
    }
}

#[test]
fn a_damaged_frame_is_named_by_point_volume_and_offset() {
    let at = fixture();
    let segment = at.chain().join("segments/0000000001.segment");
    // The segment's header; the group's header and tables; frame (0, 0+1200); frame (1, 100+900).
    let payload = 4096 + 4096 + 1200;
    changed(&segment, |bytes| bytes[payload + 5] ^= 1);
    let reader = VaultReader::open(&at.path()).unwrap();
    let point = reader.open_point(CHAIN, Sequence(2)).unwrap();
    let mut buffer = [0; 1500];
    match point.read_at(VolumeIndex(1), ByteOffset(0), &mut buffer) {
        Err(ReadError::Unreadable {
            point: Sequence(2),
            volume: VolumeIndex(1),
            offset: ByteOffset(512),
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    point.read_at(VolumeIndex(0), ByteOffset(0), &mut buffer).unwrap();
    // In the header, it is the index that knows what lay there.
    let first = (Some(VolumeIndex(0)), Some(ByteOffset(0)));
    let second = (Some(VolumeIndex(1)), Some(ByteOffset(100)));
    for (position, hit) in [(payload + 5, second), (4096 + 30, first), (4096 + 260, first)] {
        changed(&segment, |bytes| bytes[payload + 5] ^= 1);
        changed(&segment, |bytes| bytes[position] ^= 1);
        let report = verify(&at.path(), |_| ()).unwrap();
        let problem = report.chains[0].problems.first().unwrap();
        assert_eq!(problem.point, Sequence(1), "{problem:?}");
        assert_eq!((problem.volume, problem.offset), hit, "{problem:?}");
        changed(&segment, |bytes| bytes[position] ^= 1);
        changed(&segment, |bytes| bytes[payload + 5] ^= 1);
    }
}

#[test]
fn a_file_in_the_place_of_another_is_not_believed() {
    let at = fixture();
    let names = |folder: &str| {
        let mut paths: Vec<_> = fs::read_dir(at.chain().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        assert!(paths.len() > 1, "{paths:?}");
        paths
    };
    for folder in ["segments", "runs"] {
        let paths = names(folder);
        let whole = fs::read(&paths[0]).unwrap();
        fs::copy(&paths[1], &paths[0]).unwrap();
        at.assert_noticed(folder);
        fs::write(&paths[0], whole).unwrap();
    }
    // The same life in another vault and chain differs in its identity alone.
    let other = fixture();
    for path in at.files() {
        let whole = fs::read(&path).unwrap();
        let same = other.path().join(path.strip_prefix(at.path()).unwrap());
        fs::copy(same, &path).unwrap();
        at.assert_noticed(&path.display().to_string());
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_vault_that_was_copied_takes_a_new_incarnation() {
    let at = fixture();
    let original = VaultReader::open(&at.path()).unwrap();
    assert!(!original.is_a_copy().unwrap());
    let elsewhere = at.directory.path().join("restored");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(at.path())
        .arg(&elsewhere)
        .status()
        .unwrap();
    assert!(copied.success());
    let reader = VaultReader::open(&elsewhere).unwrap();
    assert!(reader.is_a_copy().unwrap());
    at.source.assert_equal(&reader);
    let copy = Vault::open(&elsewhere).unwrap();
    assert_eq!(
        copy.opened(),
        Opened::AsACopy {
            of: original.incarnation()
        }
    );
    assert_ne!(copy.incarnation(), original.incarnation());
    let incarnation = copy.incarnation();
    drop(copy);
    let again = Vault::open(&elsewhere).unwrap();
    assert_eq!(
        (again.opened(), again.incarnation()),
        (Opened::AsItWas, incarnation)
    );
    at.source.assert_equal(&VaultReader::open(&elsewhere).unwrap());
    assert_eq!(Vault::open(&at.path()).unwrap().opened(), Opened::AsItWas);
}

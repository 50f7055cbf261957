//! Bytes that rot, get lost or land elsewhere: every one is an error that says where, never wrong data.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use farshore_blocks::{ByteOffset, ChainId, Sequence, VolumeIndex};
use tempfile::TempDir;

use crate::{
    ProblemKind, ReadError, Vault, VaultReader,
    scripted::{CHAIN, Source, scratch, write},
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
    let vault = Vault::create_on(&directory.path().join("vault"), Arc::new(LocalStorage), 3000).unwrap();
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
        files.retain(|path| fs::metadata(path).unwrap().len() > 0);
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

#[test]
fn no_damaged_byte_goes_unnoticed() {
    let at = fixture();
    at.source.assert_equal(&VaultReader::open(&at.path()).unwrap());
    assert!(verify(&at.path(), |_| ()).unwrap().is_clean());
    let files = at.files();
    assert_eq!(files.len(), 9, "{files:?}");
    for path in files {
        let whole = fs::read(&path).unwrap();
        for position in 0..whole.len() {
            // One bit of each byte; which one differs from byte to byte.
            changed(&path, |bytes| bytes[position] ^= 1 << (position % 8));
            at.assert_noticed(&format!("{} at {position}", path.display()));
            fs::write(&path, &whole).unwrap();
        }
    }
}

#[test]
fn no_file_that_ends_too_early_goes_unnoticed() {
    let at = fixture();
    for path in at.files() {
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(13) {
            // A log that ends behind a record is the log of a shorter chain: nothing on disk says otherwise, and
            // a crash cannot do that.
            if path.ends_with("points.log") && (length == 0 || is_end_of_a_record(&whole, length)) {
                continue;
            }
            fs::write(&path, &whole[..length]).unwrap();
            at.assert_noticed(&format!("{} cut to {length}", path.display()));
            fs::write(&path, &whole).unwrap();
        }
    }
}

fn is_end_of_a_record(log: &[u8], length: usize) -> bool {
    log[length..].starts_with(b"FARSHREC")
}

#[test]
fn a_damaged_frame_is_named_by_point_volume_and_offset() {
    let at = fixture();
    let segment = at.chain().join("segments/0000000000000001.segment");
    // Header of the segment, frame (0, 0+1200), header of frame (1, 100+900).
    let payload = 80 + 60 + 1200 + 60;
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
    for position in [payload + 5, payload - 50] {
        changed(&segment, |bytes| bytes[payload + 5] ^= 1);
        changed(&segment, |bytes| bytes[position] ^= 1);
        let report = verify(&at.path(), |_| ()).unwrap();
        let problem = report.chains[0].problem.as_ref().unwrap();
        let place = (problem.point, problem.volume, problem.offset);
        assert_eq!(
            place,
            (Sequence(1), Some(VolumeIndex(1)), Some(ByteOffset(100))),
            "{problem:?}"
        );
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
    let elsewhere = at
        .path()
        .join("chains")
        .join(ChainId::from_bytes([8; 16]).to_string());
    let moved = std::process::Command::new("mv")
        .arg(at.chain())
        .arg(&elsewhere)
        .status()
        .unwrap();
    assert!(moved.success());
    assert!(verify(&at.path(), |_| ()).is_err());
}

#[test]
fn the_log_of_points_names_its_first_bad_point() {
    let at = fixture();
    let log = at.chain().join("points.log");
    let whole = fs::read(&log).unwrap();
    let second = (1..whole.len())
        .find(|position| is_end_of_a_record(&whole, *position))
        .unwrap();
    for (position, point) in [
        (second - 1, Sequence(1)),
        (second + 100, Sequence(2)),
        (whole.len() - 1, Sequence(2)),
    ] {
        changed(&log, |bytes| bytes[position] ^= 1);
        let report = verify(&at.path(), |_| ()).unwrap();
        let problem = report.chains[0].problem.as_ref().unwrap();
        assert_eq!(problem.point, point, "{problem:?}");
        assert!(matches!(problem.kind, ProblemKind::Log(_)));
        let vault = Vault::open(&at.path()).unwrap();
        assert!(
            vault.chain_writer(CHAIN).is_err(),
            "a damaged log is not written to"
        );
        fs::write(&log, &whole).unwrap();
    }
}

//! The frozen vaults in `fixtures/v1/` open for ever: every point reads as it did, verification finds nothing, and
//! replication goes on where it stopped.
//!
//! `src/frozen.rs` says how they were made. A build that changes what this test expects cannot read its users' vaults.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeHasher, Digest, Extent, Frame, HolderNonce, Sequence, VolumeIndex,
    clock::WallTime,
};
use farshore_vault::{
    ChainWriter, CycleBegin, CycleKind, MaintenanceError, OpenCycle, Opened, PointKind, SealRequest,
    Unlimited, Vault, VaultReader, verify,
};

const CHAIN: ChainId = ChainId::from_bytes([7; 16]);

/// What a fixture holds.
struct Expected {
    name: &'static str,
    /// Of the volumes, at the newest point.
    sizes: &'static [u64],
    sequences: &'static [u64],
    /// In order of sequence: kind, digest, and the digest of each volume's bytes.
    points: &'static [(PointKind, &'static str, &'static [&'static str])],
    epoch: u64,
    /// The nonce of the open cycle, its last message, and up to where the first volume was said to be complete.
    open: (u64, u64, u64),
}

const FIXTURES: [Expected; 5] = [
    Expected {
        name: "changed-volumes",
        sizes: &[256 * 1024, 200_000, 30_000],
        sequences: &[1, 2, 3],
        points: CHANGED_VOLUMES,
        epoch: 1,
        open: (4, 2, 65_536),
    },
    Expected {
        name: "maintained",
        sizes: &[256 * 1024, 150_000],
        sequences: &[3, 9],
        points: MAINTAINED,
        epoch: 1,
        open: (10, 1, 4096),
    },
    Expected {
        name: "mendable",
        sizes: &[256 * 1024, 150_000],
        sequences: &[4, 7, 8, 9, 10],
        points: MENDABLE,
        epoch: 1,
        open: (12, 1, 4096),
    },
    Expected {
        name: "open-cycle",
        sizes: &[256 * 1024, 150_000],
        sequences: &[1, 2, 3, 4, 5],
        points: OPEN_CYCLE,
        epoch: 2,
        open: (7, 2, 65_536),
    },
    Expected {
        name: "power-cut",
        sizes: &[256 * 1024, 150_000],
        sequences: &[1, 2, 3],
        points: POWER_CUT,
        epoch: 1,
        open: (4, 1, 40_000),
    },
];

const CHANGED_VOLUMES: &[(PointKind, &str, &[&str])] = &[
    (
        PointKind::CrashConsistent,
        "f597a16d97abfa89c37ebe92f33eb04291758aa6e792a0640e203ddacf463162",
        &[
            "c978323f3acf3ea30cdd047645a09c4b626b6c4f1bb0b07ac11061d62fc3d64b",
            "6ccb9ee7f626ff31b03e7bc634e1264b82fe1a5777fa1ce621cb5dc29f9c0e37",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "8a31997b76d1d56ad23f88c39ff9c06cb48d5b4baad31e2bbb07875b6e24414e",
        &[
            "c978323f3acf3ea30cdd047645a09c4b626b6c4f1bb0b07ac11061d62fc3d64b",
            "eb09d4d67edaae80a9a0b0cd050b5adab16e00bf5e1ade1bc2d507b6977d8a2d",
        ],
    ),
    (
        PointKind::AppConsistent,
        "02f897462b3c386ee7f522da14d59ad108f4ba69dee1266aa862063dc9b08b9b",
        &[
            "6f1e9ef8c68e38fdbcb66c47b50c3bbb307bcf8f9ce31b1693fbac59fa76aaf4",
            "eb09d4d67edaae80a9a0b0cd050b5adab16e00bf5e1ade1bc2d507b6977d8a2d",
            "5d6314bd210d9c8c4e1ebff64f2b51480ac7d69e9ac0291ddc714e08a66f0632",
        ],
    ),
];

const MAINTAINED: &[(PointKind, &str, &[&str])] = &[
    (
        PointKind::CrashConsistent,
        "c395e1da9a86b3c08a35e462e2e998736b1c3b8b3570a4cc9bdb79b5823ba696",
        &[
            "79a12fc890cd02868b9045fae3f62aba92b63a6b9621bea89ac35ea329ba384d",
            "2da21d44c27940d245d8724512d18e1e49a0e05552cedc4180308667bdcffadf",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "dd52d089d8ecebf9a30b5872feb6719c061f9fd0eb68b639d20c0d12b5390ad7",
        &[
            "9db1e2efde7d317415579628e0e4936103f34d984a22bd86ce006273086c3690",
            "2da21d44c27940d245d8724512d18e1e49a0e05552cedc4180308667bdcffadf",
        ],
    ),
];

const MENDABLE: &[(PointKind, &str, &[&str])] = &[
    (
        PointKind::CrashConsistent,
        "19f7de9a6e93e872127b34e203ca68baaa76ecb4e9d70d6cffbeba9cc78ec958",
        &[
            "7ab6255df1a5bcca74ac5c9ac3bb70094043391e5ed2d5539d6fa39108578d26",
            "525cb1bfd2f8e614e79e79507864193e4431df5f5573dceb1d7bef9a1676a098",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "b7e917d53d1f088467fda34b95e3fb2339f6561d213ac0e86ce8ff4cc0e8431e",
        &[
            "67ceac2b828d0b031886b6345ed7bc2e6a28d637082fe66cc7ab7485334e0712",
            "67f519285735b167e3e5dcfd182996a334f56444c55011a1d239f3529d468c22",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "0951ba42ebfd49b3b7b108919c36a8fd01311eede53aef77e7edf9ea8375452a",
        &[
            "702e6eb2b6c6b1a2d8d31085f17152dbe86c2594c851ad622fb990cb2db1edf1",
            "15185dfdb36b4f7b8c31dc579a68d13837c06d1f1a76951afa9a673004bf601d",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "9274d89f69d969346151fdae3f205557059c4d3f916de6377f8571c67c13a08e",
        &[
            "346d980b1263394747cb466fedda750ec442ef38dc22b84d9b52ea3d01b0659e",
            "15185dfdb36b4f7b8c31dc579a68d13837c06d1f1a76951afa9a673004bf601d",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "78a3b063b571a6cdb4e00cdd484512006eeeba6d32c74b925c117641dfebcb5c",
        &[
            "cee525f3e2a48049f295ea792aeceddf1a9c8b4c75b27e3dbee65ffd1c7e02a6",
            "15185dfdb36b4f7b8c31dc579a68d13837c06d1f1a76951afa9a673004bf601d",
        ],
    ),
];

const OPEN_CYCLE: &[(PointKind, &str, &[&str])] = &[
    (
        PointKind::CrashConsistent,
        "fd62c8cbb92404243c867b4251e1f5f2284dc10c1fc860504d0a2b9541bf9965",
        &[
            "d1abe062232a7316036725025e704057e51357f7e064984306795eb3a8dbb4b2",
            "b0fe3070a5ec2beb925b239e5308a01e0d7dba93b079894dcefeddc8b94d33c5",
        ],
    ),
    (
        PointKind::AppConsistent,
        "dd7bc3dde783472445db557f4a0813dacb3381d2c654fafe11f683de14a1bd08",
        &[
            "bfdaa661438206f81601cc98356264ee912199bca1e42de69eb7614a190b52e7",
            "d4668c960e3d5c1b9713ce83266fcbfe0797c0a5ffe237255f3f6032a78fa631",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "a739b22f45962784fd4018565d4bf57d46ea32d18d23b892c601df36f57d9b64",
        &[
            "bfdaa661438206f81601cc98356264ee912199bca1e42de69eb7614a190b52e7",
            "d4668c960e3d5c1b9713ce83266fcbfe0797c0a5ffe237255f3f6032a78fa631",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "2892f3f85f62b298df5ebc0a2dd183bb4ab90089ee774347caef9341fceb9dba",
        &[
            "df51e841bb2b28909050eee675d18917a2b6a52efb729111ef86b14ea1ca9f64",
            "585d51c3ced86d26aba4870c2023a1135a988d2b29aa8e71d1b4cac541a99602",
        ],
    ),
    (
        PointKind::AppConsistent,
        "8fdfe85759151ee4b02e83e15a3e59450ea0700a3f9501bf7aa834f7e7766d3d",
        &[
            "14008a623312692659883e346a0f3708adbb0b469ff4dad577fe1622df56d3ab",
            "585d51c3ced86d26aba4870c2023a1135a988d2b29aa8e71d1b4cac541a99602",
        ],
    ),
];

const POWER_CUT: &[(PointKind, &str, &[&str])] = &[
    (
        PointKind::CrashConsistent,
        "d6a6610efcb92b10407f07cec2471614be17099eb88f6285f44bd4aa70d8d0cd",
        &[
            "6cad17d3e8795cfd76c9ffc7de1e34a7c1579a5a8cf03921a1235fdf8b629fd3",
            "7a8c0ef17d2ead8dad6f5e316f23c43dfdf167bea6ce4efb83fee123c17ad704",
        ],
    ),
    (
        PointKind::CrashConsistent,
        "104e16a562de0aeecd4cf767aeeda184e9ac80a9b92b133e2f55ebe954aec911",
        &[
            "ae96e4a178417f76e32b794563c3397cd9afd5e578303fae7228abae1ea0d589",
            "7a8c0ef17d2ead8dad6f5e316f23c43dfdf167bea6ce4efb83fee123c17ad704",
        ],
    ),
    (
        PointKind::AppConsistent,
        "08d267b716d8358b0ff8a74db8278ccf8a8eed5ed0baa9461b893c3dcca9df9b",
        &[
            "ae96e4a178417f76e32b794563c3397cd9afd5e578303fae7228abae1ea0d589",
            "e157bff90818347e5b8e61f0ba6f6a180a2a8849bcfe0eb85aca282b494e40a6",
        ],
    ),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/v1")
        .join(name)
}

/// Copies a directory's files, and makes the directories that are kept nowhere because nothing was in them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &into);
        } else {
            fs::copy(entry.path(), &into).unwrap();
        }
    }
    if to.ends_with(CHAIN.to_string()) {
        for directory in ["segments", "runs", "leases"] {
            fs::create_dir_all(to.join(directory)).unwrap();
        }
    }
}

/// All bytes of a point's volumes.
fn read(reader: &VaultReader, point: Sequence) -> Vec<Vec<u8>> {
    let point = reader.open_point(CHAIN, point).unwrap();
    let volumes = (0..).zip(point.volumes().to_vec());
    volumes
        .map(|(number, volume)| {
            let mut bytes = vec![0xee; usize::try_from(volume.size.0).unwrap()];
            let whole = Extent::new(ByteOffset(0), volume.size);
            for piece in whole.iter().flat_map(|whole| whole.pieces(ByteCount(10_000))) {
                let start = usize::try_from(piece.start().0).unwrap();
                let end = usize::try_from(piece.end().0).unwrap();
                point
                    .read_at(VolumeIndex(number), piece.start(), &mut bytes[start..end])
                    .unwrap();
            }
            bytes
        })
        .collect()
}

fn assert_as_expected(path: &Path, expected: &Expected) {
    let reader = VaultReader::open(path).unwrap();
    let newest = expected.sequences.last().copied().unwrap();
    let description = reader.description_at(CHAIN, Sequence(newest)).unwrap();
    let sizes: Vec<u64> = description.volumes.iter().map(|volume| volume.size.0).collect();
    assert_eq!(
        (description.vm.as_str(), sizes.as_slice()),
        ("web", expected.sizes)
    );
    let points = reader.points(CHAIN).unwrap();
    assert!(points.len() >= expected.points.len());
    for ((number, point), (kind, digest, volumes)) in
        expected.sequences.iter().zip(&points).zip(expected.points)
    {
        assert_eq!(point.sequence, Sequence(*number));
        assert_eq!((point.kind, point.digest.to_string().as_str()), (*kind, *digest));
        assert_eq!(point.machine.as_ref(), b"machine \x00\xff");
        let digests = read(&reader, point.sequence);
        let digests: Vec<_> = digests
            .iter()
            .map(|bytes| Digest::of(bytes).to_string())
            .collect();
        assert_eq!(digests, *volumes, "point {number}");
    }
    let report = verify(path, |_| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.chains[0].points, points.len() as u64);
}

#[test]
fn every_frozen_vault_reads_as_it_did() {
    for expected in &FIXTURES {
        let path = fixture(expected.name);
        assert_as_expected(&path, expected);
        let reader = VaultReader::open(&path).unwrap();
        assert_eq!(reader.points(CHAIN).unwrap().len(), expected.points.len());
        assert_eq!(
            reader.current_epoch(CHAIN).unwrap().unwrap().number,
            expected.epoch
        );
    }
}

#[test]
fn replication_into_every_frozen_vault_goes_on() {
    for expected in &FIXTURES {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("vault");
        copy(&fixture(expected.name), &path);
        let vault = Vault::open(&path).unwrap();
        assert!(matches!(vault.opened(), Opened::AsACopy { .. }));
        let mut writer = vault.chain_writer(CHAIN).unwrap();
        assert_as_expected(&path, expected);
        let head = writer.head();
        let newest = head.newest.unwrap().sequence;
        assert_eq!(Some(&newest.0), expected.sequences.last());
        let open = head.open.unwrap();
        let found = (open.cycle, open.last_message, open.watermarks[0].0);
        assert_eq!(found, expected.open, "{}", expected.name);
        resume(&vault, &mut writer, &open);
        drop((writer, vault));
        assert_as_expected(&path, expected);
        let reader = VaultReader::open(&path).unwrap();
        let disks = read(&reader, newest.next());
        assert_eq!(disks[1][500..900], [0xab; 400]);
        let vault = Vault::open(&path).unwrap();
        assert_eq!(vault.opened(), Opened::AsItWas);
        assert_eq!(vault.chain_writer(CHAIN).unwrap().head().open, None);
    }
}

/// Goes on with the open cycle under a new epoch, by one more frame, and seals it.
fn resume(vault: &Vault, writer: &mut ChainWriter, open: &OpenCycle) {
    let epoch = vault
        .grant_epoch(CHAIN, HolderNonce::from_bytes([9; 16]))
        .unwrap();
    let begin = CycleBegin {
        epoch,
        cycle: open.cycle,
        base: open.base,
        kind: CycleKind::Delta,
    };
    let open = writer.begin(&begin).unwrap();
    let (volume, offset) = (VolumeIndex(1), ByteOffset(500));
    let frame = Frame::from_raw(volume, offset, Bytes::from(vec![0xab; 400])).unwrap();
    let mut changes = open.changes;
    let mut hasher = ChangeHasher::resume(changes[1]);
    hasher.update(volume, offset, frame.raw_length(), &frame.raw_digest());
    changes[1] = hasher.digest();
    let messages = open.last_message + 1;
    writer.append(epoch, messages, &[frame], &[]).unwrap();
    let sealed = writer.seal(&SealRequest {
        epoch,
        cycle: open.cycle,
        sequence: open.sequence,
        captured_at: WallTime(1),
        clock_offset_nanoseconds: 0,
        clock_uncertainty: Duration::ZERO,
        kind: PointKind::CrashConsistent,
        machine: b"another machine".to_vec(),
        parent: open.base.unwrap().digest,
        changes,
        messages,
    });
    assert_eq!(sealed.unwrap().sequence, open.sequence);
}

/// Removes all runs of a fixture's copy.
fn without_index(name: &str) -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("vault");
    copy(&fixture(name), &path);
    let runs = path.join("chains").join(CHAIN.to_string()).join("runs");
    fs::remove_dir_all(&runs).unwrap();
    fs::create_dir(&runs).unwrap();
    (scratch, path)
}

#[test]
fn the_index_of_a_frozen_vault_is_made_again_from_its_segments_and_packs() {
    let expected = FIXTURES
        .iter()
        .find(|expected| expected.name == "mendable")
        .unwrap();
    let (_scratch, path) = without_index(expected.name);
    let reader = VaultReader::open(&path).unwrap();
    assert!(reader.open_point(CHAIN, Sequence(4)).is_err());
    let vault = Vault::open(&path).unwrap();
    let mended = vault.mend_index(CHAIN, &mut Unlimited).unwrap();
    assert_eq!(mended.faults.len(), 5, "{mended:?}");
    assert_as_expected(&path, expected);
}

#[test]
fn an_index_that_an_earlier_build_alone_kept_is_told_of_and_left_as_it_is() {
    let (_scratch, path) = without_index("maintained");
    let vault = Vault::open(&path).unwrap();
    let refused = vault.mend_index(CHAIN, &mut Unlimited);
    assert!(
        matches!(refused, Err(MaintenanceError::Untold { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_frozen_vault_whose_volumes_changed_goes_on_with_those_of_the_open_cycle() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("vault");
    copy(&fixture("changed-volumes"), &path);
    let vault = Vault::open(&path).unwrap();
    let mut writer = vault.chain_writer(CHAIN).unwrap();
    let open = writer.head().open.unwrap();
    resume(&vault, &mut writer, &open);
    let sizes = |point| -> Vec<u64> {
        let point = vault
            .reader()
            .unwrap()
            .open_point(CHAIN, Sequence(point))
            .unwrap();
        point.volumes().iter().map(|volume| volume.size.0).collect()
    };
    assert_eq!(sizes(1), [256 * 1024, 150_000]);
    assert_eq!(sizes(2), [256 * 1024, 200_000]);
    assert_eq!(sizes(3), [256 * 1024, 200_000, 30_000]);
    assert_eq!(sizes(4), [256 * 1024 + 4096, 200_000, 0]);
}

#[test]
fn the_fixtures_stay_small() {
    let mut bytes = 0;
    let mut directories = vec![fixture("")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    assert!((1..700 * 1024).contains(&bytes), "{bytes} bytes");
}

//! The verbs on real vaults: what is listed, exported and served is what was written.

mod export;
mod failover;
mod repair;
mod serve;

use std::{fs, path::PathBuf, process::Command, time::Duration};

use clap::Parser;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeHasher, Digest, Frame, HolderNonce, VolumeIndex, clock::WallTime,
};
use farshore_vault::{
    ChainDescription, CycleBegin, CycleKind, PointKind, SealRequest, Vault, VaultReader, VolumeDescription,
};
use tempfile::TempDir;

use super::{VaultCommand, list, run};
use crate::exit::CliError;

const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
const SIZES: [usize; 2] = [4 * 1024 * 1024, 70_000];

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    verb: VaultCommand,
}

/// A vault with two points, and the disks at each.
struct Fixture {
    directory: TempDir,
    points: Vec<[Vec<u8>; 2]>,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let vault = Vault::create(&directory.path().join("vault")).unwrap();
    let volumes = ["root", "data"]
        .iter()
        .zip(SIZES)
        .map(|(name, size)| VolumeDescription {
            name: (*name).to_owned(),
            size: ByteCount(size as u64),
        });
    let description = ChainDescription {
        vm: "web".to_owned(),
        volumes: volumes.collect(),
    };
    vault.create_chain(CHAIN, &description).unwrap();
    let epoch = vault
        .grant_epoch(CHAIN, HolderNonce::from_bytes([1; 16]))
        .unwrap();
    let mut writer = vault.chain_writer(CHAIN).unwrap();
    let mut disks = SIZES.map(|size| vec![0; size]);
    let mut points = Vec::new();
    for (nonce, kind) in [(1, PointKind::AppConsistent), (2, PointKind::CrashConsistent)] {
        let base = writer.head().newest;
        let cycle_kind = if base.is_some() {
            CycleKind::Delta
        } else {
            CycleKind::Base
        };
        let begin = CycleBegin {
            epoch,
            cycle: nonce,
            base: base.as_ref().map(|point| point.as_base()),
            kind: cycle_kind,
        };
        let open = writer.begin(&begin).unwrap();
        let mut hashers = [ChangeHasher::default(); 2];
        let mut frames = Vec::new();
        for (volume, offset, length) in [
            (0u32, 1_048_576usize, 65536usize),
            (0, 1_114_112, 512),
            (1, 100, 4000),
        ] {
            // The last of them is zeroed by the second cycle.
            let byte = if nonce == 2 && volume == 1 {
                0
            } else {
                u8::try_from(nonce + u64::from(volume)).unwrap()
            };
            disks[volume as usize][offset..offset + length].fill(byte);
            let (volume, offset) = (VolumeIndex(volume), ByteOffset(offset as u64));
            let frame = Frame::from_raw(volume, offset, vec![byte; length].into()).unwrap();
            hashers[volume.as_usize()].update(volume, offset, frame.raw_length(), &frame.raw_digest());
            frames.push(frame);
        }
        writer.append(epoch, 1, &frames, &[]).unwrap();
        let seal = SealRequest {
            epoch,
            cycle: nonce,
            sequence: open.sequence,
            captured_at: WallTime(1_699_999_998_000_000_000 + nonce * 2_000_000_000),
            clock_offset_nanoseconds: 0,
            clock_uncertainty: Duration::ZERO,
            kind,
            machine: Vec::new(),
            parent: base.map_or(Digest::default(), |point| point.digest),
            changes: hashers.map(|hasher| hasher.digest()).to_vec(),
            messages: 1,
        };
        writer.seal(&seal).unwrap();
        points.push(disks.clone());
    }
    Fixture { directory, points }
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn parse(&self, arguments: &[&str]) -> Result<VaultCommand, clap::Error> {
        let vault = self.path("vault");
        let line = ["farshore", arguments[0], vault.to_str().unwrap()];
        let line = line.iter().chain(&arguments[1..]);
        CommandLine::try_parse_from(line).map(|line| line.verb)
    }

    fn run(&self, arguments: &[&str]) -> Result<(), CliError> {
        run(self.parse(arguments).unwrap())
    }

    /// Flips a bit in the largest frame of the second point.
    fn damage(&self) {
        let chain = self.path("vault/chains").join(CHAIN.to_string());
        let mut hits = 0;
        for segment in fs::read_dir(chain.join("segments")).unwrap() {
            let segment = segment.unwrap().path();
            let mut bytes = fs::read(&segment).unwrap();
            let payload = [2; 65536];
            if let Some(position) = bytes.windows(payload.len()).position(|window| window == payload) {
                bytes[position + 1000] ^= 1;
                fs::write(&segment, bytes).unwrap();
                hits += 1;
            }
        }
        assert_eq!(hits, 1);
    }
}

#[test]
fn the_list_says_what_is_there() {
    let at = fixture();
    let reader = VaultReader::open(&at.path("vault")).unwrap();
    let (view, damaged) = list::view(&reader).unwrap();
    assert!(damaged.is_none());
    let chain = &view.chains[0];
    assert_eq!(
        (chain.vm.as_str(), chain.epoch, chain.points.len()),
        ("web", Some(1), 2)
    );
    assert_eq!(
        (chain.volumes[1].name.as_str(), chain.volumes[1].size_bytes),
        ("data", 70_000)
    );
    let point = &chain.points[0];
    assert_eq!(
        (point.sequence, point.kind.as_str(), point.changed_bytes),
        (1, "AppConsistent", 70_048)
    );
    assert_eq!(point.captured_at, "2023-11-14T22:13:20.000Z");
    let json: serde_json::Value = serde_json::from_str(&crate::output::json(&view).unwrap()).unwrap();
    assert_eq!(
        json["chains"][0]["points"][1]["capturedAt"],
        "2023-11-14T22:13:22.000Z"
    );
    for form in ["table", "wide", "json", "yaml"] {
        at.run(&["list", "-o", form]).unwrap();
    }
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let at = fixture();
    for (subject, choice, expected) in [
        (
            "db",
            ["--point", "1", "--volume", "root"],
            "no VM or chain `db`; it has `web`",
        ),
        (
            "web",
            ["--point", "3", "--volume", "root"],
            "no point 3; it has points 1 (captured 2023",
        ),
        (
            "web",
            ["--point", "2023-11-14T22:13:19Z", "--volume", "root"],
            "no point as old as 2023-11-14T22:13:19.000Z",
        ),
        (
            "web",
            ["--point", "1", "--volume", "swap"],
            "no volume `swap`; it has `root`, `data`",
        ),
    ] {
        let arguments = [&["export", subject, "/nowhere/image"], &choice[..]].concat();
        let error = at.run(&arguments).unwrap_err();
        assert!(error.describe().contains(expected), "{}", error.describe());
        assert_eq!(error.exit_status(), 1);
    }
    for arguments in [
        &["export", "web"][..],
        &["export", "web", "x", "--point", "newest"],
        &["export", "web", "x", "--format", "vmdk"],
        &["serve", "web"],
        &["serve", "--socket", "x"],
        &["serve", "web", "--socket", "x", "--listen", "127.0.0.1:0"],
    ] {
        assert!(at.parse(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn verification_fails_with_the_place_of_the_damage() {
    let at = fixture();
    at.run(&["verify"]).unwrap();
    at.damage();
    let error = at.run(&["verify", "-o", "json"]).unwrap_err();
    assert!(
        error
            .describe()
            .contains("VM `web`, point 2, volume 0, offset 0x100000"),
        "{}",
        error.describe()
    );
    assert_eq!(error.exit_status(), 1);
}

#[test]
fn a_damaged_record_of_the_journal_is_named_though_its_copy_is_whole() {
    let at = fixture();
    let journal = fs::read_dir(at.path("vault/journal")).unwrap();
    let mirror = journal
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "mirror"))
        .unwrap();
    let mut bytes = fs::read(&mirror).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&mirror, bytes).unwrap();
    let report = farshore_vault::verify(&at.path("vault"), |_| {}).unwrap();
    assert_eq!(report.damaged_records.len(), 1);
    let error = at.run(&["verify"]).unwrap_err();
    assert_eq!(error.exit_status(), 1);
    assert!(
        error.describe().starts_with("1 damaged journal records"),
        "{}",
        error.describe()
    );
}

#[test]
fn a_copied_vault_is_listed_as_a_copy() {
    let at = fixture();
    let copied = Command::new("cp")
        .arg("-r")
        .args([at.path("vault"), at.path("copy")])
        .status();
    assert!(copied.unwrap().success());
    for (name, expected) in [("vault", false), ("copy", true)] {
        let reader = VaultReader::open(&at.path(name)).unwrap();
        assert_eq!(list::view(&reader).unwrap().0.is_a_copy, expected, "{name}");
    }
}

#[test]
fn the_documents_commands_are_understood() {
    let documents = [
        include_str!("../../../README.md"),
        include_str!("../../../docs/vault.md"),
    ];
    for document in documents {
        let commands: Vec<&str> = document
            .lines()
            .filter_map(|line| line.strip_prefix("farshore vault "))
            .collect();
        assert!(commands.len() >= 5);
        for command in commands {
            let command = command.split('#').next().unwrap();
            let words = ["farshore"].into_iter().chain(command.split_whitespace());
            if let Err(error) = CommandLine::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
    }
}

/// Every reason that the vault's verbs give is in the document.
#[test]
fn every_reason_is_documented() {
    let document = include_str!("../../../docs/reason-codes.md");
    let sources = [
        include_str!("export.rs"),
        include_str!("export/partial.rs"),
        include_str!("export/qcow2.rs"),
        include_str!("failover/attempt.rs"),
        include_str!("failover/ending.rs"),
        include_str!("failover/fence.rs"),
        include_str!("failover/record.rs"),
        include_str!("serve/address.rs"),
        include_str!("verify.rs"),
    ];
    let reasons = sources
        .iter()
        .flat_map(|source| source.split("reason: \"").skip(1));
    let reasons: Vec<&str> = reasons.filter_map(|rest| rest.split('"').next()).collect();
    assert!(reasons.len() >= 10, "{reasons:?}");
    for reason in reasons {
        assert!(document.contains(&format!("`{reason}`")), "{reason}");
    }
}

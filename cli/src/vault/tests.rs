//! The verbs on real vaults: what is listed, exported and served is what was written.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process::Command, time::Duration};

use clap::Parser;
use farshore_blocks::{
    ByteCount, ByteOffset, ChainId, ChangeHasher, Digest, Frame, HolderNonce, VolumeIndex, clock::WallTime,
};
use farshore_nbd::Client;
use farshore_vault::{
    ChainDescription, CycleBegin, CycleKind, PointKind, SealRequest, Vault, VaultReader, VolumeDescription,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{VaultCommand, list, run, serve};
use crate::exit::CliError;

const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
const SIZES: [usize; 2] = [4 * 1024 * 1024, 70_000];
const LIMIT: Duration = Duration::from_secs(30);

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
            captured_at: WallTime(1_700_000_000_000_000_000),
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

    fn damage(&self, position: usize) {
        let chain = self.path("vault/chains").join(CHAIN.to_string());
        let segment = chain.join("segments/0000000000000002.segment");
        let mut bytes = fs::read(&segment).unwrap();
        bytes[position] ^= 1;
        fs::write(&segment, bytes).unwrap();
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
        "2023-11-14T22:13:20.000Z"
    );
    for form in ["table", "wide", "json", "yaml"] {
        at.run(&["list", "-o", form]).unwrap();
    }
}

#[test]
fn an_export_is_the_disk_at_the_point_and_as_sparse() {
    let at = fixture();
    for (point, expected) in [
        ("1", &at.points[0]),
        ("latest", &at.points[1]),
        ("latest-app-consistent", &at.points[0]),
    ] {
        for (volume, disk) in ["root", "data"].iter().zip(expected) {
            let to = at.path(&format!("{volume}-{point}.raw"));
            let to = to.to_str().unwrap();
            at.run(&[
                "export", "--vm", "web", "--point", point, "--volume", volume, "--to", to,
            ])
            .unwrap();
            assert!(fs::read(to).unwrap() == *disk, "{volume} of point {point}");
            let allocated = fs::metadata(to).unwrap().blocks() * 512;
            assert!(allocated < 256 * 1024, "{allocated} bytes allocated");
        }
    }
}

#[test]
fn an_export_as_qcow2_holds_the_same() {
    let at = fixture();
    let (raw, qcow2) = (at.path("root.raw"), at.path("root.qcow2"));
    fs::write(&raw, &at.points[1][0]).unwrap();
    let chain = CHAIN.to_string();
    let to = qcow2.to_str().unwrap();
    at.run(&[
        "export", "--chain", &chain, "--volume", "root", "--to", to, "--format", "qcow2",
    ])
    .unwrap();
    let compared = Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .args([&raw, &qcow2])
        .output();
    let compared = compared.unwrap();
    assert!(compared.status.success(), "{compared:?}");
    let left: Vec<_> = fs::read_dir(at.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "nothing else is left: {left:?}");
}

#[test]
fn an_export_never_overwrites_and_leaves_nothing_half_done() {
    let at = fixture();
    let to = at.path("there");
    fs::write(&to, "mine").unwrap();
    let export = [
        "export",
        "--vm",
        "web",
        "--volume",
        "root",
        "--to",
        to.to_str().unwrap(),
    ];
    assert!(matches!(
        at.run(&export),
        Err(CliError::File { action: "create", .. })
    ));
    assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
    fs::remove_file(&to).unwrap();
    at.damage(80 + 60 + 1000);
    let error = at.run(&export).unwrap_err().describe();
    assert!(
        error.contains("volume 0 of point 2 cannot be read at 0x100000"),
        "{error}"
    );
    assert!(!to.exists());
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let at = fixture();
    for (choice, expected) in [
        (
            ["--vm", "db", "--point", "1", "--volume", "root"],
            "no VM `db`; it has `web`",
        ),
        (
            ["--vm", "web", "--point", "3", "--volume", "root"],
            "no point 3; it has points 1 to 2",
        ),
        (
            ["--vm", "web", "--point", "1", "--volume", "swap"],
            "no volume `swap`; it has `root`, `data`",
        ),
    ] {
        let arguments: Vec<&str> = ["export", "--to", "/nowhere"].into_iter().chain(choice).collect();
        let error = at.run(&arguments).unwrap_err();
        assert!(error.describe().contains(expected), "{}", error.describe());
        assert_eq!(error.exit_status(), 1);
    }
    for arguments in [
        &["export", "--volume", "root", "--to", "x"][..],
        &[
            "export", "--vm", "web", "--point", "newest", "--volume", "root", "--to", "x",
        ],
        &["serve", "--vm", "web"],
        &["serve", "--vm", "web", "--socket", "x", "--listen", "127.0.0.1:0"],
    ] {
        assert!(at.parse(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn verification_fails_with_the_place_of_the_damage() {
    let at = fixture();
    at.run(&["verify"]).unwrap();
    at.damage(80 + 60 + 1000);
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

/// Serves in this process until the token is cancelled.
struct Served {
    task: tokio::task::JoinHandle<Result<(), CliError>>,
    shutdown: CancellationToken,
    address: String,
}

async fn served(at: &Fixture, arguments: &[&str]) -> Result<Served, CliError> {
    let VaultCommand::Serve(arguments) = at.parse(arguments).unwrap() else {
        panic!("not serve");
    };
    let shutdown = CancellationToken::new();
    let (ready, listening) = oneshot::channel();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        serve::serve(&arguments, stop, |bound| ready.send(bound.to_string()).unwrap()).await
    });
    match timeout(LIMIT, listening).await.unwrap() {
        Ok(address) => Ok(Served {
            task,
            shutdown,
            address,
        }),
        Err(_) => Err(timeout(LIMIT, task).await.unwrap().unwrap().unwrap_err()),
    }
}

impl Served {
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_volume_is_served_under_its_name() {
    let at = fixture();
    let (socket, pid_file) = (at.path("nbd.sock"), at.path("pid"));
    let socket_name = socket.to_str().unwrap();
    let pid_name = pid_file.to_str().unwrap();
    let serve = [
        "serve",
        "--vm",
        "web",
        "--point",
        "latest",
        "--socket",
        socket_name,
        "--pid-file",
        pid_name,
    ];
    let served = served(&at, &serve).await.unwrap();
    assert_eq!(served.address, socket_name);
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap().trim(),
        std::process::id().to_string()
    );
    for (name, disk) in ["root", "data"].iter().zip(&at.points[1]) {
        let client = Client::connect_unix(&socket, name, &["base:allocation"])
            .await
            .unwrap();
        assert_eq!(client.size(), disk.len() as u64);
        assert!(client.read(0, u32::try_from(disk.len()).unwrap()).await.unwrap() == *disk);
        client.disconnect().await;
    }
    let client = Client::connect_unix(&socket, "root", &["base:allocation"])
        .await
        .unwrap();
    let status = client
        .block_status("base:allocation", 0, SIZES[0] as u64)
        .await
        .unwrap();
    let data: u64 = status
        .iter()
        .filter(|extent| extent.flags == 0)
        .map(|extent| extent.length)
        .sum();
    assert_eq!(data, 65536 + 512, "{status:?}");
    served.stop().await;
    assert!(!socket.exists() && !pid_file.exists());
}

#[tokio::test]
async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let at = fixture();
    let socket = at.path("nbd.sock");
    let serve = ["serve", "--vm", "web", "--socket", socket.to_str().unwrap()];
    // A listener that is gone leaves its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let first = served(&at, &serve).await.unwrap();
    let refused = served(&at, &serve).await.err().unwrap();
    assert_eq!(refused.exit_status(), 3, "{}", refused.describe());
    Client::connect_unix(&socket, "data", &[])
        .await
        .unwrap()
        .disconnect()
        .await;
    first.stop().await;
    fs::write(&socket, "a file").unwrap();
    let refused = served(&at, &serve).await.err().unwrap();
    assert_eq!(refused.exit_status(), 3, "{}", refused.describe());
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file");
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let at = fixture();
    let refused = served(&at, &["serve", "--vm", "web", "--listen", "0.0.0.0:0"])
        .await
        .err()
        .unwrap();
    assert_eq!(refused.exit_status(), 2, "{}", refused.describe());
    let local = served(&at, &["serve", "--vm", "web", "--listen", "127.0.0.1:0"])
        .await
        .unwrap();
    let stream = tokio::net::TcpStream::connect(&local.address).await.unwrap();
    let client = Client::connect_over(stream, "data", &[], farshore_nbd::ClientTimeouts::default())
        .await
        .unwrap();
    assert_eq!(client.size(), SIZES[1] as u64);
    client.disconnect().await;
    local.stop().await;
}

#[tokio::test]
async fn a_damaged_byte_is_an_error_and_the_rest_is_served() {
    let at = fixture();
    at.damage(80 + 60 + 1000);
    let socket = at.path("nbd.sock");
    let served = served(
        &at,
        &["serve", "--vm", "web", "--socket", socket.to_str().unwrap()],
    )
    .await
    .unwrap();
    let client = Client::connect_unix(&socket, "root", &[]).await.unwrap();
    assert!(client.read(1_048_576, 512).await.is_err());
    assert!(client.read(1_114_112, 512).await.unwrap() == vec![2; 512]);
    client.disconnect().await;
    served.stop().await;
}

#[tokio::test]
async fn it_ends_at_sigterm_and_not_at_a_hang_up() {
    let shutdown = serve::end_at_signals().unwrap();
    let own = rustix::process::getpid();
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::TERM] {
        assert!(!shutdown.is_cancelled());
        rustix::process::kill_process(own, signal).unwrap();
    }
    timeout(LIMIT, shutdown.cancelled()).await.unwrap();
}

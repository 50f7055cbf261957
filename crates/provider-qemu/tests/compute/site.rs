//! A site of a test: a directory for recovered VMs, exported disks, and what is removed whatever happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use farshore_blocks::ByteCount;
use farshore_provider::{
    Compute, DiskBus, DiskSpecification, Firmware, MachineSpecification, NetworkAttachment, NicSpecification,
    RecoveryDisk, RecoveryId, RecoveryRequest,
};
use farshore_provider_qemu::{AcceleratorChoice, QemuCompute, QemuComputeConfig};
use farshore_qmp::{ConnectOptions, Monitor};
use serde_json::json;
use tempfile::TempDir;

pub(crate) const DISK_BYTES: u64 = 8 << 20;

/// A running NBD server of one raw image, ended with the test.
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) image: PathBuf,
    pub(crate) socket: PathBuf,
    server: Option<Child>,
}

impl Export {
    /// Serves the image, read-only, from now on.
    pub(crate) fn serve(&mut self) {
        drop(fs::remove_file(&self.socket));
        let server = Command::new("qemu-nbd")
            .args(["-r", "-f", "raw", "-t", "-e", "4", "-x", &self.name, "-k"])
            .args([&self.socket, &self.image])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        let socket = &self.socket;
        eventually("the NBD server listens", || socket.exists());
    }

    /// Kills the server.
    pub(crate) fn fall_silent(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.fall_silent();
    }
}

/// One test's place.
pub(crate) struct Site {
    pub(crate) root: TempDir,
    pub(crate) compute: QemuCompute,
    /// Unique on this host.
    pub(crate) tag: String,
    pub(crate) exports: Vec<Export>,
}

impl Site {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = tempfile::Builder::new().prefix("fs-").tempdir().unwrap();
        Self {
            compute: open(root.path()),
            root,
            tag: format!("t{}-{number}", std::process::id()),
            exports: Vec::new(),
        }
    }

    /// As after a crash: everything that was in memory is gone.
    pub(crate) fn succeed(&mut self) {
        self.compute = open(self.root.path());
    }

    /// A raw image of zeroes with a served export of it, and the disk that it is.
    pub(crate) fn export(&mut self, name: &str) -> RecoveryDisk {
        let image = self.root.path().join(format!("{name}.raw"));
        fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        self.export_image(name, image, DISK_BYTES)
    }

    /// A served export of this raw image, and the disk that it is.
    pub(crate) fn export_image(&mut self, name: &str, image: PathBuf, bytes: u64) -> RecoveryDisk {
        let mut export = Export {
            name: name.to_owned(),
            image,
            socket: self.root.path().join(format!("{name}.sock")),
            server: None,
        };
        export.serve();
        let disk = RecoveryDisk {
            name: name.to_owned(),
            size: ByteCount(bytes),
            export_socket: export.socket.clone(),
        };
        self.exports.push(export);
        disk
    }

    /// A request for a small machine with one exported disk and one card, in the test's bubble.
    pub(crate) fn request(&mut self, id: &str) -> RecoveryRequest {
        let disk = self.export(&format!("{id}-root"));
        RecoveryRequest {
            id: RecoveryId::new(id).unwrap(),
            machine: machine(&[(&disk.name, DiskBus::VirtioBlk)]),
            disks: vec![disk],
            network: NetworkAttachment::Bubble {
                name: RecoveryId::new(&self.tag).unwrap(),
            },
        }
    }

    pub(crate) fn namespace(&self) -> String {
        format!("fs-{}", self.tag)
    }

    /// A request that runs.
    pub(crate) async fn running(&mut self, id: &str) -> RecoveryRequest {
        let request = self.request(id);
        self.compute.prepare(&request).await.unwrap();
        self.compute.start(&request.id).await.unwrap();
        request
    }

    /// Where VMs are kept.
    pub(crate) fn recovered(&self) -> PathBuf {
        self.root.path().join("recovered")
    }

    pub(crate) fn file(&self, id: &RecoveryId, name: &str) -> PathBuf {
        self.recovered().join(id.as_str()).join(name)
    }

    /// Looks with other means than the product's whether anything of this site's VMs is there.
    pub(crate) fn assert_nothing_is_left(&self) {
        let recovered = self.recovered();
        assert_eq!(fs::read_dir(&recovered).unwrap().count(), 0, "files");
        assert_eq!(processes_naming(&recovered), [0_u32; 0], "processes");
        let namespaces = output("ip", &["netns", "list"]);
        assert!(!namespaces.contains(&self.namespace()), "{namespaces}");
        let links = output("ip", &["-br", "link"]);
        assert!(
            !links
                .lines()
                .any(|line| line.starts_with("fs") && line.contains(&self.tag)),
            "{links}"
        );
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for pid in processes_naming(&self.recovered()) {
            drop(Command::new("kill").args(["-9", &pid.to_string()]).status());
        }
        if Path::new("/run/netns").join(self.namespace()).exists() {
            drop(
                Command::new("ip")
                    .args(["netns", "delete", &self.namespace()])
                    .status(),
            );
        }
    }
}

fn open(root: &Path) -> QemuCompute {
    let mut config = QemuComputeConfig::new(root.join("recovered"));
    config.accelerator = AcceleratorChoice::Tcg;
    QemuCompute::open(config).unwrap()
}

pub(crate) fn machine(disks: &[(&str, DiskBus)]) -> MachineSpecification {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    MachineSpecification {
        vm: "shop".to_owned(),
        uuid: Some("8c9ff3ca-6f15-4d0e-9d16-d4c2a7a1b0de".to_owned()),
        processors: 1,
        memory: ByteCount(64 << 20),
        firmware: Firmware::Bios,
        machine_type: "pc".to_owned(),
        disks: disks
            .iter()
            .enumerate()
            .map(|(index, (name, bus))| DiskSpecification {
                name: (*name).to_owned(),
                device: format!("vd{index}"),
                bus: *bus,
            })
            .collect(),
        nics: vec![NicSpecification {
            mac: format!("52:54:00:00:01:{:02x}", COUNT.fetch_add(1, Ordering::Relaxed)),
        }],
    }
}

/// Waits for a condition, with a deadline.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// What a program prints.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Every process whose command line holds this path.
pub(crate) fn processes_naming(path: &Path) -> Vec<u32> {
    let needle = path.to_str().unwrap();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(needle).then_some(pid)
    });
    pids.collect()
}

/// Writes through the VM's first disk device, as a guest would.
pub(crate) async fn write_as_guest(site: &Site, id: &RecoveryId, command: &str) {
    let line = format!("qemu-io -d /machine/peripheral/vd0/virtio-backend \"{command}\"");
    let arguments = json!({"command-line": line});
    let answer = spare(site, id)
        .await
        .execute("human-monitor-command", arguments)
        .await
        .unwrap();
    assert_eq!(answer.as_str(), Some(""), "{command}");
}

/// Lets the running VM export what its first disk holds, and says where.
pub(crate) async fn export_of_running(site: &Site, id: &RecoveryId) -> String {
    let socket = site.root.path().join(format!("{id}-view.sock"));
    let monitor = spare(site, id).await;
    let server = json!({"addr": {"type": "unix", "data": {"path": socket}}});
    monitor.execute("nbd-server-start", server).await.unwrap();
    let export = json!({"type": "nbd", "id": "view", "node-name": "overlay-0", "name": "view"});
    monitor.execute("block-export-add", export).await.unwrap();
    format!("nbd+unix:///view?socket={}", socket.display())
}

/// Reads and compares with `qemu-io`.
pub(crate) async fn assert_reads(image: &str, format: &str, command: &str) {
    let (image, format, command) = (image.to_owned(), format.to_owned(), command.to_owned());
    let read = move || output("qemu-io", &["-r", "-f", &format, "-c", &command, &image]);
    let printed = tokio::task::spawn_blocking(read).await.unwrap();
    assert!(
        printed.contains("read ") && !printed.contains("fail"),
        "{printed}"
    );
}

async fn spare(site: &Site, id: &RecoveryId) -> Monitor {
    let path = site.compute.spare_monitor(id);
    Monitor::connect(&path, ConnectOptions::default()).await.unwrap()
}

//! A QEMU without a guest: its disks are written through the device's own node, as a guest's writes go.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use farshore_blocks::ByteCount;
use farshore_provider::{DiskBus, DiskSpecification, Firmware, MachineSpecification, NicSpecification};
use farshore_provider_qemu::{QemuSource, QemuSourceConfig};
use farshore_qmp::{ConnectOptions, Monitor};
use serde_json::{Value, json};

pub(crate) const DISK_BYTES: usize = 2 << 20;
pub(crate) const UUID: &str = "0f2d5f9e-6a55-4a83-9c1a-5f1f3c8f7a01";
pub(crate) const MAC: &str = "52:54:00:12:34:56";
const PATIENCE: Duration = Duration::from_secs(20);

/// How a disk is made and attached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Qcow2,
    Raw,
    /// Raw, by `-drive`, on a SCSI controller.
    ScsiRaw,
    /// On a SCSI controller.
    ScsiQcow2,
    /// Raw, with metadata beside it that can keep bitmaps, as docs/qemu.md says.
    RawWithMetadata,
    /// Raw, with an I/O thread.
    RawWithIothread,
    /// qcow2, with an I/O thread.
    Qcow2WithIothread,
    /// Raw with metadata beside it, with an I/O thread.
    RawWithMetadataAndIothread,
    /// Raw, on a SCSI controller with an I/O thread.
    ScsiRawWithIothread,
}

pub(crate) struct Vm {
    process: Option<Child>,
    control: Option<Monitor>,
    kinds: Vec<Kind>,
    directory: tempfile::TempDir,
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Vm {
    pub(crate) async fn start(kinds: &[Kind]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (index, kind) in kinds.iter().enumerate() {
            let image = directory.path().join(format!("disk-{index}"));
            match kind {
                Kind::Qcow2 | Kind::ScsiQcow2 | Kind::Qcow2WithIothread => {
                    let made = Command::new("qemu-img")
                        .args(["create", "-q", "-f", "qcow2"])
                        .arg(&image)
                        .arg(DISK_BYTES.to_string())
                        .status();
                    assert!(made.unwrap().success());
                }
                Kind::Raw | Kind::ScsiRaw | Kind::RawWithIothread | Kind::ScsiRawWithIothread => {
                    create_raw(&image);
                }
                Kind::RawWithMetadata | Kind::RawWithMetadataAndIothread => {
                    create_raw(&image);
                    create_metadata(directory.path(), &format!("disk-{index}.qcow2"));
                }
            }
        }
        let mut vm = Self {
            process: None,
            control: None,
            kinds: kinds.to_vec(),
            directory,
        };
        vm.power_on().await;
        vm
    }

    pub(crate) async fn power_on(&mut self) {
        for socket in [self.monitor(), self.second_monitor(), self.path("control")] {
            drop(std::fs::remove_file(socket));
        }
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg",
                "-machine",
                "pc",
                "-m",
                "64",
                "-smp",
                "1",
                "-nodefaults",
            ])
            .args(["-display", "none", "-uuid", UUID])
            .args(["-netdev", "hubport,id=n0,hubid=0", "-device"])
            .arg(format!("virtio-net-pci,netdev=n0,mac={MAC}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        for socket in [self.monitor(), self.second_monitor(), self.path("control")] {
            command
                .arg("-qmp")
                .arg(format!("unix:{},server=on,wait=off", socket.display()));
        }
        for (index, kind) in self.kinds.iter().enumerate() {
            self.attach_disk(&mut command, index, *kind);
        }
        self.process = Some(command.spawn().unwrap());
        let options = ConnectOptions { timeout: PATIENCE };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.control = Some(loop {
            match Monitor::connect(&self.path("control"), options).await {
                Ok(monitor) => break monitor,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
    }

    fn attach_disk(&self, command: &mut Command, index: usize, kind: Kind) {
        let image = self.path(&format!("disk-{index}"));
        let image = image.display();
        let file = format!("driver=file,filename={image},node-name=file{index},discard=unmap");
        let format = match kind {
            Kind::Qcow2
            | Kind::ScsiQcow2
            | Kind::RawWithMetadata
            | Kind::Qcow2WithIothread
            | Kind::RawWithMetadataAndIothread => "qcow2",
            Kind::Raw | Kind::ScsiRaw | Kind::RawWithIothread | Kind::ScsiRawWithIothread => "raw",
        };
        if matches!(kind, Kind::RawWithMetadata | Kind::RawWithMetadataAndIothread) {
            command.args(["-blockdev", &file.replace("node-name=file", "node-name=data")]);
            command.args([
                "-blockdev",
                &file.replace(",node-name", ".qcow2,node-name"),
                "-blockdev",
            ]);
            command.arg(format!(
                "driver=qcow2,file=file{index},data-file=data{index},node-name=node{index},discard=unmap"
            ));
        } else if matches!(kind, Kind::ScsiRaw) {
            command.arg("-drive");
            command.arg(format!(
                "if=none,id=node{index},file={image},format=raw,discard=unmap"
            ));
        } else {
            command.args(["-blockdev", &file, "-blockdev"]);
            command.arg(format!(
                "driver={format},file=file{index},node-name=node{index},discard=unmap"
            ));
        }
        let device = match kind {
            Kind::Qcow2 | Kind::Raw | Kind::RawWithMetadata => {
                format!("virtio-blk-pci,drive=node{index},id=vd{index}")
            }
            Kind::RawWithIothread | Kind::Qcow2WithIothread | Kind::RawWithMetadataAndIothread => {
                let thread = format!("iothread,id=io{index}");
                command.args(["-object", &thread]);
                format!("virtio-blk-pci,drive=node{index},id=vd{index},iothread=io{index}")
            }
            Kind::ScsiRawWithIothread => {
                command.args(["-object", &format!("iothread,id=io{index}")]);
                let controller = format!("virtio-scsi-pci,id=scsi{index},iothread=io{index}");
                command.args(["-device", &controller]);
                format!("scsi-hd,bus=scsi{index}.0,drive=node{index},id=vd{index}")
            }
            Kind::ScsiRaw | Kind::ScsiQcow2 => {
                let controller = format!("virtio-scsi-pci,id=scsi{index}");
                command.args(["-device", &controller]);
                format!("scsi-hd,bus=scsi{index}.0,drive=node{index},id=vd{index}")
            }
        };
        command.args(["-device", &device]);
    }

    /// Ends QEMU as a power button does (`quit`), or by SIGKILL.
    pub(crate) async fn power_off(&mut self, how: PowerOff) {
        let mut process = self.process.take().unwrap();
        match how {
            PowerOff::Orderly => drop(self.command("quit", Value::Null).await),
            PowerOff::Killed => process.kill().unwrap(),
        }
        self.control = None;
        tokio::task::spawn_blocking(move || process.wait())
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn monitor(&self) -> PathBuf {
        self.path("qmp")
    }

    /// For a watchdog.
    pub(crate) fn second_monitor(&self) -> PathBuf {
        self.path("second")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    pub(crate) fn machine(&self) -> MachineSpecification {
        let disk = |index: usize| DiskSpecification {
            name: format!("disk{index}"),
            device: format!("vd{index}"),
            bus: DiskBus::VirtioBlk,
        };
        MachineSpecification {
            vm: "tested".into(),
            uuid: Some(UUID.into()),
            processors: 1,
            memory: ByteCount(64 << 20),
            firmware: Firmware::Bios,
            machine_type: "pc".into(),
            disks: (0..self.kinds.len()).map(disk).collect(),
            nics: vec![NicSpecification { mac: MAC.into() }],
        }
    }

    pub(crate) fn source(&self) -> QemuSource {
        self.source_at(&self.monitor())
    }

    pub(crate) fn source_at(&self, monitor: &Path) -> QemuSource {
        self.source_of(self.machine(), monitor)
    }

    pub(crate) fn source_of(&self, machine: MachineSpecification, monitor: &Path) -> QemuSource {
        QemuSource::new(self.config(machine, monitor))
    }

    pub(crate) fn config(&self, machine: MachineSpecification, monitor: &Path) -> QemuSourceConfig {
        QemuSourceConfig {
            monitor: monitor.to_owned(),
            machine,
            scratch_directory: self.scratch(),
            guest_agent: None,
            watchdog: None,
        }
    }

    pub(crate) async fn command(
        &self,
        name: &str,
        arguments: Value,
    ) -> Result<Value, farshore_qmp::QmpError> {
        self.control.as_ref().unwrap().execute(name, arguments).await
    }

    /// What happens to it from now on.
    pub(crate) fn events(&self) -> tokio::sync::broadcast::Receiver<farshore_qmp::Event> {
        self.control.as_ref().unwrap().subscribe()
    }

    /// Does a `qemu-io` command on the device's own node, below which everything of Farshore lies.
    pub(crate) async fn qemu_io(&self, disk: usize, command: &str) {
        let device = match self.kinds[disk] {
            Kind::ScsiRaw | Kind::ScsiQcow2 | Kind::ScsiRawWithIothread => format!("vd{disk}"),
            Kind::Qcow2
            | Kind::Raw
            | Kind::RawWithMetadata
            | Kind::RawWithIothread
            | Kind::Qcow2WithIothread
            | Kind::RawWithMetadataAndIothread => {
                format!("/machine/peripheral/vd{disk}/virtio-backend")
            }
        };
        let line = format!("qemu-io -d {device} \"{command}\"");
        let said = self
            .command("human-monitor-command", json!({"command-line": line}))
            .await
            .unwrap();
        let said = said.as_str().unwrap();
        assert!(
            !said.to_lowercase().contains("error") && !said.contains("failed"),
            "{said}"
        );
    }

    /// Zeroes a range as a guest does with a discard. QEMU 7.2's `qemu-io` waits for that wrongly, and aborts, where an I/O
    /// thread serves the disk; there zeroes are written.
    pub(crate) async fn zero(&self, disk: usize, start: usize, length: usize) {
        let command = match self.kinds[disk] {
            Kind::RawWithIothread
            | Kind::Qcow2WithIothread
            | Kind::RawWithMetadataAndIothread
            | Kind::ScsiRawWithIothread => "write -P 0",
            Kind::Qcow2 | Kind::Raw | Kind::ScsiRaw | Kind::ScsiQcow2 | Kind::RawWithMetadata => {
                "write -z -u"
            }
        };
        self.qemu_io(disk, &format!("{command} {start} {length}")).await;
    }

    /// Everything in QEMU that bears a name of ours.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let nodes = self
            .command("query-named-block-nodes", json!({"flat": true}))
            .await
            .unwrap();
        for node in nodes.as_array().unwrap() {
            let name = node["node-name"].as_str().unwrap();
            if name.starts_with("fs-") {
                found.push(name.to_owned());
            }
            for bitmap in node["dirty-bitmaps"].as_array().into_iter().flatten() {
                let recording = bitmap["recording"].as_bool().unwrap();
                let name = bitmap["name"].as_str().unwrap();
                let ours = name.strip_prefix("fs.").and_then(|rest| rest.split_once('.'));
                let shown = ours.map_or_else(|| name.to_owned(), |(_, base)| format!("since {base}"));
                found.push(format!("{shown}{}", if recording { "" } else { " (disabled)" }));
            }
        }
        let exports = self.command("query-block-exports", Value::Null).await.unwrap();
        let ids = exports.as_array().unwrap().iter();
        found.extend(ids.map(|export| export["id"].as_str().unwrap().to_owned()));
        found.sort();
        found
    }
}

fn create_raw(image: &Path) {
    let file = std::fs::File::create(image).unwrap();
    file.set_len(DISK_BYTES as u64).unwrap();
}

/// As docs/qemu.md says: `qemu-img` would take the data file's content for its own, so that it gets another one to create.
fn create_metadata(directory: &Path, name: &str) {
    let made = Command::new("qemu-img")
        .current_dir(directory)
        .args([
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "data_file=empty.raw,data_file_raw=on",
        ])
        .args([name, &DISK_BYTES.to_string()])
        .status();
    assert!(made.unwrap().success());
    std::fs::remove_file(directory.join("empty.raw")).unwrap();
}

pub(crate) enum PowerOff {
    Orderly,
    Killed,
}

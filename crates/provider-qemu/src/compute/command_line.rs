//! The command line of a recovered VM's QEMU: pure.
//!
//! Each disk is a chain of explicit nodes, `overlay-N` (qcow2) over `file-N` (local) with `point-N` (NBD, read-only)
//! behind it; devices carry the identifiers of the protected VM, so that a capture finds them by the same names.

use farshore_provider::{DiskBus, RecoveryDisk, RecoveryRequest};
use serde_json::{Value, json};

use super::{accelerator::Accelerator, directory::RecoveryDirectory, overlay::OverlayCache};

/// For how long the guest's reads wait when the server of a point goes away: a restart of the server takes a second or
/// two, a restart of its host's services some more; beyond it the VM is suspended by `rerror=stop`.
const RECONNECT_DELAY_SECONDS: u32 = 60;

/// For how long a launch waits for a server that is just starting.
const OPEN_TIMEOUT_SECONDS: u32 = 5;

/// The controller of disks on virtio-scsi.
const SCSI_CONTROLLER: &str = "farshore-scsi";

/// What a disk's overlay lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// The export of the point.
    Point,
    /// Nothing: all data was brought into the overlay.
    Nothing,
}

/// All that the command line depends on beside the request.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings<'a> {
    pub(crate) files: &'a RecoveryDirectory,
    pub(crate) accelerator: Accelerator,
    pub(crate) cache: OverlayCache,
    /// Of each disk, in order.
    pub(crate) backings: Vec<Backing>,
    /// Of each network card, in order.
    pub(crate) taps: Vec<String>,
}

/// The node of the export of the point of the disk at `index`.
pub(crate) fn point_node(index: usize) -> String {
    format!("point-{index}")
}

/// QEMU's arguments. The processors do not run yet: what was opened is looked at first.
pub(crate) fn arguments(request: &RecoveryRequest, around: &Surroundings<'_>) -> Vec<String> {
    let mut line = Line::default();
    machine(&mut line, request, around.accelerator);
    for (index, disk) in request.disks.iter().enumerate() {
        let backing = around.backings.get(index).copied().unwrap_or(Backing::Point);
        nodes(&mut line, index, disk, backing, around);
    }
    disks(&mut line, request);
    cards(&mut line, request, &around.taps);
    console_and_monitors(&mut line, around.files);
    line.add("-pidfile", around.files.pid_file());
    line.flag("-daemonize");
    line.flag("-S");
    line.0
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn add(&mut self, name: &str, value: impl ToString) {
        self.flag(name);
        self.0.push(value.to_string());
    }
}

fn machine(line: &mut Line, request: &RecoveryRequest, accelerator: Accelerator) {
    let machine = &request.machine;
    for flag in ["-nodefaults", "-no-user-config"] {
        line.flag(flag);
    }
    line.add("-name", format!("guest={}", request.id));
    line.add("-machine", &machine.machine_type);
    for choice in accelerator.arguments() {
        line.add("-accel", choice);
    }
    // The processor model does not travel with the point yet: everything that this host can do.
    line.add("-cpu", "max");
    line.add("-smp", machine.processors);
    line.add("-m", format!("{}k", machine.memory.0 / 1024));
    if let Some(uuid) = &machine.uuid {
        line.add("-uuid", uuid);
    }
    line.add("-display", "none");
    line.add("-boot", "strict=on");
    line.add("-object", "rng-random,id=entropy,filename=/dev/urandom");
}

fn nodes(line: &mut Line, index: usize, disk: &RecoveryDisk, backing: Backing, around: &Surroundings<'_>) {
    let direct = around.cache == OverlayCache::Direct;
    let backing = match backing {
        Backing::Point => {
            line.add("-blockdev", point(index, disk));
            json!(point_node(index))
        }
        Backing::Nothing => Value::Null,
    };
    let file = json!({
        "driver": "file",
        "node-name": format!("file-{index}"),
        "filename": around.files.overlay(&disk.name),
        "cache": {"direct": direct},
        "discard": "unmap",
    });
    let overlay = json!({
        "driver": "qcow2",
        "node-name": format!("overlay-{index}"),
        "file": format!("file-{index}"),
        "backing": backing,
        "cache": {"direct": direct},
        "discard": "unmap",
    });
    line.add("-blockdev", file);
    line.add("-blockdev", overlay);
}

fn point(index: usize, disk: &RecoveryDisk) -> Value {
    json!({
        "driver": "nbd",
        "node-name": point_node(index),
        "read-only": true,
        "server": {"type": "unix", "path": disk.export_socket},
        "export": disk.name,
        "reconnect-delay": RECONNECT_DELAY_SECONDS,
        "open-timeout": OPEN_TIMEOUT_SECONDS,
    })
}

fn disks(line: &mut Line, request: &RecoveryRequest) {
    let wants_controller = |bus| bus == DiskBus::VirtioScsi;
    if request
        .machine
        .disks
        .iter()
        .any(|disk| wants_controller(disk.bus))
    {
        line.add(
            "-device",
            json!({"driver": "virtio-scsi-pci", "id": SCSI_CONTROLLER}),
        );
    }
    for (index, disk) in request.machine.disks.iter().enumerate() {
        // An error of the overlay or of the point's server suspends the VM instead of reaching the guest, which
        // would turn its file systems read-only: it goes on when the cause is gone.
        let mut device = json!({
            "id": disk.device,
            "drive": format!("overlay-{index}"),
            "rerror": "stop",
            "werror": "stop",
        });
        let driver = match disk.bus {
            DiskBus::VirtioBlk => "virtio-blk-pci",
            DiskBus::VirtioScsi => "scsi-hd",
        };
        if let Some(device) = device.as_object_mut() {
            device.insert("driver".to_owned(), json!(driver));
            if disk.bus == DiskBus::VirtioScsi {
                device.insert("bus".to_owned(), json!(format!("{SCSI_CONTROLLER}.0")));
            }
            if index == 0 {
                device.insert("bootindex".to_owned(), json!(1));
            }
        }
        line.add("-device", device);
    }
}

fn cards(line: &mut Line, request: &RecoveryRequest, taps: &[String]) {
    for (index, (nic, tap)) in request.machine.nics.iter().zip(taps).enumerate() {
        line.add(
            "-netdev",
            format!("tap,id=card-{index},ifname={tap},script=no,downscript=no"),
        );
        // No boot code: a recovered VM boots from its disk and asks no network.
        let card = json!({
            "driver": "virtio-net-pci",
            "netdev": format!("card-{index}"),
            "mac": nic.mac,
            "romfile": "",
        });
        line.add("-device", card);
    }
    line.add("-device", json!({"driver": "virtio-rng-pci", "rng": "entropy"}));
}

fn console_and_monitors(line: &mut Line, files: &RecoveryDirectory) {
    line.add(
        "-chardev",
        format!("file,id=console,path={},append=on", escaped(&files.console())),
    );
    line.add("-serial", "chardev:console");
    for (name, path) in [
        ("control", files.control()),
        ("monitor", files.monitor()),
        ("spare", files.spare()),
    ] {
        line.add(
            "-chardev",
            format!("socket,id={name},path={},server=on,wait=off", escaped(&path)),
        );
        line.add("-mon", format!("chardev={name},mode=control"));
    }
}

/// QEMU's options of the form `key=value,…` double a comma in a value.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests;

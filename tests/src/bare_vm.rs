//! VMs without a guest: a QEMU that boots nothing and takes no processor time, whose disk the test writes through the
//! monitor. Where no guest has to be judged they start in a tenth of a second.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{eventually, spare_monitor::SpareMonitor};

const START: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;

/// A QEMU without a guest. It goes with the value.
#[derive(Debug)]
pub struct BareVm {
    name: String,
    directory: PathBuf,
    child: Child,
}

impl BareVm {
    /// Starts it with one processor, 32 MiB, and what `arguments` say.
    ///
    /// # Panics
    /// When QEMU refuses.
    #[must_use]
    pub fn start(directory: &Path, name: &str, arguments: &[String]) -> Self {
        let monitor = |role: &str| {
            format!(
                "unix:{},server=on,wait=off",
                directory.join(format!("{name}.{role}")).display()
            )
        };
        let log = fs::File::create(directory.join(format!("{name}.log"))).unwrap();
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-name", name, "-machine", "pc", "-accel", "tcg", "-m", "32", "-smp", "1",
            ])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-qmp", &monitor("qmp"), "-qmp", &monitor("spare")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut vm = Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            child,
        };
        let _ = eventually(START, "the monitors listen", || {
            let ended = vm.child.try_wait().unwrap();
            let log = || fs::read_to_string(vm.directory.join(format!("{}.log", vm.name)));
            assert!(ended.is_none(), "QEMU ended: {:?}", log());
            // It is made last. Its file alone would not do: that is there before anyone listens.
            UnixStream::connect(vm.spare_monitor().0).ok()
        });
        vm
    }

    /// Starts it with the two disks of its declaration: a raw one and a qcow2 one, both empty.
    #[must_use]
    pub fn with_disks(directory: &Path, name: &str, root_mib: u64) -> Self {
        let root = raw_disk(directory, name, root_mib);
        let data = qcow2_disk(directory, name, 8);
        Self::start(
            directory,
            name,
            &[
                virtio_disk("root", "raw", &root, ""),
                virtio_disk("data", "qcow2", &data, ""),
            ]
            .concat(),
        )
    }

    /// Starts it with a raw disk of noise, and an empty qcow2 one.
    #[must_use]
    pub fn with_noise(directory: &Path, name: &str, root_mib: u64) -> Self {
        let root = noisy_disk(directory, name, root_mib);
        let data = qcow2_disk(directory, name, 8);
        let disks = [
            virtio_disk("root", "raw", &root, ""),
            virtio_disk("data", "qcow2", &data, ""),
        ];
        Self::start(directory, name, &disks.concat())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The monitor that is Farshore's.
    #[must_use]
    pub fn monitor(&self) -> PathBuf {
        self.directory.join(format!("{}.qmp", self.name))
    }

    /// The file of its raw disk.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join(format!("{}-root.raw", self.name))
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub fn kill9(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for monitor in [self.monitor(), self.spare_monitor().0] {
            // The next one of this name makes its own.
            let _ = fs::remove_file(monitor);
        }
    }

    /// Writes to its disk as its guest would: through the device.
    ///
    /// # Panics
    /// When QEMU refuses it.
    pub fn write(&self, device: &str, pattern: u8, offset: u64, length: u64) {
        let backend = format!("/machine/peripheral/{device}/virtio-backend");
        let line = format!("qemu-io -d {backend} \"write -P {pattern} {offset} {length}\"");
        let answer = self.ask("human-monitor-command", json!({"command-line": line}));
        assert!(!answer.to_string().contains("rror"), "{line}: {answer}");
    }

    /// Plugs a new qcow2 disk of 16 MiB in, whose node is `extra` and whose device is `vdextra`.
    ///
    /// # Panics
    /// When QEMU refuses it.
    pub fn plug_extra_disk(&self) {
        let image = image(&self.directory, &format!("{}-extra", self.name), "qcow2", 16);
        let node = json!({
            "driver": "qcow2", "node-name": "extra",
            "file": {"driver": "file", "filename": image},
        });
        let _ = self.ask("blockdev-add", node);
        let device = json!({"driver": "virtio-blk-pci", "id": "vdextra", "drive": "extra"});
        let _ = self.ask("device_add", device);
    }

    /// Everything of Farshore that is at the VM: block nodes, bitmaps, exports, jobs, and the NBD server.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        self.spare_monitor().traces()
    }

    /// Runs a QMP command through a monitor that Farshore does not know.
    ///
    /// # Panics
    /// When QEMU refuses it.
    #[must_use]
    pub fn ask(&self, command: &str, arguments: Value) -> Value {
        self.spare_monitor().ask(command, arguments)
    }

    /// As [`Self::ask`].
    ///
    /// # Errors
    /// When QEMU refuses it, with its words.
    pub fn try_ask(&self, command: &str, arguments: Value) -> Result<Value, String> {
        self.spare_monitor().try_ask(command, arguments)
    }

    fn spare_monitor(&self) -> SpareMonitor {
        SpareMonitor(self.directory.join(format!("{}.spare", self.name)))
    }
}

impl Drop for BareVm {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// An empty raw disk image.
#[must_use]
pub fn raw_disk(directory: &Path, name: &str, mib: u64) -> PathBuf {
    let path = directory.join(format!("{name}-root.raw"));
    fs::File::create(&path).unwrap().set_len(mib * MIB).unwrap();
    path
}

/// A raw disk image of bytes that no compression makes fewer.
#[must_use]
pub fn noisy_disk(directory: &Path, name: &str, mib: u64) -> PathBuf {
    let path = directory.join(format!("{name}-root.raw"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let words = words.take(usize::try_from(mib * MIB / 8).unwrap());
    fs::write(&path, words.flatten().collect::<Vec<u8>>()).unwrap();
    path
}

/// An empty qcow2 disk image.
#[must_use]
pub fn qcow2_disk(directory: &Path, name: &str, mib: u64) -> PathBuf {
    image(directory, name, "qcow2", mib)
}

/// An empty disk image of any format that `qemu-img` knows.
///
/// # Panics
/// When `qemu-img` refuses.
#[must_use]
pub fn image(directory: &Path, name: &str, format: &str, mib: u64) -> PathBuf {
    let path = directory.join(format!("{name}-data.{format}"));
    let output = Command::new("qemu-img")
        .args(["create", "-q", "-f", format])
        .arg(&path)
        .arg(format!("{mib}M"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

/// The arguments of a disk whose node is `node` and whose device is `vdNODE`.
#[must_use]
pub fn virtio_disk(node: &str, format: &str, path: &Path, more: &str) -> Vec<String> {
    let file = format!("file.driver=file,file.filename={}", path.display());
    vec![
        "-blockdev".to_owned(),
        format!("driver={format},node-name={node},{file}"),
        "-device".to_owned(),
        format!("virtio-blk-pci,id=vd{node},drive={node}{more}"),
    ]
}

/// A declaration of a bare VM, with these disks: node `N` is at device `vdN`.
///
/// # Panics
/// When it is not one.
#[must_use]
pub fn with_disks(document: &str, disks: &[&str]) -> String {
    let (before, _) = document.split_once("    disks:\n").unwrap();
    let line = |disk: &&str| format!("    - {{name: {disk}, device: vd{disk}}}\n");
    let disks: String = disks.iter().map(line).collect();
    format!("{before}    disks:\n{disks}    nics: []\n")
}

/// The declaration of a bare VM that has a monitor at `monitor`.
#[must_use]
pub fn document(name: &str, monitor: &Path) -> String {
    let monitor = monitor.display();
    format!(
        "apiVersion: farshore/v1\nkind: ProtectedVm\nmetadata: {{name: {name}}}\nspec:\n  policy: gold\n  \
         source: {{site: east, monitor: {monitor}}}\n  target: {{site: west}}\n  machine:\n    processors: 1\n    \
         memory: 32MiB\n    firmware: bios\n    machineType: pc\n    disks:\n    \
         - {{name: root, device: vdroot}}\n    - {{name: data, device: vddata}}\n    nics: []\n"
    )
}

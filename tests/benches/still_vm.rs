//! A QEMU whose processors never run: a disk to protect, without a guest that would cost time.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use farshore_proto::v1;

use crate::process::Process;

const MIB: u64 = 1 << 20;
/// Its memory.
pub(crate) const MEMORY_MIB: u64 = 64;

/// The virtual machine, with one raw disk in the host's page cache.
pub(crate) struct StillVm {
    pub(crate) name: String,
    pub(crate) monitor: PathBuf,
    #[allow(dead_code, reason = "it ends with the value")]
    process: Process,
}

/// What is on a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    /// The disk's size.
    pub(crate) size_bytes: u64,
    /// How many runs of random bytes there are, at equal distances; holes are between them.
    pub(crate) runs: u64,
    /// How long each run is.
    pub(crate) run_bytes: u64,
}

impl Content {
    /// How many bytes are not holes.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.runs * self.run_bytes
    }

    /// Writes a disk's file.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.size_bytes)?;
        let mut random = File::open("/dev/urandom")?.take(self.data_bytes());
        let mut left = Vec::new();
        let distance = self.size_bytes / self.runs.max(1);
        for run in 0..self.runs {
            file.seek(SeekFrom::Start(run * distance))?;
            let mut written = 0;
            while written < self.run_bytes {
                let piece = MIB.min(self.run_bytes - written);
                left.clear();
                random.by_ref().take(piece).read_to_end(&mut left)?;
                file.write_all(&left)?;
                written += piece;
            }
        }
        // Later syncs must not pay for these bytes.
        file.sync_all()?;
        Ok(())
    }
}

impl StillVm {
    /// Starts it on the disk `image`.
    pub(crate) fn start(directory: &Path, name: &str, image: &Path) -> anyhow::Result<Self> {
        let monitor = directory.join(format!("{name}.qmp"));
        let log = directory.join(format!("{name}.qemu.log"));
        let image = image.to_str().context("a path that is not UTF-8")?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-S", "-accel", "tcg", "-machine", "pc", "-smp", "1", "-m"])
            .arg(MEMORY_MIB.to_string())
            .args(["-nodefaults", "-display", "none", "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .arg("-blockdev")
            .arg(format!(
                "driver=file,node-name=file,filename={image},discard=unmap"
            ))
            .args(["-blockdev", "driver=raw,node-name=disk,file=file,discard=unmap"])
            .args(["-device", "virtio-blk-pci,id=vd0,drive=disk"]);
        let mut process = Process::start(&mut command, &log)?;
        process.ready(&log, || monitor.exists().then_some(()));
        Ok(Self {
            name: name.to_owned(),
            monitor,
            process,
        })
    }

    /// The number of its process.
    #[allow(dead_code, reason = "what one bench does not need, another does")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The machine, as it is declared.
    pub(crate) fn machine(&self) -> v1::Machine {
        v1::Machine {
            vm: self.name.clone(),
            uuid: String::new(),
            processors: 1,
            memory_bytes: MEMORY_MIB * MIB,
            firmware: "bios".to_owned(),
            machine_type: "pc".to_owned(),
            disks: vec![v1::Disk {
                name: "disk".to_owned(),
                device: "vd0".to_owned(),
                bus: "virtioBlk".to_owned(),
            }],
            nics: Vec::new(),
        }
    }
}

//! The guest of the benches: its disks, the VM that it runs in, how that is protected, and what it told meanwhile.

#![allow(dead_code, reason = "what one bench does not need, another does")]

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use farshore_guest::{
    image::{GuestDisks, GuestImage, ImageRequest, WorkloadExecutable},
    latency::Latencies,
    machine::{CacheMode, DiskFormat, SourceVm, SourceVmRequest},
    witness::Testimony,
};
use farshore_proto::v1;
use farshore_tests::{daemon::binary, guests::BOOT};

use crate::two_sites::VmToProtect;

const ROOT_BYTES: u64 = 512 << 20;
const END: Duration = Duration::from_secs(10);
/// The guest tells how long its writes took every 250 ms.
const TOLD_WITHIN: Duration = Duration::from_millis(400);

/// A guest that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuestOrder {
    /// Each is written to both disks.
    pub(crate) records_per_second: u32,
    pub(crate) cache: CacheMode,
    pub(crate) data_bytes: u64,
    pub(crate) data_format: DiskFormat,
}

/// A guest that ends with the value.
pub(crate) struct GuestVm {
    vm: SourceVm,
    order: GuestOrder,
}

/// What a guest told of a window of time.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) writes_per_second: f64,
    pub(crate) latencies: Latencies,
}

/// Follows a witness's file through a window of time.
#[derive(Debug)]
pub(crate) struct Listener {
    witness: PathBuf,
    from: u64,
    written: u64,
    began: Instant,
}

impl GuestOrder {
    /// A guest that writes so many records, without the host's cache, to a qcow2 disk and a raw one of 256 MiB.
    pub(crate) fn small(records_per_second: u32) -> Self {
        Self {
            records_per_second,
            cache: CacheMode::None,
            data_bytes: 256 << 20,
            data_format: DiskFormat::Raw,
        }
    }

    /// Its disks' images; the data disk's is raw.
    pub(crate) fn images(&self, directory: &Path, name: &str) -> anyhow::Result<GuestDisks> {
        let workload = WorkloadExecutable {
            path: binary(),
            leading_arguments: vec!["guest-workload".into()],
        };
        let mut image = ImageRequest::small(directory, name, workload);
        image.root_bytes = ROOT_BYTES;
        image.data_bytes = self.data_bytes;
        image.records_per_second = self.records_per_second;
        image.journal_records_per_second = 1;
        Ok(GuestImage::build(&image)?)
    }
}

impl GuestVm {
    /// Builds its disks in `directory` and boots it.
    pub(crate) fn start(directory: &Path, order: GuestOrder) -> anyhow::Result<Self> {
        let disks = order.images(directory, "db")?;
        Self::start_on(directory, order, &disks)
    }

    /// Boots it from these disks.
    pub(crate) fn start_on(directory: &Path, order: GuestOrder, disks: &GuestDisks) -> anyhow::Result<Self> {
        let mut request = SourceVmRequest::small(directory, "db", disks);
        request.cache = order.cache;
        for disk in &mut request.disks {
            if disk.node == "data" {
                disk.format = order.data_format;
            }
        }
        let guest = Self {
            vm: SourceVm::start(request)?,
            order,
        };
        let verdict = guest.vm.wait_for_boot(BOOT)?;
        ensure!(verdict.is_clean(), "the guest did not boot well: {verdict:?}");
        Ok(guest)
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.vm.pid()
    }

    /// The monitor that is the product's.
    pub(crate) fn monitor(&self) -> anyhow::Result<&Path> {
        let monitor = self.vm.request().monitors.first();
        Ok(monitor.context("the guest has no monitor")?)
    }

    /// A second monitor.
    pub(crate) fn spare_monitor(&self) -> anyhow::Result<&Path> {
        let monitor = self.vm.request().monitors.get(1);
        Ok(monitor.context("the guest has one monitor only")?)
    }

    /// It, as it is to be protected through this monitor.
    pub(crate) fn to_protect(&self, monitor: &Path, interval: Duration) -> VmToProtect {
        let disk = |name: &str| v1::Disk {
            name: name.to_owned(),
            device: format!("vd{name}"),
            bus: "virtioBlk".to_owned(),
        };
        VmToProtect {
            machine: v1::Machine {
                vm: "db".to_owned(),
                uuid: String::new(),
                processors: 1,
                memory_bytes: 256 << 20,
                firmware: "bios".to_owned(),
                machine_type: "pc".to_owned(),
                disks: vec![disk("root"), disk("data")],
                nics: Vec::new(),
            },
            monitor: monitor.to_owned(),
            sizes: vec![ROOT_BYTES, self.order.data_bytes],
            interval,
        }
    }

    /// Listens to it from now on.
    pub(crate) fn listen(&self) -> anyhow::Result<Listener> {
        Listener::start(&self.vm.request().witness)
    }

    /// Fails if the guest had an error of its disks.
    pub(crate) fn see_unharmed(&self) -> anyhow::Result<()> {
        see_unharmed(&self.vm.request().witness)
    }
}

impl Drop for GuestVm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.vm.kill9(END);
    }
}

impl Listener {
    /// Listens to what is told to this witness from now on.
    pub(crate) fn start(witness: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            from: fs::metadata(witness)?.len(),
            written: written(&Testimony::read(witness)?),
            began: Instant::now(),
            witness: witness.to_owned(),
        })
    }

    /// What was told since then.
    pub(crate) fn stop(self) -> anyhow::Result<Told> {
        let written = written(&Testimony::read(&self.witness)?) - self.written;
        let lasted = self.began.elapsed();
        // The last writes' times are told a little later.
        thread::sleep(TOLD_WITHIN);
        let mut file = File::open(&self.witness)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // It may begin in the middle of a line.
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = text.split_once('\n').map_or("", |(_, whole)| whole);
        let latencies = Testimony::parse(whole).latencies;
        ensure!(latencies.count() > 0, "the guest told of no write");
        Ok(Told {
            writes_per_second: written as f64 / lasted.as_secs_f64(),
            latencies,
        })
    }
}

impl Told {
    /// What so many of a thousand writes did not exceed, in milliseconds.
    pub(crate) fn per_mille(&self, share: u32) -> f64 {
        let time = self.latencies.per_mille(share);
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The longest write, in milliseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.latencies.longest().as_secs_f64() * 1e3
    }
}

/// Fails if a guest told this witness of an error of its disks.
pub(crate) fn see_unharmed(witness: &Path) -> anyhow::Result<()> {
    let errors = Testimony::read(witness)?.errors;
    ensure!(errors.is_empty(), "the guest had errors: {errors:?}");
    Ok(())
}

fn written(testimony: &Testimony) -> u64 {
    testimony.acknowledged.region_a + testimony.acknowledged.region_b
}

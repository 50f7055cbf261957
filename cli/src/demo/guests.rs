//! The virtual machines that run at east: built, started as an operator would, and heard through their witnesses.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use farshore_guest::{
    accelerator::Accelerator,
    image::{GuestDisks, GuestImage, ImageRequest, WorkloadExecutable},
    machine::{CacheMode, Network, SourceVm, SourceVmRequest, Tap},
    network::Ipv4Network,
    witness::Testimony,
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio_util::task::TaskTracker;

use super::{
    layout::{Layout, Site, production_address},
    manifests::DeclaredVm,
    network::PRODUCTION_BRIDGE,
    on_file,
    patience::until,
};

const MIB: u64 = 1 << 20;
/// Room for this executable, which is the workload, also when it was built for debugging.
const ROOT_BYTES: u64 = 320 * MIB;
const DATA_BYTES: u64 = 224 * MIB;
/// Random bytes that make the initial sync last long enough to be seen.
const BALLAST_BYTES: u64 = 128 * MIB;
/// Enough to count what is lost; emulated processors are slow, and two guests must boot beside these.
pub(super) const RECORDS_PER_SECOND: u32 = 100;
/// The production address of the first guest; the others follow.
const FIRST_HOST: u8 = 11;
/// Booting takes a few seconds, and many where processors are emulated and few.
pub(super) const BOOT_LIMIT: Duration = Duration::from_secs(300);
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Where every guest serves its status.
const GUEST_PORT: u16 = 80;

/// One virtual machine at east.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    /// Its name.
    pub(super) name: String,
    address: Ipv4Addr,
    vm: Arc<SourceVm>,
}

/// Builds the disks of all guests, side by side.
pub(super) async fn build(
    layout: &Layout,
    vms: &[DeclaredVm],
    blocking: &TaskTracker,
) -> anyhow::Result<Vec<GuestDisks>> {
    let directory = layout.vms_directory();
    on_file(fs::create_dir(&directory), "create", &directory)?;
    let mut builds = Vec::new();
    for (vm, address) in vms.iter().zip(addresses()) {
        let request = image(directory.clone(), &vm.name, address)?;
        builds.push(blocking.spawn_blocking(move || GuestImage::build(&request)));
    }
    let mut disks = Vec::new();
    for build in builds {
        disks.push(build.await?.context("a guest could not be built")?);
    }
    Ok(disks)
}

/// Starts all guests at east and waits until they have booted.
pub(super) async fn start(
    layout: &Layout,
    vms: &[DeclaredVm],
    disks: &[GuestDisks],
    accelerator: Accelerator,
    blocking: &TaskTracker,
) -> anyhow::Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for (((vm, disks), address), number) in vms.iter().zip(disks).zip(addresses()).zip(1_u8..) {
        let mut request = SourceVmRequest::small(&layout.vms_directory(), &vm.name, disks);
        request.accelerator = accelerator;
        request.cache = cache_mode(&layout.vms_directory())?;
        request.network = Network::Tap(Tap {
            interface: format!("vm{number}"),
            bridge: PRODUCTION_BRIDGE.to_owned(),
            namespace: Some(layout.namespace(Site::East)),
            mac_address: vm.mac_address.clone(),
        });
        let started = blocking.spawn_blocking(move || SourceVm::start(request)).await?;
        let vm_started = started.with_context(|| format!("{} did not start", vm.name))?;
        guests.push(Guest {
            name: vm.name.clone(),
            address,
            vm: Arc::new(vm_started),
        });
    }
    for guest in &guests {
        guest.until_it_writes().await?;
    }
    Ok(guests)
}

impl Guest {
    /// Where it serves its status, in whichever production network it is.
    pub(super) fn socket(&self) -> SocketAddr {
        SocketAddr::from((self.address, GUEST_PORT))
    }

    /// What its witness heard.
    pub(super) fn testimony(&self) -> anyhow::Result<Testimony> {
        Ok(self.vm.testimony()?)
    }

    /// Ends it as a power cut would.
    pub(super) async fn kill9(&self, blocking: &TaskTracker) -> anyhow::Result<()> {
        let vm = Arc::clone(&self.vm);
        let killed = blocking.spawn_blocking(move || vm.kill9(KILL_LIMIT)).await?;
        killed.with_context(|| format!("{} could not be killed", self.name))
    }

    async fn until_it_writes(&self) -> anyhow::Result<()> {
        let what = format!("the first record of {}", self.name);
        until(&what, BOOT_LIMIT, || async {
            let testimony = self.testimony()?;
            anyhow::ensure!(self.vm.is_running(), "{} ended while it booted", self.name);
            Ok((testimony.acknowledged.region_b > 0).then_some(()))
        })
        .await
    }
}

/// Directly to the disk where the file system can do that.
fn cache_mode(directory: &Path) -> anyhow::Result<CacheMode> {
    let path = directory.join("direct");
    let opened = rustix::fs::open(
        &path,
        OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT,
        Mode::RUSR | Mode::WUSR,
    );
    let removed = fs::remove_file(&path);
    match opened {
        Ok(_) => on_file(removed, "remove", &path).map(|()| CacheMode::None),
        Err(Errno::INVAL) => Ok(CacheMode::Writeback),
        Err(error) => on_file(Err(error.into()), "create", &path),
    }
}

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (FIRST_HOST..u8::MAX).map(production_address)
}

fn image(directory: PathBuf, name: &str, address: Ipv4Addr) -> anyhow::Result<ImageRequest> {
    let workload = WorkloadExecutable {
        path: std::env::current_exe().context("this executable has no path")?,
        leading_arguments: vec!["guest-workload".to_owned()],
    };
    Ok(ImageRequest {
        address: Some(Ipv4Network {
            address,
            prefix_length: 24,
        }),
        gateway: Some(production_address(1)),
        root_bytes: ROOT_BYTES,
        data_bytes: DATA_BYTES,
        ballast_bytes: BALLAST_BYTES,
        records_per_second: RECORDS_PER_SECOND,
        ..ImageRequest::small(&directory, name, workload)
    })
}

//! Recovered VMs on this host: each is a QEMU of its own that outlives this process, on local overlays over read-only
//! exports of a recovery point, in a bubble or on a bridge of the site.
//!
//! Invariants: everything that is known of a VM is in its directory, so that a successor over the same directory adopts
//! it; only processes that are provably a VM's are signalled; an overlay that a guest may have written to is never
//! replaced.

mod accelerator;
mod checks;
mod command_line;
mod control;
mod directory;
mod discard;
mod launch;
mod network;
mod overlay;
mod probe;
mod process;
mod prove;
mod request;
mod running;
mod start;
mod stop;
mod tool;
mod turns;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use farshore_provider::{
    Check, Compute, ComputeError, IsolationProof, Leak, MachineSpecification, NetworkAttachment, RecoveredVm,
    RecoveryId, RecoveryRequest, VmCondition,
};
use tokio::sync::Mutex;

pub use self::accelerator::AcceleratorChoice;
use self::{
    directory::RecoveryDirectory,
    network::{Network, Place, Wanted},
    turns::Turns,
};

/// The programs of the host that are run. Names without a slash are looked up in `PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTools {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `qemu-img`.
    pub qemu_img: PathBuf,
    /// `ip`, of iproute2.
    pub ip: PathBuf,
    /// `nsenter`, of util-linux.
    pub nsenter: PathBuf,
}

impl Default for HostTools {
    fn default() -> Self {
        Self {
            qemu: "qemu-system-x86_64".into(),
            qemu_img: "qemu-img".into(),
            ip: "ip".into(),
            nsenter: "nsenter".into(),
        }
    }
}

/// Where and with what recovered VMs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuComputeConfig {
    /// Each VM gets a directory in it. Unix sockets are made there: at most about 70 bytes long.
    pub directory: PathBuf,
    /// What runs the guests' instructions.
    pub accelerator: AcceleratorChoice,
    /// The programs that are run.
    pub tools: HostTools,
}

impl QemuComputeConfig {
    /// The usual configuration, with recovered VMs below `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            accelerator: AcceleratorChoice::default(),
            tools: HostTools::default(),
        }
    }
}

/// Why recovered VMs cannot be kept where they should.
#[derive(Debug, thiserror::Error)]
pub enum OpenComputeError {
    /// The directory cannot be made or used.
    #[error("the directory {path} for recovered VMs cannot be used")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its path cannot stand in a command line and in JSON.
    #[error("the directory {path} for recovered VMs has a path that is not UTF-8")]
    NotText {
        /// Which directory.
        path: PathBuf,
    },
}

/// Recovered VMs on this host.
#[derive(Debug)]
pub struct QemuCompute {
    site: Site,
    turns: Turns,
}

/// What all operations need.
#[derive(Debug)]
struct Site {
    /// Absolute.
    root: String,
    tools: HostTools,
    accelerator: AcceleratorChoice,
    /// Bubbles are shared: one makes or removes them at a time.
    network_turn: Mutex<()>,
}

impl QemuCompute {
    /// Opens the directory; VMs that a predecessor left in it are known from then on.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn open(config: QemuComputeConfig) -> Result<Self, OpenComputeError> {
        let path = config.directory;
        let absolute = fs::create_dir_all(&path).and_then(|()| path.canonicalize());
        let absolute = absolute.map_err(|source| OpenComputeError::Directory {
            path: path.clone(),
            source,
        })?;
        let root = absolute.to_str().ok_or(OpenComputeError::NotText { path })?;
        Ok(Self {
            site: Site {
                root: root.to_owned(),
                tools: config.tools,
                accelerator: config.accelerator,
                network_turn: Mutex::new(()),
            },
            turns: Turns::default(),
        })
    }

    /// Where what the VM's first serial port said is kept; its length is bounded, softly.
    #[must_use]
    pub fn console(&self, id: &RecoveryId) -> PathBuf {
        self.site.files(id).console().into()
    }

    /// A second monitor of the VM, for whoever must not share the first (see [`RecoveredVm::monitor`]).
    #[must_use]
    pub fn spare_monitor(&self, id: &RecoveryId) -> PathBuf {
        self.site.files(id).spare().into()
    }
}

impl Site {
    fn files(&self, id: &RecoveryId) -> RecoveryDirectory {
        RecoveryDirectory::new(&self.root, id)
    }

    fn network<'a>(&'a self, id: &'a RecoveryId) -> Network<'a> {
        Network {
            ip: &self.tools.ip,
            root: &self.root,
            id,
        }
    }

    /// The requests of all VMs that are known.
    fn requests(&self) -> io::Result<Vec<RecoveryRequest>> {
        let mut requests = Vec::new();
        for id in directory::known(&self.root)? {
            requests.extend(self.files(&id).request()?);
        }
        Ok(requests)
    }

    /// The taps of all VMs that are known in this place.
    fn taps_in(&self, place: &Place) -> io::Result<Vec<String>> {
        let requests = self.requests()?;
        let wanted = requests.iter().map(|request| Wanted::by(request, &self.root));
        let there = wanted.filter(|wanted| wanted.place == *place);
        Ok(there.flat_map(|wanted| wanted.taps).collect())
    }

    fn directory(&self) -> &Path {
        Path::new(&self.root)
    }
}

impl Compute for QemuCompute {
    async fn checks(&self, machine: &MachineSpecification, network: &NetworkAttachment) -> Vec<Check> {
        checks::all(&self.site, machine, network).await
    }

    async fn prepare(&self, request: &RecoveryRequest) -> Result<(), ComputeError> {
        let _turn = self.turns.take(&request.id).await;
        start::prepare(&self.site, request).await
    }

    async fn start(&self, id: &RecoveryId) -> Result<RecoveredVm, ComputeError> {
        let _turn = self.turns.take(id).await;
        start::start(&self.site, id).await
    }

    async fn probe(&self, id: &RecoveryId) -> Result<VmCondition, ComputeError> {
        probe::probe(&self.site, id).await
    }

    async fn prove_isolation(&self, id: &RecoveryId) -> Result<IsolationProof, ComputeError> {
        prove::prove(&self.site, id).await
    }

    async fn stop(&self, id: &RecoveryId) -> Result<(), ComputeError> {
        let _turn = self.turns.take(id).await;
        let files = self.site.files(id);
        let request = files
            .request()
            .map_err(start::io_failed(id, "reading the request"))?;
        match request {
            Some(_) => stop::end(&files, id).await,
            None => Err(ComputeError::Unknown(id.clone())),
        }
    }

    async fn discard(&self, id: &RecoveryId) -> Result<Vec<Leak>, ComputeError> {
        let _turn = self.turns.take(id).await;
        discard::discard(&self.site, id).await
    }

    async fn list(&self) -> Result<Vec<RecoveryId>, ComputeError> {
        directory::known(&self.site.root).or_else(|source| match RecoveryId::new("any") {
            // The family of errors wants a name, and here is none.
            Some(id) => Err(ComputeError::Io {
                id,
                action: format!("listing {}", self.site.root),
                source,
            }),
            None => Ok(Vec::new()),
        })
    }
}

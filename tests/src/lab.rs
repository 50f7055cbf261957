//! Two sites on this machine: `east`, where VMs run, and `west`, the far shore, each in a network namespace with a
//! production bridge of the same addresses; an orchestrator and a replicator in the west, a replicator in the east.

mod rooms;
mod sites;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use farshore_guest::machine::SourceVm;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    bare_vm::{self, BareVm},
    cli::{Answer, Cli},
    control::Control,
    daemon::Daemon,
    eventually,
    guests::GuestOrder,
    namespace::names,
    wan::{Wan, WanOptions},
};

use rooms::RoomLimit;
use sites::Sites;

/// An initial sync of a small guest, under emulation beside other tests.
pub const SYNC: Duration = Duration::from_secs(120);
/// Where the orchestrator of every lab is, in the west.
pub const ORCHESTRATOR: &str = "http://10.91.0.2:7100";
const GONE: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// How a lab is set up.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Bytes a second, as YAML says it; `None` is not limited.
    pub bandwidth: Option<String>,
    /// The time between cycles, as YAML says it.
    pub interval: String,
    /// By how much the newest point may be behind, as YAML says it; not less than the interval.
    pub rpo_target: String,
    /// More of the policy, as YAML says it in one line, like `auditRate: 64MiB`.
    pub policy: Option<String>,
    /// The room of the west's vault, as `mount` says it; `None` is as much as the machine has.
    pub vault_room: Option<String>,
    /// The room of the east's scratch space, likewise.
    pub scratch_room: Option<String>,
    /// The room of each state directory, likewise.
    pub state_room: Option<String>,
    /// The line between the sites, `There` being from east to west; `None` is a wire without a round trip.
    pub wan: Option<WanOptions>,
    /// Who opens the connections of replication.
    pub dialler: Dialler,
}

/// A site's replicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialler {
    /// The source's.
    East,
    /// The target's, which listens nowhere.
    West,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            bandwidth: None,
            interval: "1s".to_owned(),
            rpo_target: "15s".to_owned(),
            policy: None,
            vault_room: None,
            scratch_room: None,
            state_room: None,
            wan: None,
            dialler: Dialler::East,
        }
    }
}

/// Whose state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateOf {
    /// The orchestrator's.
    Orchestrator,
    /// The source's replicator's.
    East,
    /// The target's replicator's.
    West,
}

impl StateOf {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Orchestrator, Self::East, Self::West];

    fn directory(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::East => "east/state",
            Self::West => "west/state",
        }
    }
}

/// Two sites.
#[derive(Debug)]
pub struct Lab {
    /// The orchestrator, in the west.
    pub orchestrator: Daemon,
    /// The source's replicator.
    pub east: Daemon,
    /// The target's replicator.
    pub west: Daemon,
    /// The command line.
    pub cli: Cli,
    guests: Vec<(GuestOrder, SourceVm)>,
    bare: Vec<BareVm>,
    /// VMs that nobody runs here.
    at_rest: Vec<String>,
    options: LabOptions,
    sites: Sites,
    vault_mount: Option<RoomLimit>,
    scratch_mount: Option<RoomLimit>,
    state_mounts: Vec<(StateOf, RoomLimit)>,
    directory: TempDir,
    /// Dropped last: guests of one lab at a time share the processors.
    _turn: MutexGuard<'static, ()>,
}

static LABS: AtomicU32 = AtomicU32::new(0);
static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// Sets both sites up, without a VM.
    #[must_use]
    pub fn start(options: LabOptions) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let id = format!("fst{}x{number}", std::process::id());
        let directory = tempfile::Builder::new().prefix("fst").tempdir_in("/tmp").unwrap();
        let sites = Sites::create(&id, options.wan.as_ref());
        let path = directory.path().to_owned();
        write_configurations(&path, options.dialler);
        let vault_mount = options
            .vault_room
            .as_ref()
            .map(|room| RoomLimit::mount(&path.join("west/vault"), room));
        let scratch_mount = options
            .scratch_room
            .as_ref()
            .map(|room| RoomLimit::mount(&path.join("east/scratch"), room));
        let mount_state = |of: StateOf| {
            let room = options.state_room.as_ref()?;
            Some((of, RoomLimit::mount(&path.join(of.directory()), room)))
        };
        let state_mounts = StateOf::ALL.into_iter().filter_map(mount_state).collect();
        let west_name = sites.west.name().to_owned();
        let orchestrator = Daemon::start("orchestrator", &path.join("o.yaml"), &west_name);
        let west = Daemon::start("replicator", &path.join("w.yaml"), &west_name);
        let east = Daemon::start("replicator", &path.join("e.yaml"), sites.east.name());
        let cli = Cli::new(&west_name, ORCHESTRATOR);
        let lab = Self {
            orchestrator,
            east,
            west,
            cli,
            guests: Vec::new(),
            bare: Vec::new(),
            at_rest: Vec::new(),
            options,
            sites,
            vault_mount,
            scratch_mount,
            state_mounts,
            directory,
            _turn: turn,
        };
        lab.declare_sites();
        lab
    }

    /// Starts a guest at the east's production network.
    pub fn start_guest(&mut self, order: GuestOrder) {
        let directory = self.path("vms");
        fs::create_dir_all(&directory).unwrap();
        let vm = order.start(&directory, self.sites.east.name());
        self.guests.push((order, vm));
    }

    /// The guest of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn guest(&self, name: &str) -> &(GuestOrder, SourceVm) {
        self.guests.iter().find(|(order, _)| order.name == name).unwrap()
    }

    /// Starts a VM without a guest, with a raw disk of this many MiB and a small qcow2 one.
    pub fn start_bare(&mut self, name: &str, root_mib: u64) -> &BareVm {
        let vm = BareVm::with_disks(&self.vms(), name, root_mib);
        self.adopt_bare(vm)
    }

    /// Takes a VM without a guest over, to be ended with the lab.
    pub fn adopt_bare(&mut self, vm: BareVm) -> &BareVm {
        self.bare.push(vm);
        &self.bare[self.bare.len() - 1]
    }

    /// Ends a VM without a guest, as a power cut would, and forgets it.
    pub fn end_bare(&mut self, name: &str) {
        self.bare.retain(|vm| vm.name() != name);
    }

    /// Signals the process of a VM without a guest.
    pub fn signal_bare(&self, name: &str, signal: Signal) {
        let pid = i32::try_from(self.bare(name).pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Deletes a VM and awaits that nothing is declared of it any more.
    pub fn delete_vm(&self, name: &str) {
        let _ = self.cli.run(&["delete", "vm", name]).done();
        eventually(GONE, "the VM is gone", || {
            let answer = self.cli.run(&["describe", "vm", name]);
            (answer.status == 1 && answer.stderr.contains("not-found")).then_some(())
        });
    }

    /// The VM without a guest of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn bare(&self, name: &str) -> &BareVm {
        self.bare.iter().find(|vm| vm.name() == name).unwrap()
    }

    /// Protects VMs without a guest; does not wait.
    #[must_use]
    pub fn protect_bare(&self, names: &[&str]) -> Answer {
        let document = |name: &&str| bare_vm::document(name, &self.bare(name).monitor());
        let documents: Vec<String> = names.iter().map(document).collect();
        self.apply(&documents.join("---\n"))
    }

    /// The directory of VMs that a test starts itself.
    #[must_use]
    pub fn vms(&self) -> PathBuf {
        let directory = self.path("vms");
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Leaves the west's vault this much room beside what it holds.
    ///
    /// # Panics
    /// When the lab was set up without `vault_room`.
    pub fn leave_vault_room(&self, bytes: u64) {
        self.vault_mount.as_ref().unwrap().leave(bytes);
    }

    /// Leaves the east's scratch space this much room beside what it holds.
    ///
    /// # Panics
    /// When the lab was set up without `scratch_room`.
    pub fn leave_scratch_room(&self, bytes: u64) {
        self.scratch_mount.as_ref().unwrap().leave(bytes);
    }

    /// Leaves a state directory this much room beside what it holds, which is something.
    ///
    /// # Panics
    /// When the lab was set up without `state_room`.
    pub fn leave_state_room(&self, of: StateOf, bytes: u64) {
        let mut mounts = self.state_mounts.iter();
        mounts.find(|(mounted, _)| *mounted == of).unwrap().1.leave(bytes);
    }

    /// Protects guests; does not wait.
    #[must_use]
    pub fn protect(&self, names: &[&str]) -> Answer {
        let documents: Vec<String> = names.iter().map(|name| self.vm_document(name)).collect();
        self.apply(&documents.join("---\n"))
    }

    /// Protects a VM that nobody runs here, by its declaration; does not wait.
    #[must_use]
    pub fn protect_at_rest(&mut self, name: &str, document: &str) -> Answer {
        self.at_rest.push(name.to_owned());
        self.apply(document)
    }

    /// Applies a manifest.
    #[must_use]
    pub fn apply(&self, manifest: &str) -> Answer {
        let path = self.path("manifest.yaml");
        fs::write(&path, manifest).unwrap();
        self.cli
            .run(&["apply", "-f", path.to_str().unwrap(), "-o", "json"])
    }

    /// The declaration of a guest.
    #[must_use]
    pub fn vm_document(&self, name: &str) -> String {
        let (order, vm) = self.guest(name);
        let monitor = vm.request().monitors[0].display().to_string();
        let source = match order.agent_channel(&self.vms()) {
            Some(channel) => format!("{monitor}, guestAgent: {}", channel.display()),
            None => monitor,
        };
        vm_document(name, &source, &order.mac())
    }

    /// The orchestrator's API.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(self.west_network(), ORCHESTRATOR)
    }

    /// A path in the lab's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The west's vault.
    #[must_use]
    pub fn vault(&self) -> PathBuf {
        self.path("west/vault")
    }

    /// The east's namespace.
    #[must_use]
    pub fn east_network(&self) -> &str {
        self.sites.east.name()
    }

    /// The west's namespace.
    #[must_use]
    pub fn west_network(&self) -> &str {
        self.sites.west.name()
    }

    /// What the east has put on the line so far, all protocols included.
    ///
    /// # Panics
    /// When the line cannot be asked.
    #[must_use]
    pub fn sent_by_the_east(&self) -> u64 {
        self.sites.sent_by_the_east()
    }

    /// The line between the sites.
    ///
    /// # Panics
    /// When the lab was set up without `wan`.
    #[must_use]
    pub fn wan(&self) -> &Wan {
        self.sites.wan.as_ref().unwrap()
    }

    /// Namespaces that recovered VMs of this lab run in.
    #[must_use]
    pub fn bubbles(&self) -> Vec<String> {
        let guests = self.guests.iter().map(|(order, _)| order.name.as_str());
        let others = self.at_rest.iter().map(String::as_str);
        let vms: Vec<&str> = guests
            .chain(self.bare.iter().map(BareVm::name))
            .chain(others)
            .collect();
        let mine = |name: &String| vms.iter().any(|vm| name.starts_with(&format!("fs-{vm}-")));
        names().into_iter().filter(mine).collect()
    }

    /// Every process whose command line names the lab's directory, but the lab's own daemons and guests.
    #[must_use]
    pub fn strangers(&self) -> Vec<String> {
        let daemons = [&self.orchestrator, &self.east, &self.west];
        let known: Vec<u32> = daemons
            .iter()
            .filter_map(|daemon| daemon.pid())
            .chain(self.guests.iter().map(|(_, vm)| vm.pid()))
            .chain(self.bare.iter().map(BareVm::pid))
            .collect();
        processes_naming(self.directory.path())
            .into_iter()
            .filter(|(pid, _)| !known.contains(pid))
            .map(|(_, line)| line)
            .collect()
    }

    fn declare_sites(&self) {
        let bandwidth = match &self.options.bandwidth {
            Some(rate) => format!("\n  bandwidthLimit: {rate}"),
            None => String::new(),
        };
        let more = match &self.options.policy {
            Some(line) => format!("\n  {line}"),
            None => String::new(),
        };
        let inbound = match self.options.dialler {
            Dialler::East => "open",
            Dialler::West => "closed",
        };
        let manifest = format!(
            "apiVersion: farshore/v1\nkind: Site\nmetadata: {{name: east}}\nspec: {{provider: qemu}}\n---\n\
             apiVersion: farshore/v1\nkind: Site\nmetadata: {{name: west}}\nspec:\n  provider: qemu\n  inbound: {inbound}\n  networks:\n  \
             - {{name: production, bridge: prod0}}\n---\n\
             apiVersion: farshore/v1\nkind: ReplicationPolicy\nmetadata: {{name: gold}}\nspec:\n  interval: {}\n  \
             rpoTarget: {}{bandwidth}{more}\n",
            self.options.interval, self.options.rpo_target
        );
        let _ = self.apply(&manifest).done();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // First, as they would carry out what is still ordered.
        for daemon in [&mut self.orchestrator, &mut self.east, &mut self.west] {
            daemon.kill9();
        }
        for (_, vm) in &self.guests {
            if vm.is_running() {
                let _ = vm.kill9(STOP);
            }
        }
        // Recovered VMs and exports outlive their replicator by design, and so would outlive the lab.
        for bubble in self.bubbles() {
            let _ = Command::new("ip").args(["netns", "delete", &bubble]).output();
        }
        for (pid, _) in processes_naming(self.directory.path()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// The declaration of a VM with the guests' two disks; `source` is the path of its monitor, and what YAML says of its source besides.
#[must_use]
pub fn vm_document(name: &str, source: &str, mac: &str) -> String {
    format!(
        "apiVersion: farshore/v1\nkind: ProtectedVm\nmetadata: {{name: {name}}}\nspec:\n  policy: gold\n  \
         source: {{site: east, monitor: {source}}}\n  target: {{site: west, network: production}}\n  machine:\n    \
         processors: 1\n    memory: 256MiB\n    firmware: bios\n    machineType: pc\n    disks:\n    \
         - {{name: root, device: vdroot}}\n    - {{name: data, device: vddata}}\n    nics:\n    - {{mac: \"{mac}\"}}\n"
    )
}

fn write_configurations(directory: &Path, dialler: Dialler) {
    let base = directory.display();
    let orchestrator = format!(
        "listen: 10.91.0.2:7100\nhttpListen: 10.91.0.2:7180\nstateDirectory: {base}/orchestrator\ninsecure: true\n"
    );
    let (east_listens, west_listens) = match dialler {
        Dialler::East => ("", "replicationListen: 10.91.0.2:7201\n"),
        Dialler::West => ("replicationListen: 10.91.0.1:7201\n", ""),
    };
    let common = "orchestrator: http://10.91.0.2:7100\ninsecure: true\n";
    let west = format!(
        "name: west-1\nsite: west\nstateDirectory: {base}/west/state\n{west_listens}\
         httpListen: 10.91.0.2:7281\nvaultDirectory: {base}/west/vault\nrecoveryDirectory: {base}/west/r\n\
         accelerator: tcg\n{common}"
    );
    let east = format!(
        "name: east-1\nsite: east\nstateDirectory: {base}/east/state\nhttpListen: 10.91.0.1:7281\n\
         scratchDirectory: {base}/east/scratch\n{east_listens}{common}"
    );
    for name in ["west", "east"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    for (name, text) in [("o.yaml", orchestrator), ("w.yaml", west), ("e.yaml", east)] {
        fs::write(directory.join(name), text).unwrap();
    }
}

fn processes_naming(directory: &Path) -> Vec<(u32, String)> {
    let wanted = directory.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(wanted).then_some((pid, line))
        })
        .collect()
}

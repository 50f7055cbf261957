//! A libvirtd of the bench's own, and a guest under it: nothing of it is outside the bench's directory, and no process of
//! it is left behind.
//!
//! It is the daemon of a user's session, which needs neither systemd nor cgroups nor a user of its own; as it would be the
//! system's one under root, it runs in a user namespace in which it is not root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use farshore_guest::{image::GuestDisks, witness::PORT_NAME};
use farshore_tests::guests::BOOT;
use rustix::process::{Pid, Signal, kill_process};

use crate::{guest_vm::Listener, process::Process};

const DOMAIN: &str = "db";
const END: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The daemon and its one guest; both end with the value.
pub(crate) struct LibvirtHost {
    directory: PathBuf,
    /// Of the guest's QEMU, once it runs.
    qemu: Option<u32>,
    #[allow(dead_code, reason = "it ends with the value")]
    daemon: Process,
}

impl LibvirtHost {
    /// Starts the daemon, in a directory of its own.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        for place in ["home", "run", "conf/libvirt", "cache", "scratch", "backup"] {
            fs::create_dir_all(directory.join(place))?;
        }
        let qemu = "security_driver = \"none\"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\n";
        fs::write(directory.join("conf/libvirt/qemu.conf"), qemu)?;
        let configuration = directory.join("conf/libvirt/libvirtd.conf");
        let sockets = directory.join("run");
        fs::write(
            &configuration,
            format!(
                "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\n",
                sockets.display()
            ),
        )?;
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-user=1000", "--map-group=1000", "--"])
            .args(["libvirtd", "--config"])
            .arg(&configuration)
            .arg("--pid-file")
            .arg(directory.join("run/libvirtd.pid"))
            .env("HOME", directory.join("home"))
            .env("XDG_RUNTIME_DIR", &sockets)
            .env("XDG_CONFIG_HOME", directory.join("conf"))
            .env("XDG_CACHE_HOME", directory.join("cache"))
            .env("XDG_DATA_HOME", directory.join("home"));
        let log = directory.join("libvirtd.log");
        let mut host = Self {
            directory: directory.to_owned(),
            qemu: None,
            daemon: Process::start(&mut command, &log)?,
        };
        let uri = host.uri();
        host.daemon.ready(&log, || {
            let listed = Command::new("virsh").args(["-c", &uri, "list"]).output().ok()?;
            listed.status.success().then_some(())
        });
        Ok(host)
    }

    /// Boots a guest from these disks, both qcow2, with a monitor of the bench's besides libvirt's own.
    pub(crate) fn start_guest(&mut self, disks: &GuestDisks) -> anyhow::Result<()> {
        let description = self.directory.join("domain.xml");
        fs::write(&description, self.domain(disks))?;
        self.virsh(&["define", &description.display().to_string()])?;
        self.virsh(&["start", DOMAIN])?;
        let pid = self.directory.join(format!("run/libvirt/qemu/run/{DOMAIN}.pid"));
        self.qemu = Some(fs::read_to_string(&pid)?.trim().parse()?);
        let deadline = Instant::now() + BOOT;
        loop {
            let heard = farshore_guest::witness::Testimony::read(&self.witness())?;
            if let Some(verdict) = heard.boots.first() {
                ensure!(verdict.is_clean(), "the guest did not boot well: {verdict:?}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "libvirt's guest did not boot");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The number of the guest's QEMU.
    pub(crate) fn qemu(&self) -> anyhow::Result<u32> {
        self.qemu.context("no guest was started")
    }

    /// The bench's monitor of it.
    pub(crate) fn monitor(&self) -> PathBuf {
        self.directory.join("db.qmp")
    }

    /// What the guest tells.
    pub(crate) fn witness(&self) -> PathBuf {
        self.directory.join("db.witness")
    }

    /// Listens to the guest from now on.
    pub(crate) fn listen(&self) -> anyhow::Result<Listener> {
        Listener::start(&self.witness())
    }

    /// Where backups are.
    pub(crate) fn backups(&self) -> PathBuf {
        self.directory.join("backup")
    }

    /// Backs the guest up by `virtnbdbackup`.
    pub(crate) fn back_up(&self, level: &str) -> anyhow::Result<Duration> {
        let path = |name: &str| self.directory.join(name);
        let mut command = Command::new("virtnbdbackup");
        command
            .args(["--uri", &self.uri(), "--domain", DOMAIN, "--level", level])
            .args(["--noprogress", "--output"])
            .arg(self.backups())
            .arg("--scratchdir")
            .arg(path("scratch"))
            .arg("--socketfile")
            .arg(path("run/backup.sock"));
        let began = Instant::now();
        let output = command.output().context("virtnbdbackup cannot be started")?;
        let took = began.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virtnbdbackup: {said}");
        Ok(took)
    }

    fn virsh(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("virsh")
            .args(["-c", &self.uri()])
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virsh {}: {said}", arguments.join(" "));
        Ok(())
    }

    fn uri(&self) -> String {
        let socket = self.directory.join("run/libvirt-sock");
        format!("qemu:///session?socket={}", socket.display())
    }

    /// As like the guest that [`crate::guest_vm::GuestVm`] starts as libvirt makes it.
    fn domain(&self, disks: &GuestDisks) -> String {
        let disk = |path: &Path, device: &str, more: &str| {
            format!(
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' discard='unmap'/>\
                 <source file='{}'/><target dev='{device}' bus='virtio'/>{more}</disk>\n",
                path.display()
            )
        };
        format!(
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n\
             <name>{DOMAIN}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>\n\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>\n<devices>\n{root}{data}\
             <serial type='file'><source path='{console}'/></serial>\n\
             <channel type='file'><source path='{witness}'/><target type='virtio' name='{PORT_NAME}'/></channel>\n\
             <controller type='usb' model='none'/><memballoon model='none'/>\n</devices>\n\
             <qemu:commandline><qemu:arg value='-qmp'/>\
             <qemu:arg value='unix:{monitor},server=on,wait=off'/></qemu:commandline>\n</domain>\n",
            root = disk(&disks.root, "vda", "<boot order='1'/>"),
            data = disk(&disks.data, "vdb", ""),
            console = self.directory.join("db.console").display(),
            witness = self.witness().display(),
            monitor = self.monitor().display(),
        )
    }
}

impl Drop for LibvirtHost {
    fn drop(&mut self) {
        let Some(number) = self.qemu.take() else { return };
        let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else {
            return;
        };
        // The guest runs on without its daemon; it may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
        let deadline = Instant::now() + END;
        while Path::new(&format!("/proc/{number}")).exists() && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
        }
    }
}

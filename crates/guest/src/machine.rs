//! Starts the virtual machine that is to be protected, as an operator would: a QEMU of its own, that outlives us.
//!
//! | what | name |
//! |---|---|
//! | block node of a disk, and of the file below it | `NODE` and `NODE-file` (the guest's: `root`, `data`) |
//! | its device | `vdNODE` (`/machine/peripheral/vdroot`, `…/vddata`), virtio-blk-pci |
//! | its I/O thread, if ordered | `ioNODE` |
//! | network card and its host side | `nic0`, `net0` |
//! | serial console and witness | chardevs `serial0`, `witness`; port `farshore.witness` |
//! | monitors | chardevs `qmp0`, `qmp1`, … in the order of the request |
//!
//! QEMU daemonizes itself: when the start returns, its monitors listen; an interrupt from our terminal does not reach it;
//! and it goes on when we end. Nothing but [`SourceVm::quit`] and [`SourceVm::kill9`] ends it, and both act on the process that was
//! started and on no other that may have got its number.

mod command_line;
mod process;
mod request;
mod tap;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

pub use process::ProcessError;
use process::QemuProcess;
pub use request::{CacheMode, DiskFormat, DiskThreads, MachineType, Network, SourceDisk, SourceVmRequest};
pub use tap::{Tap, TapError};

use crate::{
    host_tool::{HostTool, ToolError},
    status::BootVerdict,
    witness::{Testimony, WitnessError},
};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A unix socket's address has 108 bytes, the last of which is zero.
const SOCKET_PATH_BYTES: usize = 107;

/// How much of the serial console goes into an error.
const CONSOLE_LINES_TOLD: usize = 20;

/// Why a virtual machine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A path or name cannot be given to QEMU.
    #[error("`{text}` cannot be used: {why}")]
    BadArgument {
        /// The path or name.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// QEMU is missing or refused to start.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Its tap could not be made.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Its process could not be found or signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The witness cannot be read.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// QEMU ended while something was awaited of the guest.
    #[error("`{name}` ended before its guest told what was waited for; its console ends with:\n{console}")]
    EndedEarly {
        /// The machine.
        name: String,
        /// The last lines of its console.
        console: String,
    },
    /// The guest did not tell in time.
    #[error(
        "the guest of `{name}` did not tell what was waited for in {patience:?}; its console ends with:\n{console}"
    )]
    NotTold {
        /// The machine.
        name: String,
        /// How long it was given.
        patience: Duration,
        /// The last lines of its console.
        console: String,
    },
    /// QEMU did not end in time.
    #[error("`{name}` had not ended {patience:?} after it was asked to")]
    NotEnded {
        /// The machine.
        name: String,
        /// How long it was given.
        patience: Duration,
    },
}

/// A running virtual machine. Dropping it leaves the machine as it is.
#[derive(Debug)]
pub struct SourceVm {
    request: SourceVmRequest,
    process: QemuProcess,
    /// The boots that the witness had heard of before this one.
    boots_before: usize,
}

impl SourceVm {
    /// Starts it; when this returns, its monitors listen and its guest begins to boot.
    ///
    /// # Errors
    /// When an argument is unusable, QEMU is missing or refuses, or the tap cannot be made.
    pub fn start(request: SourceVmRequest) -> Result<Self, MachineError> {
        check_sockets(&request.monitors)?;
        let boots_before = Testimony::read(&request.witness)?.boots.len();
        let arguments = command_line::arguments(&request)?;
        // QEMU would write its number over a stale one, but only if it gets that far.
        let _ = fs::remove_file(&request.pid_file);
        if let Network::Tap(tap) = &request.network {
            tap.create()?;
        }
        let (tool, mut command) = launcher(&request.network)?;
        command.args(arguments);
        let started = tool.run(&mut command).map_err(MachineError::from);
        let found = started.and_then(|_| Ok(QemuProcess::of_pid_file(&request.pid_file)?));
        match found {
            Ok(process) => Ok(Self {
                request,
                process,
                boots_before,
            }),
            Err(error) => {
                remove_tap(&request.network)?;
                Err(error)
            }
        }
    }

    /// QEMU's process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it was started from; to start it again, use this.
    #[must_use]
    pub fn request(&self) -> &SourceVmRequest {
        &self.request
    }

    /// True while QEMU runs, whatever its guest does.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Everything that the witness heard, over all boots.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn testimony(&self) -> Result<Testimony, MachineError> {
        Ok(Testimony::read(&self.request.witness)?)
    }

    /// Waits until the guest has told what it found on its disks, and returns that.
    ///
    /// # Errors
    /// When QEMU ends, or the guest takes longer than `patience`.
    pub fn wait_for_boot(&self, patience: Duration) -> Result<BootVerdict, MachineError> {
        let verdict = |testimony: &Testimony| testimony.boots.get(self.boots_before).cloned();
        self.wait_for(patience, verdict)
    }

    /// Waits until the witness has heard what `wanted` looks for.
    ///
    /// # Errors
    /// When QEMU ends, or it takes longer than `patience`.
    pub fn wait_for<T>(
        &self,
        patience: Duration,
        wanted: impl Fn(&Testimony) -> Option<T>,
    ) -> Result<T, MachineError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(answer) = wanted(&self.testimony()?) {
                return Ok(answer);
            }
            let (name, console) = (self.request.name.clone(), || {
                end_of_console(&self.request.console)
            });
            if !self.is_running() {
                return Err(MachineError::EndedEarly {
                    name,
                    console: console(),
                });
            }
            if Instant::now() >= deadline {
                return Err(MachineError::NotTold {
                    name,
                    patience,
                    console: console(),
                });
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends QEMU at once, as a power cut would end the guest; what QEMU had in memory is lost.
    ///
    /// # Errors
    /// When it cannot be signalled, or has not ended within `patience`.
    pub fn kill9(&self, patience: Duration) -> Result<(), MachineError> {
        self.process.kill9()?;
        self.wait_for_end(patience)
    }

    /// Asks QEMU to end: disks are flushed and closed, the guest is not asked.
    ///
    /// # Errors
    /// When it cannot be signalled, or has not ended within `patience`.
    pub fn quit(&self, patience: Duration) -> Result<(), MachineError> {
        self.process.terminate()?;
        self.wait_for_end(patience)
    }

    /// Waits until QEMU has ended, for whatever reason, and removes its tap.
    ///
    /// # Errors
    /// When it runs on after `patience`, or the tap cannot be removed.
    pub fn wait_for_end(&self, patience: Duration) -> Result<(), MachineError> {
        let deadline = Instant::now() + patience;
        while self.is_running() {
            if Instant::now() >= deadline {
                let name = self.request.name.clone();
                return Err(MachineError::NotEnded { name, patience });
            }
            thread::sleep(LOOK_EVERY);
        }
        remove_tap(&self.request.network)
    }
}

fn remove_tap(network: &Network) -> Result<(), MachineError> {
    match network {
        Network::Tap(tap) => Ok(tap.remove()?),
        Network::None => Ok(()),
    }
}

/// QEMU, or QEMU inside the tap's network namespace.
fn launcher(network: &Network) -> Result<(HostTool, Command), MachineError> {
    let namespace = match network {
        Network::Tap(tap) => tap.namespace.as_ref(),
        Network::None => None,
    };
    let qemu = HostTool::QemuSystem.find()?;
    let Some(namespace) = namespace else {
        return Ok((HostTool::QemuSystem, HostTool::QemuSystem.command()?));
    };
    let mut command = HostTool::Nsenter.command()?;
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .arg(qemu);
    Ok((HostTool::Nsenter, command))
}

fn check_sockets(monitors: &[PathBuf]) -> Result<(), MachineError> {
    let too_long = monitors
        .iter()
        .find(|path| path.as_os_str().len() > SOCKET_PATH_BYTES);
    too_long.map_or(Ok(()), |path| {
        Err(MachineError::BadArgument {
            text: path.display().to_string(),
            why: "a unix socket's path has at most 107 bytes; choose a shorter directory",
        })
    })
}

fn end_of_console(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_else(|error: io::Error| error.to_string().into_bytes());
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(CONSOLE_LINES_TOLD);
    lines.get(from..).unwrap_or_default().join("\n")
}

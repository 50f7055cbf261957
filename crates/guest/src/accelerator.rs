//! Finds out whether this machine's KVM really runs a guest, without trusting that it answers at all.
//!
//! A `/dev/kvm` that exists may refuse, or hang whoever opens it so that not even SIGKILL ends it. So a child is given a
//! boot sector that ends the virtual machine with a certain exit code, and two seconds. A child that hangs is killed
//! and left to a thread of its own, which waits for it as long as it takes.
//!
//! A KVM that is itself emulated may run a boot sector and fail at what a real guest does. So a second child boots the
//! kernel that the guest's images are built with, until it says its name.

use std::{
    io::{self, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use crate::{host_tool::HostTool, image::kernel::Kernel};

const LIMIT: Duration = Duration::from_secs(2);
const KERNEL_LIMIT: Duration = Duration::from_secs(6);
/// What every Linux prints last when it finds no disk to go on with: by then it has run all that a boot needs.
const KERNEL_PROOF: &str = "Kernel panic - not syncing: VFS";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// `mov al, 0x15; out 0xf4, al; hlt`: QEMU's debug-exit device then ends with `2 × 0x15 + 1`.
const BOOT_CODE: [u8; 5] = [0xb0, 0x15, 0xe6, 0xf4, 0xf4];
const PROOF: i32 = 0x2b;

/// How QEMU runs a guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the host's kernel.
    Kvm,
    /// By translation; works everywhere, slowly.
    Tcg,
}

impl Accelerator {
    /// The word after `-accel`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// [`Accelerator::Kvm`] if it ran a guest within two seconds, and otherwise [`Accelerator::Tcg`]. Asked once a process.
    #[must_use]
    pub fn probe() -> Self {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let worked = Path::new("/dev/kvm").exists()
                && Self::Kvm.runs_a_guest(LIMIT).unwrap_or(false)
                && Self::Kvm.boots_a_kernel(KERNEL_LIMIT).unwrap_or(false);
            if worked { Self::Kvm } else { Self::Tcg }
        })
    }

    /// True if the boot sector's code was executed within `limit`.
    fn runs_a_guest(self, limit: Duration) -> io::Result<bool> {
        let mut sector = tempfile::NamedTempFile::new()?;
        let mut bytes = BOOT_CODE.to_vec();
        bytes.resize(510, 0);
        bytes.extend_from_slice(&[0x55, 0xaa]);
        sector.write_all(&bytes)?;
        let Ok(program) = HostTool::QemuSystem.find() else {
            return Ok(false);
        };
        let child = Command::new(program)
            .args(["-accel", self.name(), "-machine", "pc", "-m", "16", "-nodefaults"])
            .args(["-display", "none", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=ide,readonly=off",
                sector.path().display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(wait_at_most(child, limit)?.is_some_and(|status| status.code() == Some(PROOF)))
    }
}

impl Accelerator {
    /// True if the newest kernel of this machine came to the end of its boot within `limit`.
    fn boots_a_kernel(self, limit: Duration) -> io::Result<bool> {
        let console = tempfile::NamedTempFile::new()?;
        let (Ok(program), Ok(kernel)) = (HostTool::QemuSystem.find(), Kernel::newest()) else {
            return Ok(false);
        };
        let child = Command::new(program)
            .args([
                "-accel",
                self.name(),
                "-machine",
                "pc",
                "-m",
                "256",
                "-nodefaults",
            ])
            .args([
                "-display",
                "none",
                "-no-reboot",
                "-append",
                "console=ttyS0 panic=-1",
                "-kernel",
            ])
            .arg(kernel.image)
            .arg("-serial")
            .arg(format!("file:{}", console.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let ended = wait_at_most(child, limit)?.is_some();
        let said = std::fs::read(console.path())?;
        Ok(ended && String::from_utf8_lossy(&said).contains(KERNEL_PROOF))
    }
}

/// The child's end, or none if it did not end within `limit`: then it is killed, and nobody waits for that.
fn wait_at_most(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    thread::spawn(move || child.wait());
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_that_works_is_seen_to_work() {
        let limit = Duration::from_secs(20);
        assert!(Accelerator::Tcg.runs_a_guest(limit).unwrap());
    }

    #[test]
    fn an_accelerator_that_boots_a_kernel_is_seen_to() {
        assert!(Accelerator::Tcg.boots_a_kernel(Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn a_child_that_does_not_end_is_not_waited_for() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let begun = Instant::now();
        assert_eq!(wait_at_most(child, Duration::from_millis(50)).unwrap(), None);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

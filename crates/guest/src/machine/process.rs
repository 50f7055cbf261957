//! One QEMU process, held by a descriptor of its own: what gets its number later is never taken for it.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process could not be found or signalled.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// QEMU left no number.
    #[error("cannot read the process number in {}", path.display())]
    NoNumber {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        #[source]
        source: io::Error,
    },
    /// The process cannot be held or signalled.
    #[error("cannot {action} the process {pid}")]
    OutOfReach {
        /// What was tried.
        action: &'static str,
        /// On which process.
        pid: u32,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
pub(super) struct QemuProcess {
    pid: u32,
    handle: OwnedFd,
}

impl QemuProcess {
    pub(super) fn of_pid_file(path: &Path) -> Result<Self, ProcessError> {
        let no_number = |source| ProcessError::NoNumber {
            path: path.to_owned(),
            source,
        };
        let text = fs::read_to_string(path).map_err(no_number)?;
        let number: u32 = text
            .trim()
            .parse()
            .map_err(|_| no_number(io::ErrorKind::InvalidData.into()))?;
        let pid = i32::try_from(number)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| no_number(io::ErrorKind::InvalidData.into()))?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|source| ProcessError::OutOfReach {
            action: "hold",
            pid: number,
            source: source.into(),
        })?;
        Ok(Self { pid: number, handle })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// False also for a process that ended and that nobody has waited for: its parent may never do so.
    pub(super) fn is_running(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name, in parentheses, may hold anything; the state follows it.
        let state = status
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().next());
        let lives = state.is_some_and(|state| !matches!(state, "Z" | "X"));
        lives && self.exists()
    }

    pub(super) fn kill9(&self) -> Result<(), ProcessError> {
        self.signal(Signal::KILL, "kill")
    }

    pub(super) fn terminate(&self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM, "end")
    }

    fn signal(&self, signal: Signal, action: &'static str) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.handle, signal) {
            // It ended by itself.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(ProcessError::OutOfReach {
                action,
                pid: self.pid,
                source: error.into(),
            }),
        }
    }

    /// Whether the held process, and not another of its number, is still there.
    fn exists(&self) -> bool {
        let described = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.descriptor()));
        let text = described.unwrap_or_default();
        let mut numbers = text.lines().filter_map(|line| line.strip_prefix("Pid:"));
        numbers.next().is_some_and(|number| number.trim() != "-1")
    }

    fn descriptor(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.handle.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_killed_process_is_not_running_even_before_anyone_waited_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&pid_file, format!("{}\n", child.id())).unwrap();
        let process = QemuProcess::of_pid_file(&pid_file).unwrap();
        assert!(process.is_running());
        process.kill9().unwrap();
        while process.is_running() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!process.is_running());
        process.kill9().unwrap();
        process.terminate().unwrap();
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        for text in ["", "x", "0", "-1", "4294967295"] {
            fs::write(&pid_file, text).unwrap();
            assert!(QemuProcess::of_pid_file(&pid_file).is_err(), "{text}");
        }
    }
}

//! Which process is a recovered VM's QEMU, and how it is ended.
//!
//! A pid alone proves nothing: the number may belong to somebody else by now. So a process is first pinned by a pidfd
//! and then recognised by its command line, which must name our pid file; a signal goes through the pidfd and therefore
//! reaches the pinned process or nobody. (If the number changed hands between pinning and recognising, the pinned
//! process is dead, and the signal fails.) After a crash between a launch and its record, `/proc` is searched for the
//! same command line.

use std::{fs, io, os::fd::OwnedFd, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::timeout,
};

use super::directory::RecoveryDirectory;

/// A QEMU that is provably the recovered VM's.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    pid: Pid,
    handle: OwnedFd,
}

/// Whether a process ended while it was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It did.
    Ended,
    /// It had not when time was up.
    StillThere,
}

impl Hypervisor {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends it, whatever it is doing. One that ended already is fine.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, Signal::KILL) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits for its end: a pidfd becomes readable then.
    pub(crate) async fn ended_within(&self, limit: Duration) -> io::Result<Wait> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that lie about their descriptor; this one owns it"
        )]
        let handle = AsyncFd::with_interest(self.handle.try_clone()?, Interest::READABLE)?;
        match timeout(limit, handle.readable()).await {
            Ok(ready) => ready.map(|_| Wait::Ended),
            Err(_elapsed) => Ok(Wait::StillThere),
        }
    }
}

/// The VM's process, if it runs.
pub(crate) fn find(files: &RecoveryDirectory) -> io::Result<Option<Hypervisor>> {
    if let Some(recorded) = recorded_pid(files)?
        && let Some(hypervisor) = recognise(recorded, files)?
    {
        return Ok(Some(hypervisor));
    }
    Ok(find_all(files)?.into_iter().next_back())
}

/// Every process that was launched for the VM: while QEMU becomes a daemon there are several for a moment.
pub(crate) fn find_all(files: &RecoveryDirectory) -> io::Result<Vec<Hypervisor>> {
    let mut found = Vec::new();
    for pid in all_pids()? {
        found.extend(recognise(pid, files)?);
    }
    Ok(found)
}

/// Every other process whose command line names something below `path`: its pid and its program.
pub(crate) fn naming(path: &str) -> io::Result<Vec<(u32, String)>> {
    let ours = rustix::process::getpid();
    let mut found = Vec::new();
    for pid in all_pids()?.into_iter().filter(|pid| *pid != ours) {
        let arguments = arguments_of(pid)?;
        if arguments.iter().any(|argument| names_below(argument, path)) {
            let program = arguments.first().cloned().unwrap_or_default();
            found.push((pid.as_raw_nonzero().get().unsigned_abs(), program));
        }
    }
    Ok(found)
}

/// Whether `argument` holds `path` as a whole path or as the beginning of one (`/r/vm-1` is not in `/r/vm-10`).
fn names_below(argument: &str, path: &str) -> bool {
    argument.match_indices(path).any(|(at, _)| {
        let rest = argument.get(at + path.len()..).unwrap_or_default();
        !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || matches!(next, '-' | '_' | '.'))
    })
}

fn recorded_pid(files: &RecoveryDirectory) -> io::Result<Option<Pid>> {
    match fs::read_to_string(files.pid_file()) {
        Ok(text) => Ok(parse_pid(text.trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn recognise(pid: Pid, files: &RecoveryDirectory) -> io::Result<Option<Hypervisor>> {
    // Cheap first: a handle is only opened on what looks right, and then looked at again.
    if !is_ours(&arguments_of(pid)?, files) {
        return Ok(None);
    }
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(is_ours(&arguments_of(pid)?, files).then_some(Hypervisor { pid, handle }))
}

/// Our launches name our pid file; nobody else has a reason to. (`nsenter` does too, until it becomes QEMU.)
fn is_ours(arguments: &[String], files: &RecoveryDirectory) -> bool {
    let pid_file = files.pid_file();
    let mut following = arguments.iter().skip(1);
    arguments
        .iter()
        .zip(&mut following)
        .any(|(name, value)| name == "-pidfile" && *value == pid_file)
}

/// The command line of a process; empty if it is gone or a zombie.
fn arguments_of(pid: Pid) -> io::Result<Vec<String>> {
    match fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) {
        Ok(line) => Ok(line
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn parse_pid(text: &str) -> Option<Pid> {
    let number: i32 = text.parse().ok()?;
    (number > 0).then(|| Pid::from_raw(number)).flatten()
}

fn all_pids() -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(parse_pid));
    }
    pids.sort_by_key(|pid: &Pid| pid.as_raw_nonzero());
    Ok(pids)
}

#[cfg(test)]
mod tests;

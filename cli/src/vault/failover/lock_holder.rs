//! Which process has a vault open for writing, as the kernel tells it.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where proc(5) lists all file locks.
const LOCKS: &str = "/proc/locks";

/// A process that holds a vault's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockHolder {
    pub(super) pid: u32,
    /// Empty if it cannot be read.
    command_line: String,
}

impl LockHolder {
    /// Who holds the vault in `vault`; `None` if nobody does or the kernel does not tell.
    pub(super) fn of(vault: &Path) -> Option<Self> {
        let lock = fs::metadata(vault.join("lock")).ok()?;
        let device = (rustix::fs::major(lock.dev()), rustix::fs::minor(lock.dev()));
        let locks = fs::read_to_string(LOCKS).ok()?;
        let pid = holder(&locks, device, lock.ino())?;
        let line = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        Some(Self {
            pid,
            command_line: line.trim().to_owned(),
        })
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "process {}", self.pid)?;
        if !self.command_line.is_empty() {
            write!(out, " (`{}`)", self.command_line)?;
        }
        Ok(())
    }
}

/// The process with an exclusive flock on the file. A file system may show another device here than in stat(2).
fn holder(locks: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let held = locks.lines().filter_map(parse);
    let held: Vec<_> = held.filter(|lock| lock.inode == inode).collect();
    let exact = held.iter().find(|lock| lock.device == device);
    match (exact, held.as_slice()) {
        (Some(lock), _) => Some(lock.pid),
        (None, [only]) => Some(only.pid),
        (None, _) => None,
    }
}

struct HeldLock {
    pid: u32,
    device: (u32, u32),
    inode: u64,
}

/// `1: FLOCK  ADVISORY  WRITE 5019 08:01:1321 0 EOF`; those that wait have an arrow in the second place.
fn parse(line: &str) -> Option<HeldLock> {
    let mut words = line.split_whitespace().skip(1);
    let kind = (words.next()?, words.next()?, words.next()?);
    if kind != ("FLOCK", "ADVISORY", "WRITE") {
        return None;
    }
    let pid = words.next()?.parse().ok()?;
    let mut place = words.next()?.split(':');
    let mut hexadecimal = || u32::from_str_radix(place.next()?, 16).ok();
    let device = (hexadecimal()?, hexadecimal()?);
    let inode = place.next()?.parse().ok()?;
    Some(HeldLock { pid, device, inode })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    const LISTING: &str = "1: POSIX  ADVISORY  WRITE 1 08:01:77 0 EOF\n\
         2: FLOCK  ADVISORY  READ 2 08:01:77 0 EOF\n\
         3: FLOCK  ADVISORY  WRITE 3 08:1f:77 0 EOF\n\
         3: -> FLOCK  ADVISORY  WRITE 4 08:1f:77 0 EOF\n\
         4: FLOCK  ADVISORY  WRITE 5 08:02:78 0 EOF\n";

    #[test]
    fn the_holder_is_whoever_has_the_exclusive_lock_of_that_file() {
        assert_eq!(holder(LISTING, (8, 0x1f), 77), Some(3));
        assert_eq!(
            holder(LISTING, (0, 42), 78),
            Some(5),
            "another device, but no doubt"
        );
        assert_eq!(holder(LISTING, (8, 2), 79), None);
        assert_eq!(holder("", (8, 2), 78), None);
    }

    #[test]
    fn this_process_is_found_by_its_lock() {
        let vault = tempfile::tempdir().unwrap();
        let lock = fs::File::create(vault.path().join("lock")).unwrap();
        assert_eq!(LockHolder::of(vault.path()), None);
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let holder = LockHolder::of(vault.path()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.to_string().contains("farshore"), "{holder}");
    }
}

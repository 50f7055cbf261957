//! The directory of one recovered VM: everything that is known of it, so that a successor of this process finds it.
//!
//! | file | what | when |
//! |---|---|---|
//! | `request.json` | what was asked for | first to come, last to go: while it is there, the VM is known |
//! | `<disk>.qcow2` | what the guest wrote, on top of the point | before the first launch |
//! | `launch.json` | the command line of the last launch | before QEMU runs: from then on overlays are precious |
//! | `vm.pid` | the process; QEMU locks it while it lives | by QEMU |
//! | `control.sock` | the monitor that this provider speaks to | by QEMU |
//! | `monitor.sock`, `spare.sock` | monitors for others: a capture source and its watchdog | by QEMU |
//! | `console.log` | the guest's first serial port | by QEMU |

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use farshore_blocks::files::{replace_file, sync_directory_of};
use farshore_provider::{RecoveryId, RecoveryRequest};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

const REQUEST: &str = "request.json";
const LAUNCH: &str = "launch.json";

/// Beyond this the console's log begins afresh: the guest writes it, and must not fill the host's disk. It is looked
/// at whenever the VM is probed, so that the bound is soft.
const CONSOLE_LIMIT_BYTES: u64 = 16 << 20;

/// Where one recovered VM's files are. Its path is absolute and UTF-8, as QEMU's command line needs it.
#[derive(Debug, Clone)]
pub(crate) struct RecoveryDirectory {
    path: String,
}

/// What was last started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LaunchRecord {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
}

impl RecoveryDirectory {
    /// The directory of `id` below `root`.
    pub(crate) fn new(root: &str, id: &RecoveryId) -> Self {
        Self {
            path: format!("{root}/{id}"),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn overlay(&self, disk: &str) -> String {
        format!("{}/{disk}.qcow2", self.path)
    }

    pub(crate) fn pid_file(&self) -> String {
        format!("{}/vm.pid", self.path)
    }

    pub(crate) fn control(&self) -> String {
        format!("{}/control.sock", self.path)
    }

    pub(crate) fn monitor(&self) -> String {
        format!("{}/monitor.sock", self.path)
    }

    pub(crate) fn spare(&self) -> String {
        format!("{}/spare.sock", self.path)
    }

    pub(crate) fn console(&self) -> String {
        format!("{}/console.log", self.path)
    }

    /// What was asked for; `None` if the VM is not known.
    pub(crate) fn request(&self) -> io::Result<Option<RecoveryRequest>> {
        self.read_json(REQUEST)
    }

    /// What was last started; `None` if nothing ever was.
    pub(crate) fn launch(&self) -> io::Result<Option<LaunchRecord>> {
        self.read_json(LAUNCH)
    }

    /// Makes the directory and the request in it durable. The directory is the owner's alone: it holds disks.
    pub(crate) async fn save_request(&self, request: &RecoveryRequest) -> io::Result<()> {
        let (path, content) = (PathBuf::from(&self.path), serde_json::to_vec_pretty(request)?);
        blocking(move || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
            sync_directory_of(&path)?;
            replace_file(&path.join(REQUEST), &content)
        })
        .await
    }

    /// Makes the fact of a launch durable.
    pub(crate) async fn save_launch(&self, launch: &LaunchRecord) -> io::Result<()> {
        let path = Path::new(&self.path).join(LAUNCH);
        let content = serde_json::to_vec_pretty(launch)?;
        blocking(move || replace_file(&path, &content)).await
    }

    /// Takes back the fact of a launch in which no guest ever ran.
    pub(crate) async fn forget_launch(&self) -> io::Result<()> {
        let path = Path::new(&self.path).join(LAUNCH);
        blocking(move || remove_if_there(&path)).await
    }

    /// Removes what a process that ended left: its sockets and its pid file.
    pub(crate) fn remove_process_files(&self) -> io::Result<()> {
        [self.pid_file(), self.control(), self.monitor(), self.spare()]
            .iter()
            .try_for_each(|path| remove_if_there(Path::new(path)))
    }

    /// Removes all files but the request: the VM is still known, and what is left to do can be done again.
    pub(crate) async fn remove_content(&self) -> io::Result<()> {
        let path = PathBuf::from(&self.path);
        blocking(move || {
            for entry in entries_of(&path)? {
                if entry.file_name() == REQUEST {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    remove_if_there(&entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes the request and the directory: the VM is not known any more.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        let path = PathBuf::from(&self.path);
        blocking(move || {
            remove_if_there(&path.join(REQUEST))?;
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => sync_directory_of(&path),
            }
        })
        .await
    }

    /// Every file that is there.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = entries_of(Path::new(&self.path))?;
        Ok(entries.iter().map(fs::DirEntry::path).collect())
    }

    /// Whether this is the request.
    pub(crate) fn is_request(&self, file: &Path) -> bool {
        file == Path::new(&self.path).join(REQUEST)
    }

    /// Lets the console's log begin afresh if it has grown beyond its bound (QEMU appends to it).
    pub(crate) fn bound_console(&self) -> io::Result<()> {
        let path = self.console();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > CONSOLE_LIMIT_BYTES => {
                fs::OpenOptions::new().write(true).open(&path)?.set_len(0)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(Path::new(&self.path).join(name)) {
            Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Every VM that is known below `root`, in the order of their names.
pub(crate) fn known(root: &str) -> io::Result<Vec<RecoveryId>> {
    let mut ids: Vec<_> = entries_of(Path::new(root))?
        .iter()
        .filter(|entry| entry.path().join(REQUEST).exists())
        .filter_map(|entry| entry.file_name().to_str().and_then(RecoveryId::new))
        .collect();
    ids.sort();
    Ok(ids)
}

/// What is in a directory; nothing if there is none.
fn entries_of(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(path) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs work that waits for the disk where it holds up nobody else.
async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

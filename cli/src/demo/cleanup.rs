//! Removes everything of a demo and looks whether it is gone. It goes by names alone, so that it works after any
//! failure and for a demo whose process is dead:
//!
//! | what | known by |
//! |---|---|
//! | processes | an executable of ours or of QEMU's whose arguments name the demo's directory, or that is in one of its networks |
//! | network namespaces | `fsd-ID-…`, and the bubbles of the VMs that were recovered into the directory |
//! | interfaces of the host | `fsd-ID` |
//! | files | the directory |

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{
    layout::Layout,
    network::{self, Ip},
};

/// How long killed processes get to be gone.
const PROCESS_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The executables of which the demo starts processes.
const EXECUTABLES: [&str; 3] = ["farshore", "nsenter", "qemu-"];

/// Removes all of it; says what is still there.
pub(super) async fn remove(layout: &Layout) -> Vec<String> {
    let (mut left, ip) = (Vec::new(), Ip::default());
    let namespaces = namespaces(layout);
    let survivors = end_processes(layout).await;
    left.extend(survivors.into_iter().map(|pid| format!("process {pid}")));
    for namespace in namespaces {
        if let Err(error) = network::remove_namespace(&ip, &namespace).await {
            left.push(format!("namespace {namespace} ({error:#})"));
        }
    }
    let interface = layout.host_interface();
    if network::interface_exists(&interface)
        && let Err(error) = network::remove_interface(&ip, &interface).await
        && network::interface_exists(&interface)
    {
        left.push(format!("interface {interface} ({error:#})"));
    }
    match fs::remove_dir_all(layout.directory()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            left.push(format!("directory {} ({error})", layout.directory().display()));
        }
        Ok(()) | Err(_) => {}
    }
    left
}

/// The demo's network namespaces that are there.
fn namespaces(layout: &Layout) -> Vec<String> {
    let recovered = fs::read_dir(layout.recovered_vms())
        .into_iter()
        .flatten()
        .flatten();
    let bubbles = recovered
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|id| format!("fs-{id}"));
    let ours: Vec<String> = layout.namespaces().into_iter().chain(bubbles).collect();
    let mut found = network::namespaces();
    found.retain(|name| ours.contains(name));
    found
}

async fn end_processes(layout: &Layout) -> Vec<u32> {
    let deadline = Instant::now() + PROCESS_LIMIT;
    loop {
        let found = processes(layout);
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        for pid in found {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself meanwhile; whether it is gone is looked at next.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The demo's processes that run.
fn processes(layout: &Layout) -> Vec<u32> {
    let directory = layout.directory().as_os_str().as_encoded_bytes();
    let networks: BTreeSet<u64> = namespaces(layout)
        .iter()
        .filter_map(|name| fs::metadata(Path::new("/run/netns").join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own && is_of_demo(*pid, directory, &networks))
        .collect()
}

fn is_of_demo(pid: u32, directory: &[u8], networks: &BTreeSet<u64>) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let Ok(executable) = fs::read_link(proc.join("exe")) else {
        return false;
    };
    let name = executable
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !EXECUTABLES.iter().any(|ours| name.starts_with(ours)) {
        return false;
    }
    let arguments = fs::read(proc.join("cmdline")).unwrap_or_default();
    let named = arguments
        .split(|byte| *byte == 0)
        .any(|argument| names(argument, directory));
    let inside = fs::metadata(proc.join("ns/net")).is_ok_and(|namespace| networks.contains(&namespace.ino()));
    named || inside
}

/// Whether the argument is, or contains, a path of the directory (`/a/b` does not name `/a/bc`).
fn names(argument: &[u8], directory: &[u8]) -> bool {
    argument
        .windows(directory.len())
        .enumerate()
        .any(|(start, window)| {
            let next = argument.get(start.saturating_add(directory.len()));
            window == directory && next.is_none_or(|byte| matches!(byte, b'/' | b','))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_without_a_directory_has_no_namespaces() {
        let layout = Layout::of_directory(Path::new("/tmp/farshore-demo-0000")).unwrap();
        assert_eq!(namespaces(&layout), Vec::<String>::new());
    }

    #[test]
    fn an_argument_names_a_directory_only_as_a_whole() {
        let directory = b"/tmp/farshore-demo-3f2a";
        for argument in [
            "/tmp/farshore-demo-3f2a",
            "filename=/tmp/farshore-demo-3f2a/vms/x,cache=none",
        ] {
            assert!(names(argument.as_bytes(), directory), "{argument}");
        }
        assert!(!names(b"/tmp/farshore-demo-3f2ab/x", directory));
        assert!(!names(b"", directory));
    }

    #[test]
    fn a_process_that_is_not_ours_is_never_found() {
        let layout = Layout::of_directory(Path::new("/tmp/farshore-demo-0000")).unwrap();
        assert_eq!(processes(&layout), Vec::<u32>::new());
    }
}

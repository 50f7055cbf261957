//! Recognising, against real processes that only look like ours.

use std::process::{Child, Command};

use farshore_provider::RecoveryId;

use super::*;

struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A process with these further arguments in its command line.
fn stranger(arguments: &[&str]) -> Stranger {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read never", "sh"]).args(arguments);
    let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let line = format!("/proc/{}/cmdline", child.id());
    // For a moment after its birth a process has no command line.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !String::from_utf8_lossy(&fs::read(&line).unwrap()).contains("read never") {
        assert!(std::time::Instant::now() < deadline, "no command line");
        std::thread::yield_now();
    }
    Stranger(child)
}

fn directory() -> (tempfile::TempDir, RecoveryDirectory) {
    let root = tempfile::tempdir().unwrap();
    let files = RecoveryDirectory::new(root.path().to_str().unwrap(), &RecoveryId::new("vm-1").unwrap());
    fs::create_dir_all(files.path()).unwrap();
    (root, files)
}

#[test]
fn a_recorded_pid_that_belongs_to_somebody_else_is_nobody() {
    let (_root, files) = directory();
    let other = stranger(&[files.path()]);
    fs::write(files.pid_file(), other.0.id().to_string()).unwrap();
    assert!(find(&files).unwrap().is_none());
}

#[test]
fn nonsense_in_the_pid_file_is_nobody() {
    let (_root, files) = directory();
    for content in ["", "x", "-1", "0", "99999999999999"] {
        fs::write(files.pid_file(), content).unwrap();
        assert!(find(&files).unwrap().is_none(), "{content:?}");
    }
}

#[tokio::test]
async fn a_process_without_a_record_is_found_by_its_command_line_and_ended() {
    let (_root, files) = directory();
    let launched = stranger(&["-pidfile", &files.pid_file()]);
    let found = find(&files).unwrap().unwrap();
    assert_eq!(found.pid(), launched.0.id());
    assert_eq!(
        found.ended_within(Duration::from_millis(20)).await.unwrap(),
        Wait::StillThere
    );
    found.kill().unwrap();
    assert_eq!(
        found.ended_within(Duration::from_secs(10)).await.unwrap(),
        Wait::Ended
    );
    found.kill().unwrap();
    assert!(find(&files).unwrap().is_none(), "a zombie is nobody");
}

#[test]
fn whoever_names_the_directory_is_seen_and_a_longer_name_is_not_it() {
    let (_root, files) = directory();
    let reader = stranger(&[&files.console()]);
    let longer = stranger(&[&format!("{}0/console.log", files.path())]);
    let seen: Vec<_> = naming(files.path())
        .unwrap()
        .into_iter()
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(seen, [reader.0.id()]);
    drop(longer);
}

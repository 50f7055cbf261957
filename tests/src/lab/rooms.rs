//! Directories with a limited room.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::statvfs;

/// A file system of its own, in memory, with a limited room. It goes with the value.
#[derive(Debug)]
pub(super) struct RoomLimit {
    directory: PathBuf,
}

impl RoomLimit {
    pub(super) fn mount(directory: &Path, room: &str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let target = directory.to_str().unwrap();
        mount(&[
            "-t",
            "tmpfs",
            "-o",
            &format!("size={room}"),
            "farshore-test",
            target,
        ]);
        Self {
            directory: directory.to_owned(),
        }
    }

    pub(super) fn leave(&self, bytes: u64) {
        let now = statvfs(&self.directory).unwrap();
        let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
        let target = self.directory.to_str().unwrap();
        mount(&["-o", &format!("remount,size={}", used + bytes), target]);
    }
}

impl Drop for RoomLimit {
    fn drop(&mut self) {
        // Lazily: whoever still has a file of it open keeps it until then.
        let _ = Command::new("umount").arg("--lazy").arg(&self.directory).output();
    }
}

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "mount {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

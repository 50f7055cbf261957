//! A directory for the files that a target has to have, in memory where the machine has one.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory that goes with the value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("farshore-fuzzing-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("there is room for scratch files");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a file there, with the directories above it.
    pub(super) fn put(&self, path: &Path, bytes: &[u8]) {
        let path = self.0.join(path);
        let parent = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(parent).expect("there is room for scratch files");
        fs::write(&path, bytes).expect("there is room for scratch files");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

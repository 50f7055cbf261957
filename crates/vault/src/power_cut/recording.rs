//! A storage that records what is done to it, and can be told to fail.
//!
//! What it does is visible at once in a real directory, as from a page cache; nothing is ever synced. What would
//! have reached the disk is worked out from the record by [`super::disk`].

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::storage::{Content, FileIdentity, Storage, StoredFile};

/// What a disk is put together from by a test is no copy.
const SAME_FILE: FileIdentity = FileIdentity {
    inode: 1,
    born_nanoseconds: 2,
};

/// Something that was done, on a path below the recorded root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    CreateDirectory(PathBuf),
    OpenFile(PathBuf, Content),
    Write(PathBuf, u64, Vec<u8>),
    SetLength(PathBuf, u64),
    Sync(PathBuf),
    /// A sync that failed: the system forgets that the data is not on the disk.
    SyncFailed(PathBuf),
    Replace(PathBuf, Vec<u8>),
    Remove(PathBuf),
    SyncDirectory(PathBuf),
}

/// Which operations fail, by their number; a full disk or a failing one.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) operations: std::ops::Range<usize>,
}

#[derive(Debug)]
pub(super) struct Recording {
    root: PathBuf,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    operations: Vec<Operation>,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct RecordedFile {
    path: PathBuf,
    file: File,
    log: Arc<Mutex<Log>>,
}

impl Recording {
    pub(super) fn of(root: &Path) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            log: Arc::default(),
        })
    }

    /// How many operations there were.
    pub(super) fn position(&self) -> usize {
        self.log.lock().unwrap().operations.len()
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        self.log.lock().unwrap().operations.clone()
    }

    pub(super) fn fail(&self, fault: Option<Fault>) {
        self.log.lock().unwrap().fault = fault;
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    fn record(&self, operation: Operation) -> io::Result<()> {
        record(&self.log, operation)
    }
}

fn record(log: &Mutex<Log>, operation: Operation) -> io::Result<()> {
    let mut log = log.lock().unwrap();
    let number = log.operations.len();
    let fails = log
        .fault
        .as_ref()
        .is_some_and(|fault| fault.operations.contains(&number));
    if !fails {
        log.operations.push(operation);
        return Ok(());
    }
    match operation {
        Operation::Sync(path) => log.operations.push(Operation::SyncFailed(path)),
        Operation::Write(path, position, mut bytes) => {
            bytes.truncate(bytes.len() / 2);
            log.operations.push(Operation::Write(path, position, bytes));
        }
        // It had no effect; an operation that has none keeps the numbers going.
        Operation::CreateDirectory(_)
        | Operation::OpenFile(..)
        | Operation::SetLength(..)
        | Operation::SyncFailed(_)
        | Operation::Replace(..)
        | Operation::Remove(_)
        | Operation::SyncDirectory(_) => log.operations.push(Operation::CreateDirectory(PathBuf::new())),
    }
    Err(io::ErrorKind::StorageFull.into())
}

impl Storage for Recording {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.record(Operation::CreateDirectory(self.below(path)))?;
        fs::create_dir_all(path)
    }

    fn open_file(&self, path: &Path, content: Content) -> io::Result<Box<dyn StoredFile>> {
        self.record(Operation::OpenFile(self.below(path), content))?;
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(content == Content::Dropped);
        Ok(Box::new(RecordedFile {
            path: self.below(path),
            file: options.open(path)?,
            log: Arc::clone(&self.log),
        }))
    }

    fn open_aligned(&self, path: &Path, content: Content) -> io::Result<Box<dyn StoredFile>> {
        self.open_file(path, content)
    }

    fn replace_file(&self, path: &Path, content: &dyn Fn(FileIdentity) -> Vec<u8>) -> io::Result<()> {
        let content = content(SAME_FILE);
        self.record(Operation::Replace(self.below(path), content.clone()))?;
        fs::write(path, content)
    }

    fn identity_of(&self, _: &Path) -> io::Result<FileIdentity> {
        Ok(SAME_FILE)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if !path.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.record(Operation::Remove(self.below(path)))?;
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.record(Operation::SyncDirectory(self.below(path)))
    }
}

impl StoredFile for RecordedFile {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let recorded = record(
            &self.log,
            Operation::Write(self.path.clone(), position, bytes.to_vec()),
        );
        let written = if recorded.is_ok() {
            bytes.len()
        } else {
            bytes.len() / 2
        };
        self.file.write_all_at(&bytes[..written], position)?;
        recorded
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        record(&self.log, Operation::SetLength(self.path.clone(), length))?;
        self.file.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        record(&self.log, Operation::Sync(self.path.clone()))
    }
}

//! Writing behind: a thread writes what was handed over while the next bytes are being made ready.
//!
//! What fails is told by the next operation, and by all after it: whoever writes behind learns from the sync alone
//! what is on disk.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use super::AlignedBuffer;

/// How many bytes may wait to be written.
const MOST_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// How many buffers are written at once, if they lie one behind the other.
const MOST_AT_ONCE: usize = 16;

/// A thread that writes to one file.
#[derive(Debug)]
pub(super) struct WriteBehind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(AlignedBuffer, u64)>,
    /// Of those that wait and those that are being written.
    bytes: usize,
    failed: Option<io::ErrorKind>,
    ends: bool,
}

impl WriteBehind {
    pub(super) fn new(file: File) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let working = Arc::clone(&shared);
        let thread = std::thread::spawn(move || working.work(&file));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Hands bytes over; waits while too many are waiting.
    pub(super) fn write(&self, buffer: AlignedBuffer, position: u64) -> io::Result<()> {
        let mut queue = self.shared.lock();
        while queue.bytes >= MOST_WAITING_BYTES && queue.failed.is_none() {
            queue = self.shared.wait(queue);
        }
        check(&queue)?;
        queue.bytes = queue.bytes.saturating_add(buffer.bytes().len());
        queue.waiting.push_back((buffer, position));
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until everything that was handed over is written.
    pub(super) fn drain(&self) -> io::Result<()> {
        let mut queue = self.shared.lock();
        while queue.bytes > 0 && queue.failed.is_none() {
            queue = self.shared.wait(queue);
        }
        check(&queue)
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self, file: &File) {
        loop {
            let mut queue = self.lock();
            while queue.waiting.is_empty() && !queue.ends {
                queue = self.wait(queue);
            }
            let row = take_row(&mut queue.waiting);
            if row.is_empty() {
                return;
            }
            drop(queue);
            let written = write_row(file, &row);
            let mut queue = self.lock();
            let bytes: usize = row.iter().map(|(buffer, _)| buffer.bytes().len()).sum();
            queue.bytes = queue.bytes.saturating_sub(bytes);
            if let Err(error) = written {
                queue.failed = Some(error.kind());
                queue.waiting.clear();
                queue.bytes = 0;
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'queue>(&self, queue: MutexGuard<'queue, Queue>) -> MutexGuard<'queue, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(queue: &Queue) -> io::Result<()> {
    match queue.failed {
        Some(kind) => Err(kind.into()),
        None => Ok(()),
    }
}

/// The buffers at the front that lie one behind the other in the file.
fn take_row(waiting: &mut VecDeque<(AlignedBuffer, u64)>) -> Vec<(AlignedBuffer, u64)> {
    let mut row: Vec<(AlignedBuffer, u64)> = Vec::new();
    let mut end = None;
    while row.len() < MOST_AT_ONCE {
        let next = waiting.pop_front_if(|(_, position)| end.is_none_or(|end| end == *position));
        let Some((buffer, position)) = next else { break };
        end = u64::try_from(buffer.bytes().len())
            .ok()
            .and_then(|length| position.checked_add(length));
        row.push((buffer, position));
    }
    row
}

fn write_row(file: &File, row: &[(AlignedBuffer, u64)]) -> io::Result<()> {
    let slices: Vec<_> = row
        .iter()
        .map(|(buffer, _)| IoSlice::new(buffer.bytes()))
        .collect();
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let Some((_, position)) = row.first() else {
        return Ok(());
    };
    let written = rustix::io::pwritev(file, &slices, *position);
    match written {
        Ok(written) if written == total => Ok(()),
        // A part only, or interrupted: one after the other, so that what fails says why.
        Ok(_) | Err(rustix::io::Errno::INTR) => {
            use std::os::unix::fs::FileExt;
            row.iter()
                .try_for_each(|(buffer, position)| file.write_all_at(buffer.bytes(), *position))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(byte: u8, length: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::with_capacity(length);
        buffer.push(&vec![byte; length]);
        buffer
    }

    #[test]
    fn what_was_handed_over_is_in_the_file_once_drained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let behind = WriteBehind::new(File::create(&path).unwrap());
        for number in 0..40u8 {
            behind
                .write(buffer(number, 1 << 20), u64::from(number) << 20)
                .unwrap();
        }
        behind.drain().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 40 << 20);
        assert!((0..40u8).all(|number| bytes[usize::from(number) << 20] == number));
    }

    #[test]
    fn what_fails_is_told_by_everything_that_follows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        File::create(&path).unwrap();
        // Not open for writing.
        let behind = WriteBehind::new(File::open(&path).unwrap());
        behind.write(buffer(1, 4096), 0).unwrap();
        assert!(behind.drain().is_err());
        assert!(behind.write(buffer(1, 4096), 0).is_err());
        assert!(behind.drain().is_err());
    }
}

//! The longest time in which the witness heard of nothing that a guest's disks acknowledged.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Listens from its making on.
#[derive(Debug)]
pub struct SilenceMeter {
    done: Arc<AtomicBool>,
    listening: JoinHandle<Duration>,
}

impl SilenceMeter {
    /// Listens to what is appended to the witness's file.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn start(witness: &Path) -> Self {
        let mut file = File::open(witness).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let listening = thread::spawn(move || {
            let (mut heard, mut longest, mut text) = (Instant::now(), Duration::ZERO, Vec::new());
            while !told.load(Ordering::Relaxed) {
                text.clear();
                file.read_to_end(&mut text).unwrap();
                if text.contains(&b'\n') {
                    heard = Instant::now();
                }
                longest = longest.max(heard.elapsed());
                thread::sleep(LOOK_EVERY);
            }
            longest
        });
        Self { done, listening }
    }

    /// The longest silence until now.
    ///
    /// # Panics
    /// When the file could not be read.
    #[must_use]
    pub fn longest(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        self.listening.join().unwrap()
    }
}

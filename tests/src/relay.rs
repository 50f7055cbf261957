//! Two VMs that write in turn: each has a disk that boots a program of 141 bytes, and a serial line to the other.
//!
//! The first writes 1 to its disk. The second starts and sends a byte. Whoever gets a byte writes the next number of its own to its
//! disk and, when the disk has said that it is there, sends a byte back. So at any one instant the first is ahead of the second
//! by one or two, and disks of different instants are most often further apart.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    bare_vm::{self, BareVm, qcow2_disk, raw_disk, virtio_disk},
    eventually,
};

/// Where the number is on the first disk.
pub const NUMBER_AT: u64 = 64 * 512;

const START: Duration = Duration::from_secs(60);
/// Where in the program it says which of the two this is.
const ROLE_AT: usize = 2;
/// Real mode, loaded by the BIOS from the first sector. The number is at 0x8000 and written by int 13h, function 43h; the serial
/// line is polled.
const PROGRAM: [u8; 144] = [
    0xeb, 0x01, 0x00, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x88, 0x16, 0x94,
    0x7c, 0xbf, 0x00, 0x80, 0xb9, 0x00, 0x01, 0xfc, 0xf3, 0xab, 0xba, 0xfb, 0x03, 0xb0, 0x80, 0xee, 0xba,
    0xf8, 0x03, 0xb0, 0x01, 0xee, 0x42, 0xb0, 0x00, 0xee, 0xba, 0xfb, 0x03, 0xb0, 0x03, 0xee, 0x80, 0x3e,
    0x02, 0x7c, 0x00, 0x75, 0x05, 0xe8, 0x0f, 0x00, 0xeb, 0x2c, 0xba, 0xfd, 0x03, 0xeb, 0x1c, 0xe8, 0x05,
    0x00, 0xba, 0xfd, 0x03, 0xeb, 0x14, 0x66, 0xff, 0x06, 0x00, 0x80, 0xbe, 0x84, 0x7c, 0xb8, 0x00, 0x43,
    0x8a, 0x16, 0x94, 0x7c, 0xcd, 0x13, 0x72, 0x1a, 0xc3, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0xba, 0xf8, 0x03,
    0xb0, 0x2e, 0xee, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, 0xba, 0xf8, 0x03, 0xec, 0xeb, 0xcb,
    0x66, 0xc7, 0x06, 0x00, 0x80, 0xff, 0xff, 0xff, 0xff, 0xf4, 0xeb, 0xf4, 0x90, 0x10, 0x00, 0x01, 0x00,
    0x00, 0x80, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00,
];

/// The two.
#[derive(Debug)]
pub struct Relay {
    /// The one that is ahead.
    pub first: BareVm,
    /// The other.
    pub second: BareVm,
}

impl Relay {
    /// Starts both and waits until they take turns.
    ///
    /// # Panics
    /// When they do not.
    #[must_use]
    pub fn start(directory: &Path, names: [&str; 2]) -> Self {
        let [first, second] = names;
        let first = runner(directory, first, 0, "server=on,wait=off");
        eventually(START, "the first awaits the second", || {
            (number_in(&first.root()) == 1).then_some(())
        });
        let second = runner(directory, second, 1, "server=off");
        let relay = Self { first, second };
        let _ = relay.goes_on();
        relay
    }

    /// Waits until each has written at least once more, and gives the first one's number.
    ///
    /// # Panics
    /// When they stopped.
    #[must_use]
    pub fn goes_on(&self) -> u32 {
        goes_on(&self.first.root(), &self.second.root())
    }
}

/// As [`Relay::goes_on`], by the files of their disks.
///
/// # Panics
/// When they stopped.
#[must_use]
pub fn goes_on(first: &Path, second: &Path) -> u32 {
    let before = number_in(second);
    eventually(START, "they take turns", || {
        (number_in(second) > before + 1).then(|| number_in(first))
    })
}

/// The number that a disk's file holds now.
fn number_in(disk: &Path) -> u32 {
    let mut bytes = [0; 4];
    fs::File::open(disk)
        .unwrap()
        .read_exact_at(&mut bytes, NUMBER_AT)
        .unwrap();
    u32::from_le_bytes(bytes)
}

fn runner(directory: &Path, name: &str, role: u8, end: &str) -> BareVm {
    let root = raw_disk(directory, name, 1);
    let mut sector = [0; 512];
    sector[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    sector[ROLE_AT] = role;
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = fs::OpenOptions::new().write(true).open(&root).unwrap();
    file.write_all_at(&sector, 0).unwrap();
    let line = directory.join("line").display().to_string();
    let monitor = |path: PathBuf| {
        vec![
            "-qmp".to_owned(),
            format!("unix:{},server=on,wait=off", path.display()),
        ]
    };
    let serial = vec![
        "-chardev".to_owned(),
        format!("socket,id=line,path={line},{end}"),
        "-serial".to_owned(),
        "chardev:line".to_owned(),
    ];
    let disks = [
        virtio_disk("root", "raw", &root, ""),
        virtio_disk("data", "qcow2", &qcow2_disk(directory, name, 8), ""),
    ];
    let arguments = [
        disks.concat(),
        serial,
        monitor(watchdog_monitor(directory, name)),
        monitor(pauses_monitor(directory, name)),
    ];
    BareVm::start(directory, name, &arguments.concat())
}

fn watchdog_monitor(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.watch"))
}

fn pauses_monitor(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pauses"))
}

/// The declaration of one of them.
#[must_use]
pub fn document(directory: &Path, vm: &BareVm) -> String {
    let monitor = vm.monitor();
    let watchdog = watchdog_monitor(directory, vm.name());
    let both = format!(
        "monitor: {}, watchdogMonitor: {}",
        monitor.display(),
        watchdog.display()
    );
    bare_vm::document(vm.name(), &monitor).replace(&format!("monitor: {}", monitor.display()), &both)
}

/// How long a VM stood still each time, by QEMU's own clock.
#[derive(Debug, Clone, Default)]
pub struct Pauses(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Debug, Default)]
struct Seen {
    stops: usize,
    pauses: Vec<Duration>,
}

impl Pauses {
    /// Listens to a VM of a relay until that ends.
    ///
    /// # Panics
    /// When its monitor does not answer.
    #[must_use]
    pub fn of(directory: &Path, vm: &BareVm) -> Self {
        let mut stream = UnixStream::connect(pauses_monitor(directory, vm.name())).unwrap();
        writeln!(stream, "{}", json!({"execute": "qmp_capabilities"})).unwrap();
        let pauses = Self::default();
        let seen = pauses.clone();
        thread::spawn(move || {
            let mut stopped = None;
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let message: Value = serde_json::from_str(&line).unwrap();
                let at = moment(&message["timestamp"]);
                let mut state = seen.0.0.lock().unwrap();
                match (message["event"].as_str(), stopped) {
                    (Some("STOP"), _) => {
                        stopped = at;
                        state.stops += 1;
                        seen.0.1.notify_all();
                    }
                    (Some("RESUME"), Some(since)) => {
                        let pause = at.unwrap().saturating_sub(since);
                        state.pauses.push(pause);
                        stopped = None;
                    }
                    _ => {}
                }
            }
        });
        pauses
    }

    /// Returns as soon as it stops the next time.
    ///
    /// # Panics
    /// When it does not.
    pub fn await_stop(&self) {
        let state = self.0.0.lock().unwrap();
        let before = state.stops;
        let (state, waited) = self
            .0
            .1
            .wait_timeout_while(state, START, |state| state.stops == before)
            .unwrap();
        drop(state);
        assert!(!waited.timed_out(), "it is not stopped any more");
    }

    /// All that have ended.
    ///
    /// # Panics
    /// When the listener did.
    #[must_use]
    pub fn all(&self) -> Vec<Duration> {
        self.0.0.lock().unwrap().pauses.clone()
    }
}

fn moment(timestamp: &Value) -> Option<Duration> {
    let seconds = timestamp["seconds"].as_u64()?;
    let microseconds = timestamp["microseconds"].as_u64()?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(microseconds))
}

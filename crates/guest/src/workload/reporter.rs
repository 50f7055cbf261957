//! Tells the witness, outside the virtual machine, what was acknowledged; errors go to the console too.
//!
//! It runs beside the writers, so that a witness that does not listen never holds up a write. Only the highest
//! numbers are told: each says that all below it are complete.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::progress::Progress;
use crate::{
    status::BootVerdict,
    witness::{Acknowledged, PORT_NAME},
};

const PORTS: &str = "/sys/class/virtio-ports";

/// How long the port may take to appear after its driver was loaded.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// News of this long go into one write to the port.
const BATCH: Duration = Duration::from_millis(10);

/// How long writes took is told no more often than this.
const LATENCIES_EVERY: Duration = Duration::from_millis(250);

/// Starts to tell; ends with the process.
pub(super) fn start(verdict: &BootVerdict, progress: &Arc<Progress>) {
    let verdict = verdict.clone();
    let progress = Arc::clone(progress);
    thread::spawn(move || report_for_ever(&verdict, &progress));
}

fn report_for_ever(verdict: &BootVerdict, progress: &Progress) {
    for fault in &verdict.faults {
        tell_console(&format!("ERROR at boot: {fault}\n"));
    }
    let mut port = open_port();
    let mut told = progress.snapshot().acknowledged;
    tell_port(&mut port, &boot_text(verdict));
    let mut latencies_told = Instant::now();
    loop {
        let (acknowledged, errors) = progress.news_since(told);
        let mut text = String::new();
        for error in &errors {
            // A line feed in an error would begin a line of its own.
            text.push_str(&format!("ERROR {error}").replace('\n', " "));
            text.push('\n');
        }
        tell_console(&text);
        text.push_str(&acknowledgements(told, acknowledged));
        if latencies_told.elapsed() >= LATENCIES_EVERY {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "T {}", progress.take_latencies());
            latencies_told = Instant::now();
        }
        tell_port(&mut port, &text);
        told = acknowledged;
        thread::sleep(BATCH);
    }
}

/// Begins with a line feed, because the boot before may have been cut in the middle of a line.
fn boot_text(verdict: &BootVerdict) -> String {
    let json = serde_json::to_string(verdict).unwrap_or_default();
    let mut text = format!("\nBOOT {json}\n");
    for fault in &verdict.faults {
        text.push_str(&format!("ERROR at boot: {fault}").replace('\n', " "));
        text.push('\n');
    }
    text
}

fn acknowledgements(told: Acknowledged, now: Acknowledged) -> String {
    let mut text = String::new();
    let streams = [
        ('A', told.region_a, now.region_a),
        ('B', told.region_b, now.region_b),
        ('E', told.journal, now.journal),
    ];
    for (letter, before, after) in streams {
        if after != before {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{letter} {after}");
        }
    }
    text
}

fn open_port() -> Option<File> {
    let deadline = Instant::now() + PORT_PATIENCE;
    while Instant::now() < deadline {
        let port =
            find_port(Path::new(PORTS)).and_then(|path| OpenOptions::new().write(true).open(path).ok());
        if port.is_some() {
            return port;
        }
        thread::sleep(LOOK_EVERY);
    }
    tell_console("no witness port: what is acknowledged is not told\n");
    None
}

fn find_port(ports: &Path) -> Option<PathBuf> {
    fs::read_dir(ports).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT_NAME).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

fn tell_port(port: &mut Option<File>, text: &str) {
    let Some(file) = port else { return };
    if let Err(error) = file.write_all(text.as_bytes()) {
        tell_console(&format!("ERROR the witness does not listen: {error}\n"));
        *port = None;
    }
}

fn tell_console(text: &str) {
    // There is nobody left to tell if the console is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::Testimony;

    #[test]
    fn what_is_told_is_what_the_witness_hears() {
        let now = Acknowledged {
            region_a: 12,
            region_b: 11,
            journal: 0,
        };
        let text = acknowledgements(Acknowledged::default(), now);
        assert_eq!(text, "A 12\nB 11\n");
        assert_eq!(Testimony::parse(&text).acknowledged, now);
        assert_eq!(acknowledgements(now, now), "");
    }

    #[test]
    fn the_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0"), ("vport1p2", PORT_NAME)] {
            fs::create_dir(ports.path().join(port)).unwrap();
            fs::write(ports.path().join(port).join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(find_port(ports.path()), Some(PathBuf::from("/dev/vport1p2")));
        assert_eq!(find_port(&ports.path().join("absent")), None);
    }
}

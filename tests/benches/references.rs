//! What a cycle cannot be faster than on this machine now: an empty monitor command, a small durable write.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Instant,
};

use anyhow::ensure;

use crate::figures::Samples;

/// How often each is done.
const TIMES: usize = 100;
/// How much longer than a short command a long one is.
pub(crate) const LONG_COMMAND_BYTES: usize = 1000;

/// What a command that does nothing takes.
#[derive(Default)]
pub(crate) struct EmptyCommands {
    pub(crate) short: Samples,
    /// Of [`LONG_COMMAND_BYTES`]: QEMU reads its monitor byte by byte.
    pub(crate) long: Samples,
}

/// Takes the time of both, directly at the monitor.
pub(crate) fn empty_commands(monitor: &Path) -> anyhow::Result<EmptyCommands> {
    let mut stream = UnixStream::connect(monitor)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut execute = |command: &str, bytes: usize| {
        let began = Instant::now();
        // Behind the object, spaces mean nothing; inside, QEMU reads them before it acts.
        let text = format!("{{\"execute\":\"{command}\"{:bytes$}}}\n", "");
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        while !answer.starts_with("{\"return\"") {
            answer.clear();
            ensure!(answers.read_line(&mut answer)? > 0, "the monitor was closed");
        }
        Ok(began.elapsed())
    };
    execute("qmp_capabilities", 0)?;
    let mut empty = EmptyCommands::default();
    for _ in 0..TIMES {
        empty.short.add_milliseconds(execute("query-version", 0)?);
        empty
            .long
            .add_milliseconds(execute("query-version", LONG_COMMAND_BYTES)?);
    }
    Ok(empty)
}

/// Appends 4 KiB and syncs, again and again.
pub(crate) fn small_syncs(path: &Path) -> anyhow::Result<Samples> {
    let mut file = File::create(path)?;
    let mut samples = Samples::default();
    for _ in 0..TIMES {
        let began = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        samples.add_milliseconds(began.elapsed());
    }
    Ok(samples)
}

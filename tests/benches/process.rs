//! A process of the bench: it ends with the value, and tells how much memory it had at most.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use farshore_tests::eventually;

const READY: Duration = Duration::from_secs(30);
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// A running process.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it, with its output going to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        let errors = output.try_clone()?;
        let program = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child })
    }

    /// Waits until `look` finds something.
    ///
    /// # Panics
    /// When the process ended before, with what it said.
    pub(crate) fn ready<T>(&mut self, log: &Path, mut look: impl FnMut() -> Option<T>) -> T {
        eventually(READY, &format!("{} is ready", log.display()), || {
            let ended = self.child.try_wait().ok().flatten();
            assert!(
                ended.is_none(),
                "it ended: {}",
                fs::read_to_string(log).unwrap_or_default()
            );
            look()
        })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a process ever had resident, in bytes (`VmHWM`).
pub(crate) fn peak_resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: u64 = line
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("process {pid} does not show its peak"))?;
    Ok(kibibytes * 1024)
}

/// Of this process and of those that it has waited for, in all modes.
#[allow(dead_code, reason = "what one bench does not need, another does")]
pub(crate) fn processor_seconds() -> anyhow::Result<f64> {
    ticks("self", 4)
}

/// Of a process that runs.
#[allow(dead_code, reason = "what one bench does not need, another does")]
pub(crate) fn processor_seconds_of(pid: u32) -> anyhow::Result<f64> {
    ticks(&pid.to_string(), 2)
}

/// How many bytes a process read from files so far, out of the page cache or past it (`rchar`); what it receives from sockets
/// is not in it.
#[allow(dead_code, reason = "what one bench does not need, another does")]
pub(crate) fn bytes_read_by(pid: u32) -> anyhow::Result<u64> {
    let told = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = told.lines().find_map(|line| line.strip_prefix("rchar:"));
    let bytes = line.and_then(|rest| rest.trim().parse().ok());
    bytes.with_context(|| format!("process {pid} does not show what it read"))
}

/// The first of the four: user, system, and both of the children.
fn ticks(process: &str, count: usize) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(')').context("a process without a name")?;
    let fields = behind_name.split_whitespace().skip(11).take(count);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / CLOCK_TICKS_PER_SECOND)
}

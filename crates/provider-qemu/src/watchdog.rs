//! Sees to it that a guest whose processors we stop goes on, whatever becomes of us: a process of its own, with a monitor
//! of its own.
//!
//! We arm it before the `stop`, tell it that we live while the guest stands still, and disarm it after the `cont`. If its input
//! ends, if nothing is heard for [`SILENCE`], or if the limit is over, it sends `cont` itself, and says so when it is disarmed: the
//! instant is worth nothing for others then. Only while it is armed does it act, so that an operator's own pause is left
//! alone. If both are killed at once, a mark in the scratch directory makes the next attachment let the guest go. It stays from one instant to the next, as starting it costs more than the instant does.

mod watching;

use std::{
    ffi::OsString,
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{MissedTickBehavior, interval, timeout},
};

pub use watching::main;

use watching::{ALIVE, ARM, ARMED, DISARM, DISTURBED, READY, REFUSED, SILENCE, UNDISTURBED};

/// How often it is told that we live.
const TELLING: Duration = Duration::from_millis(75);
/// How long it may take to start: its monitor may still be in the hands of the one before it.
const STARTING: Duration = Duration::from_secs(15);
/// How long it may take to be armed: the other VMs of a round may stand still meanwhile.
const ARMING: Duration = Duration::from_secs(1);
/// How long it may take to say what it saw.
const ANSWERING: Duration = Duration::from_secs(5);

/// How a VM's guest is watched over while it stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// The unix socket of a second QMP monitor, which nobody else uses.
    pub monitor: PathBuf,
    /// The program that runs [`watchdog_main`](crate::watchdog_main) with what comes after `leading_arguments`.
    pub program: PathBuf,
    /// What makes the program do so.
    pub leading_arguments: Vec<OsString>,
}

/// What the watchdog saw while it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nobody but us let the guest go on.
    Undisturbed,
    /// The watchdog did, or somebody else.
    Disturbed,
}

/// The process. Dropping it ends it, after it has let the guest go on if it was armed.
#[derive(Debug)]
pub(crate) struct Watchdog {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Reaped by the runtime, whenever it ends.
    process: Child,
    /// Since it was armed.
    attention: Attention,
}

/// Whether the watchdog must have taken us for dead.
#[derive(Debug)]
struct Attention {
    armed_at: Instant,
    limit: Duration,
    told_at: Instant,
    longest_silence: Duration,
}

impl Attention {
    fn from(armed_at: Instant, limit: Duration) -> Self {
        Self {
            armed_at,
            limit,
            told_at: armed_at,
            longest_silence: Duration::ZERO,
        }
    }

    fn told(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.told_at);
        self.longest_silence = self.longest_silence.max(silence);
        self.told_at = now;
    }

    fn is_lost(&self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.told_at);
        silence.max(self.longest_silence) >= SILENCE
            || now.saturating_duration_since(self.armed_at) >= self.limit
    }
}

impl Watchdog {
    /// Starts it; `bitmap` is one that only this VM has, by which it sees that its monitor is of the right one. When it had to let the
    /// guest of a dead process go on, it takes `mark` away.
    pub(crate) async fn start(config: &WatchdogConfig, bitmap: &str, mark: &Path) -> Result<Self, String> {
        let mut process = Command::new(&config.program)
            .args(&config.leading_arguments)
            .arg(&config.monitor)
            .arg(bitmap)
            .arg(mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What ends our process group must not end it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("its watchdog could not be started: {error}"))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("its watchdog has no pipes".to_owned());
        };
        let mut watchdog = Self {
            input,
            output: BufReader::new(output),
            process,
            attention: Attention::from(Instant::now(), Duration::ZERO),
        };
        match watchdog.answer(STARTING).await {
            Ok(line) if line == READY => Ok(watchdog),
            Ok(line) => Err(line.strip_prefix(REFUSED).unwrap_or(&line).trim().to_owned()),
            Err(why) => {
                watchdog.kill();
                Err(why)
            }
        }
    }

    /// Ends one that failed while the guest does not depend on it: one that hangs would keep the monitor from the next.
    pub(crate) fn kill(mut self) {
        // It may have ended by itself.
        drop(self.process.start_kill());
    }

    /// From now on the guest is not left standing for longer than `limit`.
    pub(crate) async fn arm(&mut self, limit: Duration) -> Result<(), String> {
        self.attention = Attention::from(Instant::now(), limit);
        self.tell(&format!("{ARM}{}", limit.as_millis())).await?;
        match self.answer(ARMING).await?.as_str() {
            ARMED => Ok(()),
            other => Err(format!("its watchdog said `{other}`")),
        }
    }

    /// Awaits something while the watchdog is told that we live. A watchdog that cannot be told any more is noticed when it
    /// is disarmed.
    pub(crate) async fn while_alive<T>(&mut self, awaited: impl Future<Output = T>) -> T {
        let mut ticks = interval(TELLING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut awaited = std::pin::pin!(awaited);
        loop {
            tokio::select! {
                biased;
                done = &mut awaited => return done,
                _ = ticks.tick() => drop(self.tell(ALIVE).await),
            }
        }
    }

    /// The guest goes on, or was not stopped.
    pub(crate) async fn disarm(&mut self) -> Result<Seen, String> {
        self.tell(DISARM).await?;
        match self.answer(ANSWERING).await?.as_str() {
            UNDISTURBED => Ok(Seen::Undisturbed),
            DISTURBED => Ok(Seen::Disturbed),
            other => Err(format!("its watchdog said `{other}`")),
        }
    }

    /// Whether it has let the guest go on by now, because we were silent or the limit is over: who wakes up late leaves the
    /// guest alone.
    pub(crate) fn has_given_us_up(&self) -> bool {
        self.attention.is_lost(Instant::now())
    }

    async fn tell(&mut self, word: &str) -> Result<(), String> {
        self.attention.told(Instant::now());
        let line = format!("{word}\n");
        let told = self.input.write_all(line.as_bytes()).await;
        told.map_err(|error| format!("its watchdog is gone: {error}"))
    }

    async fn answer(&mut self, within: Duration) -> Result<String, String> {
        let mut line = String::new();
        match timeout(within, self.output.read_line(&mut line)).await {
            Ok(Ok(length)) if length > 0 => Ok(line.trim_end().to_owned()),
            Ok(Ok(_)) => Err("its watchdog ended unasked".to_owned()),
            Ok(Err(error)) => Err(format!("its watchdog cannot be heard: {error}")),
            Err(_) => Err("its watchdog says nothing".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_silent_or_over_the_limit_was_given_up_even_if_it_speaks_again() {
        let began = Instant::now();
        let limit = Duration::from_secs(1);
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut attention = Attention::from(began, limit);
        for milliseconds in (75..1000).step_by(75) {
            attention.told(after(milliseconds));
            assert!(!attention.is_lost(after(milliseconds)));
        }
        assert!(attention.is_lost(after(1000)));
        let mut attention = Attention::from(began, limit);
        attention.told(after(100));
        assert!(!attention.is_lost(after(399)) && attention.is_lost(after(400)));
        attention.told(after(450));
        assert!(attention.is_lost(after(451)));
    }
}

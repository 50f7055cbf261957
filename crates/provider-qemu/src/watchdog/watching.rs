//! What the watchdog does. Its arguments are the monitor, a bitmap that the VM must have, and the mark of a guest that stands still.

use std::{
    ffi::OsString,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use farshore_qmp::{ConnectOptions, Event, Monitor};
use serde_json::{Value, json};
use tokio::{
    runtime,
    sync::{broadcast, mpsc},
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// Said when it has the VM's monitor.
pub(super) const READY: &str = "ready";
/// Said, with the reason behind it, when it has not.
pub(super) const REFUSED: &str = "refused:";
/// Told before a `stop`, with the limit in milliseconds behind it.
pub(super) const ARM: &str = "arm ";
/// Said when it is.
pub(super) const ARMED: &str = "armed";
/// Told while the guest stands still.
pub(super) const ALIVE: &str = "alive";
/// Told when it goes on.
pub(super) const DISARM: &str = "disarm";
/// Said then, if nobody else let the guest go on.
pub(super) const UNDISTURBED: &str = "undisturbed";
/// Said otherwise.
pub(super) const DISTURBED: &str = "disturbed";

/// Who says nothing for so long while armed is dead, or as good as dead.
pub(super) const SILENCE: Duration = Duration::from_millis(300);
/// How long a `stop` that was sent may still wait to be carried out.
const QUEUED_STOP: Duration = Duration::from_secs(2);
/// A monitor whose client has just been killed serves the next one as soon as it sees that.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one command may take: a `stop` before it flushes every disk.
const COMMAND: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Words that may wait to be read: they are few, and read at once.
const WORDS: usize = 16;

/// Watches over a guest; the arguments are the monitor's socket, the name of a bitmap that the VM must have, and the mark that says that
/// the guest may stand still.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let monitor = arguments.next().map(PathBuf::from);
    let bitmap = arguments.next().and_then(|name| name.into_string().ok());
    let mark = arguments.next().map(PathBuf::from);
    let (Some(monitor), Some(bitmap), Some(mark), None) = (monitor, bitmap, mark, arguments.next()) else {
        return ExitCode::from(2);
    };
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(watch(&monitor, &bitmap, &mark));
    // The thread that reads our input may be waiting for ever.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Whoever is meant may be dead; the guest matters more.
fn say(line: &str) {
    let mut output = io::stdout().lock();
    drop(writeln!(output, "{line}").and_then(|()| output.flush()));
}

async fn watch(monitor: &Path, bitmap: &str, mark: &Path) {
    let mut words = words();
    let monitor = match connect(monitor, bitmap).await {
        Ok(monitor) => monitor,
        Err(why) => return say(&format!("{REFUSED} {why}")),
    };
    let monitor = &monitor;
    say(READY);
    while let Some(word) = words.recv().await {
        let Some(limit) = word.strip_prefix(ARM).and_then(|limit| limit.parse().ok()) else {
            // What came late of an instant that is over.
            continue;
        };
        let armed = Armed {
            monitor,
            events: monitor.subscribe(),
            stops: 0,
            resumes: 0,
            has_let_go: false,
        };
        say(ARMED);
        match armed.hold(Duration::from_millis(limit), &mut words).await {
            Told::Disarm(seen) => say(seen),
            // Nobody else is left to say that it goes on.
            Told::Nothing => return drop(std::fs::remove_file(mark)),
        }
    }
}

async fn connect(path: &Path, bitmap: &str) -> Result<Monitor, String> {
    let options = ConnectOptions { timeout: CONNECT };
    let monitor = Monitor::connect(path, options)
        .await
        .map_err(|error| format!("its second monitor cannot be used: {error}"))?;
    let nodes = monitor
        .execute("query-named-block-nodes", json!({"flat": true}))
        .await
        .map_err(|error| format!("its second monitor cannot be used: {error}"))?;
    let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    let bitmaps = nodes
        .iter()
        .filter_map(|node| node.get("dirty-bitmaps")?.as_array())
        .flatten();
    let mut names = bitmaps.filter_map(|bitmap| bitmap.get("name")?.as_str());
    if names.any(|name| name == bitmap) {
        return Ok(monitor);
    }
    Err(format!("the second monitor {} is another VM's", path.display()))
}

/// Lines of our input; the channel ends when that does.
fn words() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(WORDS);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What ended it.
enum Told {
    /// We were disarmed, and this is what we saw.
    Disarm(&'static str),
    /// Our input ended.
    Nothing,
}

/// What came next.
enum Came {
    Alive,
    Disarm,
    End,
    /// Nothing, for too long.
    Silence,
}

struct Armed<'a> {
    monitor: &'a Monitor,
    events: broadcast::Receiver<Event>,
    stops: usize,
    resumes: usize,
    /// We have sent `cont`, so that a guest that stands still later does so for someone else.
    has_let_go: bool,
}

impl Armed<'_> {
    async fn hold(mut self, limit: Duration, words: &mut mpsc::Receiver<String>) -> Told {
        let end = Instant::now() + limit;
        loop {
            let deadline = end.min(Instant::now() + SILENCE);
            match next(words, deadline).await {
                Came::Alive => {}
                Came::Disarm => return Told::Disarm(self.seen().await),
                Came::End => {
                    self.resume().await;
                    self.resume_a_queued_stop(words).await;
                    return Told::Nothing;
                }
                Came::Silence => break,
            }
        }
        self.resume().await;
        // Only who has not heard of its `stop` yet may have one under way.
        match self.resume_a_queued_stop(words).await {
            Came::Disarm => return Told::Disarm(self.seen().await),
            Came::End => return Told::Nothing,
            Came::Alive | Came::Silence => {}
        }
        loop {
            match words.recv().await.as_deref() {
                Some(DISARM) => return Told::Disarm(self.seen().await),
                Some(_) => {}
                None => break,
            }
        }
        if !self.has_let_go {
            // Its `stop` may have come later than we waited for it.
            self.resume().await;
            self.resume_a_queued_stop(words).await;
        }
        Told::Nothing
    }

    /// Whether anyone but who disarms us let the guest go on. If not, that is left to them: a `stop` that was held up for longer than
    /// we waited for it found nobody to undo it. A monitor answers behind all events of what went before.
    async fn seen(&mut self) -> &'static str {
        let asked = self
            .monitor
            .execute_within("query-status", Value::Null, COMMAND)
            .await;
        self.count();
        // Theirs is one of them.
        if asked.is_ok() && !self.has_let_go && self.resumes <= 1 {
            UNDISTURBED
        } else {
            DISTURBED
        }
    }

    /// Until the guest goes on, unless it stands still for another reason than a `stop`. A monitor that is lost has no guest.
    async fn resume(&mut self) {
        loop {
            let status = self
                .monitor
                .execute_within("query-status", Value::Null, COMMAND)
                .await;
            let paused = match status {
                Ok(status) => status.get("status").and_then(Value::as_str) == Some("paused"),
                Err(farshore_qmp::QmpError::Timeout { .. }) => true,
                Err(_) => return,
            };
            if !paused {
                return;
            }
            self.has_let_go = true;
            // Whether it did is asked again.
            drop(self.monitor.execute_within("cont", Value::Null, COMMAND).await);
            sleep(PAUSE).await;
        }
    }

    /// A `stop` that was not carried out until now may still be. Who disarms us has heard that it was.
    async fn resume_a_queued_stop(&mut self, words: &mut mpsc::Receiver<String>) -> Came {
        let end = Instant::now() + QUEUED_STOP;
        let mut ended = false;
        self.count();
        while self.stops == 0 {
            tokio::select! {
                event = timeout_at(end, self.events.recv()) => match event {
                    Ok(Ok(event)) => self.note(&event),
                    Ok(Err(broadcast::error::RecvError::Lagged(_))) => {}
                    Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => break,
                },
                word = words.recv(), if !ended => match word.as_deref() {
                    Some(DISARM) => return Came::Disarm,
                    Some(_) => {}
                    None => ended = true,
                },
            }
        }
        if self.stops > 0 {
            self.resume().await;
        }
        if ended { Came::End } else { Came::Silence }
    }

    fn count(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.note(&event);
        }
    }

    fn note(&mut self, event: &Event) {
        match event.name.as_str() {
            "STOP" => self.stops = self.stops.saturating_add(1),
            "RESUME" => self.resumes = self.resumes.saturating_add(1),
            _ => {}
        }
    }
}

async fn next(words: &mut mpsc::Receiver<String>, deadline: Instant) -> Came {
    tokio::select! {
        biased;
        word = words.recv() => match word.as_deref() {
            Some(DISARM) => Came::Disarm,
            Some(_) => Came::Alive,
            None => Came::End,
        },
        () = sleep_until(deadline) => Came::Silence,
    }
}

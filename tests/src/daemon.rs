//! A server part of Farshore as a process of its own: started, killed, started again.

use std::{
    env,
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

const READY: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(20);

/// The `farshore` binary that is tested: `FARSHORE_BIN`, else the one beside the test's own executable.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("FARSHORE_BIN") {
        return PathBuf::from(path);
    }
    let test = env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("farshore");
    assert!(
        built.exists(),
        "{} is not built: cargo build --bin farshore",
        built.display()
    );
    built
}

/// A running, or killed, server part.
#[derive(Debug)]
pub struct Daemon {
    verb: &'static str,
    configuration: PathBuf,
    namespace: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `farshore VERB --config CONFIGURATION` in a network namespace and waits until it listens.
    #[must_use]
    pub fn start(verb: &'static str, configuration: &Path, namespace: &str) -> Self {
        let log = configuration.with_extension("log");
        let mut daemon = Self {
            verb,
            configuration: configuration.to_owned(),
            namespace: namespace.to_owned(),
            log,
            child: None,
        };
        daemon.restart();
        daemon
    }

    /// Starts it again after it was killed or stopped.
    ///
    /// # Panics
    /// When it runs, or does not come up.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.verb);
        let answers = self.configuration.with_extension("out");
        let output = File::create(&answers).unwrap();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg("--")
            .arg(binary())
            .args([self.verb, "--config"])
            .arg(&self.configuration)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually(
            READY,
            &format!("{} {} listens", self.verb, self.configuration.display()),
            || {
                let exited = self.child.as_mut()?.try_wait().unwrap();
                assert!(exited.is_none(), "{} ended:\n{}", self.verb, self.log());
                fs::read_to_string(&answers)
                    .unwrap()
                    .contains("listening")
                    .then_some(())
            },
        );
    }

    /// Ends it as a power cut would.
    pub fn kill9(&mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self) {
        self.end(Signal::TERM);
    }

    /// Waits until it has ended without being asked by us, and gives the signal that ended it, if one did.
    ///
    /// # Panics
    /// When it is not running, or does not end.
    pub fn ended_by(&mut self) -> Option<i32> {
        let child = self.child.as_mut().unwrap();
        let ended = eventually(END, "the process ends", || child.try_wait().unwrap());
        self.child = None;
        ended.signal()
    }

    /// Stops it where it is; [`Self::thaw`] lets it go on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Its number, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it has said so far, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        if let Some(mut child) = self.child.take() {
            let ended = eventually_opt(|| child.try_wait().unwrap().map(|_| ()));
            if ended.is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{} did not end within {END:?}:\n{}", self.verb, self.log());
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // nsenter replaces itself by the binary, so this number is the binary's.
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn eventually_opt<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = std::time::Instant::now() + END;
    while std::time::Instant::now() < deadline {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

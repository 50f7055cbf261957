//! The processes that export recovery points: one per recovered VM, made to outlive this process.
//!
//! One that died or hangs is replaced by another one: its recovered VM's QEMU waits for that, and asks again what was not answered.
//!
//! `<directory>/<id>.json` says what is exported and is written before the process is started; the process writes
//! its number to `<id>.pid` and listens on `<id>.sock`. Whatever a crash leaves, the same export can be started again.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use farshore_blocks::{ChainId, Sequence, files::replace_file};
use farshore_provider::{Leak, RecoveryId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::OwnedMutexGuard,
    time::{Instant, timeout},
};

const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Who does not greet a client within this hangs: it greets before it reads anything. Much less than a recovered VM waits for its disks.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// What an NBD server says first.
const GREETING: &[u8; 8] = b"NBDMAGIC";

/// Starts and stops export processes; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Exports {
    /// The `farshore` executable.
    executable: PathBuf,
    directory: PathBuf,
    /// Whoever does something with an export holds its turn, so that none is started while it is being ended.
    turns: Arc<Mutex<BTreeMap<RecoveryId, Weak<tokio::sync::Mutex<()>>>>>,
}

/// What was found of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It answers, or there is none to be had.
    AsItWas,
    /// Its process died or hung, and there is another one now.
    StartedAgain,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportRecord {
    vault: PathBuf,
    chain: ChainId,
    sequence: Sequence,
}

/// Why a point is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file of it cannot be used.
    #[error("export file {path} cannot be used")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of it cannot be understood.
    #[error("export file {path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Its process did not start.
    #[error("`{executable}` could not be started")]
    NotStarted {
        /// The program.
        executable: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its process did not listen in time, or ended.
    #[error("the export of `{id}` was not ready: {output}")]
    NotReady {
        /// Of which recovered VM.
        id: RecoveryId,
        /// What the process said.
        output: String,
    },
    /// Another point is exported under the name.
    #[error("`{id}` exports another point already")]
    Differs {
        /// Of which recovered VM.
        id: RecoveryId,
    },
}

impl Exports {
    /// Keeps its files in `directory`, which is made if it is new.
    pub(crate) fn open(executable: PathBuf, directory: PathBuf) -> Result<Self, ExportError> {
        fs::create_dir_all(&directory).map_err(|source| io_error(&directory, source))?;
        let directory = directory
            .canonicalize()
            .map_err(|source| io_error(&directory, source))?;
        Ok(Self {
            executable,
            directory,
            turns: Arc::default(),
        })
    }

    async fn turn(&self, id: &RecoveryId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(id).and_then(Weak::upgrade);
            let turn = known.unwrap_or_default();
            turns.insert(id.clone(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    /// Exports a point under the name of a recovered VM; gives the socket, once it answers.
    pub(crate) async fn start(
        &self,
        id: &RecoveryId,
        vault: &Path,
        chain: ChainId,
        sequence: Sequence,
    ) -> Result<PathBuf, ExportError> {
        let _turn = self.turn(id).await;
        let record = ExportRecord {
            vault: vault.to_owned(),
            chain,
            sequence,
        };
        match self.record(id)? {
            Some(known) if known != record => return Err(ExportError::Differs { id: id.clone() }),
            Some(_) => {}
            None => {
                let path = self.path(id, "json");
                let text = serde_json::to_vec_pretty(&record).map_err(|source| ExportError::Damaged {
                    path: path.clone(),
                    source,
                })?;
                replace_file(&path, &text).map_err(|source| io_error(&path, source))?;
            }
        }
        self.ensure(id, &record).await?;
        Ok(self.path(id, "sock"))
    }

    /// Sees to it that what was exported under this name still is.
    pub(crate) async fn keep(&self, id: &RecoveryId) -> Result<Kept, ExportError> {
        let _turn = self.turn(id).await;
        let Some(record) = self.record(id)? else {
            return Ok(Kept::AsItWas);
        };
        if let Some(pid) = self.process(id) {
            if self.greets(id).await {
                return Ok(Kept::AsItWas);
            }
            signal(pid, Signal::KILL);
            self.gone_within(id, pid, STOP_LIMIT).await;
        }
        self.ensure(id, &record).await?;
        Ok(Kept::StartedAgain)
    }

    /// Ends the process and removes its files; says what is still there.
    pub(crate) async fn stop(&self, id: &RecoveryId) -> Result<Vec<Leak>, ExportError> {
        let _turn = self.turn(id).await;
        let running = self.process(id);
        if let Some(pid) = running {
            signal(pid, Signal::TERM);
            if !self.gone_within(id, pid, STOP_LIMIT).await {
                signal(pid, Signal::KILL);
                self.gone_within(id, pid, STOP_LIMIT).await;
            }
        }
        for extension in ["sock", "pid", "log", "json"] {
            let path = self.path(id, extension);
            if let Err(source) = fs::remove_file(&path)
                && source.kind() != io::ErrorKind::NotFound
            {
                return Err(io_error(&path, source));
            }
        }
        let still = running.filter(|pid| self.is_export(id, *pid));
        Ok(still
            .map(|pid| Leak {
                kind: "process".to_owned(),
                name: format!("export {id}, pid {}", pid.as_raw_nonzero()),
            })
            .into_iter()
            .collect())
    }

    async fn greets(&self, id: &RecoveryId) -> bool {
        let socket = self.path(id, "sock");
        let greeted = async {
            let mut said = [0; GREETING.len()];
            let mut stream = UnixStream::connect(&socket).await?;
            stream.read_exact(&mut said).await?;
            io::Result::Ok(said == *GREETING)
        };
        matches!(timeout(GREETING_LIMIT, greeted).await, Ok(Ok(true)))
    }

    async fn ensure(&self, id: &RecoveryId, record: &ExportRecord) -> Result<(), ExportError> {
        let socket = self.path(id, "sock");
        if self.process(id).is_none() {
            self.spawn(id, record)?;
        }
        let deadline = Instant::now() + READY_LIMIT;
        while UnixStream::connect(&socket).await.is_err() {
            let dead = self.path(id, "pid").exists() && self.process(id).is_none();
            if dead || Instant::now() >= deadline {
                let output = fs::read_to_string(self.path(id, "log")).unwrap_or_default();
                return Err(ExportError::NotReady {
                    id: id.clone(),
                    output: output.trim().to_owned(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn spawn(&self, id: &RecoveryId, record: &ExportRecord) -> Result<(), ExportError> {
        let pid_file = self.path(id, "pid");
        if let Err(source) = fs::remove_file(&pid_file)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(io_error(&pid_file, source));
        }
        let log_path = self.path(id, "log");
        let log = fs::File::create(&log_path).map_err(|source| io_error(&log_path, source))?;
        let errors = log.try_clone().map_err(|source| io_error(&log_path, source))?;
        let mut command = Command::new(&self.executable);
        command
            .args(["vault", "serve"])
            .arg(&record.vault)
            .arg(record.chain.to_string())
            .args(["--point", &record.sequence.to_string()])
            .arg("--socket")
            .arg(self.path(id, "sock"))
            .arg("--pid-file")
            .arg(&pid_file)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A signal to our group (Ctrl-C at a terminal) must not reach it.
            .process_group(0);
        let mut child = command.spawn().map_err(|source| ExportError::NotStarted {
            executable: self.executable.clone(),
            source,
        })?;
        // Reaps it should it end before us; it is not waited for otherwise.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    async fn gone_within(&self, id: &RecoveryId, pid: Pid, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_export(id, pid) {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    fn process(&self, id: &RecoveryId) -> Option<Pid> {
        let text = fs::read_to_string(self.path(id, "pid")).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        self.is_export(id, pid).then_some(pid)
    }

    /// Whether the process is ours: its command line names this export's socket.
    fn is_export(&self, id: &RecoveryId, pid: Pid) -> bool {
        let command_line = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        let socket = self.path(id, "sock");
        fs::read(command_line).is_ok_and(|line| {
            line.split(|byte| *byte == 0)
                .any(|argument| argument == socket.as_os_str().as_encoded_bytes())
        })
    }

    fn record(&self, id: &RecoveryId) -> Result<Option<ExportRecord>, ExportError> {
        let path = self.path(id, "json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| ExportError::Damaged { path, source }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    fn path(&self, id: &RecoveryId, extension: &str) -> PathBuf {
        self.directory.join(format!("{id}.{extension}"))
    }
}

fn io_error(path: &Path, source: io::Error) -> ExportError {
    ExportError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Signals a process; one that is gone needs no signal.
fn signal(pid: Pid, signal: Signal) {
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(process, signal);
    }
}

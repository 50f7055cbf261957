//! NBD servers side by side: the export process of a point, nbdkit on a raw file, and our server on that same file.

use std::{
    env,
    fs::{self, File},
    io,
    num::NonZeroUsize,
    os::unix::{fs::FileExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use farshore_nbd::{Export, ExportExtent, Exports, ExtentState, Listener, serve_connections};
use farshore_tests::daemon::binary;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{CHAIN, VOLUME_NAME},
    process::Process,
};

/// The part of this program that serves a file.
pub(crate) const SERVE_FILE: &str = "serve-file";

/// A server on a Unix socket, which ends with the value.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) socket: PathBuf,
    pub(crate) export: &'static str,
}

impl Server {
    /// `farshore vault serve`: the newest point, as under a recovered VM.
    pub(crate) fn of_point(vault: &Path, place: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(binary());
        command.args(["vault", "serve"]).arg(vault);
        command.arg(CHAIN.to_string()).args(["--point", "latest"]);
        let socket = place.join("point.sock");
        command.arg("--socket").arg(&socket);
        Self::start(command, socket, VOLUME_NAME)
    }

    /// `nbdkit file`.
    pub(crate) fn nbdkit(file: &Path, place: &Path) -> anyhow::Result<Self> {
        let socket = place.join("nbdkit.sock");
        let mut command = Command::new("nbdkit");
        command
            .args(["--foreground", "--readonly", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(file);
        Self::start(command, socket, "")
    }

    /// Our server on the file, without a vault: what the server alone can do.
    pub(crate) fn of_file(file: &Path, place: &Path) -> anyhow::Result<Self> {
        let socket = place.join("file.sock");
        let mut command = Command::new(env::current_exe()?);
        command.arg(SERVE_FILE).arg(file).arg(&socket);
        Self::start(command, socket, VOLUME_NAME)
    }

    fn start(mut command: Command, socket: PathBuf, export: &'static str) -> anyhow::Result<Self> {
        // One that was ended before leaves its socket.
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let log = socket.with_extension("log");
        let mut process = Process::start(&mut command, &log)?;
        process.ready(&log, || UnixStream::connect(&socket).ok());
        Ok(Self {
            process,
            socket,
            export,
        })
    }

    fn address(&self) -> String {
        format!("nbd+unix:///{}?socket={}", self.export, self.socket.display())
    }

    /// Everything to nowhere, by nbdcopy.
    pub(crate) fn read_all(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let status = Command::new("nbdcopy")
            .arg(self.address())
            .arg("null:")
            .status()?;
        let took = began.elapsed();
        ensure!(status.success(), "nbdcopy: {status}");
        Ok(took)
    }

    /// Whether it serves the file's bytes, no more and no fewer.
    pub(crate) fn expect_same(&self, file: &Path) -> anyhow::Result<()> {
        let mut copy = Command::new("nbdcopy")
            .arg(self.address())
            .arg("-")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = copy.stdout.take().context("nbdcopy has no output")?;
        let compared = Command::new("cmp").arg("-").arg(file).stdin(output).status()?;
        let copied = copy.wait()?;
        ensure!(
            copied.success() && compared.success(),
            "{} does not serve what {} holds",
            self.address(),
            file.display()
        );
        Ok(())
    }
}

/// A file as an export of ours.
struct FileExport {
    file: File,
    size_bytes: u64,
}

impl Export for FileExport {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn extents(&self, _: u64, length: u64) -> io::Result<Vec<ExportExtent>> {
        let state = ExtentState::Data;
        Ok(vec![ExportExtent { length, state }])
    }
}

/// Serves a file until this process is ended.
pub(crate) fn serve_file(file: &Path, socket: &Path) -> anyhow::Result<()> {
    let file = File::open(file)?;
    let size_bytes = file.metadata()?.len();
    let export = Arc::new(FileExport { file, size_bytes });
    let exports = Arc::new(Exports::builder().add(VOLUME_NAME, export)?.build());
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = Listener::Unix(tokio::net::UnixListener::bind(socket)?);
        let connections = NonZeroUsize::MIN.saturating_add(15);
        serve_connections(listener, exports, connections, CancellationToken::new()).await;
        Ok(())
    })
}

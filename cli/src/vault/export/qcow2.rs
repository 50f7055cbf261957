//! A qcow2 image, made by `qemu-img` of a private export of the volume: no second copy of its data is needed.

use std::{
    io,
    num::NonZeroUsize,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use farshore_nbd::{Export, ExportExtent, Exports, Listener, serve_connections};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::UnixListener,
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use super::{Done, interrupted, partial::Partial};
use crate::{exit::CliError, vault::volume::PointVolume};

const CONVERTER: &str = "qemu-img";
const EXPORT: &str = "volume";
/// `qemu-img` opens one connection.
const CONNECTIONS_MAXIMUM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
/// Reads that are under way at once: enough to keep a disk busy, and what `qemu-img` allows at most.
const READS_UNDER_WAY: &str = "16";

/// The volume, and the first thing that could not be read of it: clients of NBD learn no more than "I/O error".
struct Witnessed {
    volume: PointVolume,
    failure: Mutex<Option<String>>,
}

impl Witnessed {
    fn note<T>(&self, read: io::Result<T>) -> io::Result<T> {
        read.inspect_err(|error| {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.to_string());
        })
    }

    fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }
}

impl Export for Witnessed {
    fn size(&self) -> u64 {
        self.volume.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.note(self.volume.read_at(offset, buffer))
    }

    fn extents(&self, offset: u64, length: u64) -> io::Result<Vec<ExportExtent>> {
        self.note(self.volume.extents(offset, length))
    }
}

pub(super) async fn write(
    volume: &PointVolume,
    partial: &Partial,
    done: &Done,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    let witnessed = Arc::new(Witnessed {
        volume: volume.clone(),
        failure: Mutex::new(None),
    });
    // Only its owner may enter it, so that nobody else finds the socket.
    let private = tempfile::tempdir().context("cannot make a private directory")?;
    let socket = private.path().join("nbd");
    let listener = UnixListener::bind(&socket).context("cannot listen in a private directory")?;
    let added = Exports::builder().add(EXPORT, Arc::clone(&witnessed) as Arc<dyn Export>);
    let exports = added.context("the private export has no name")?.build();
    let ended = CancellationToken::new();
    let serving = tokio::spawn(serve_connections(
        Listener::Unix(listener),
        Arc::new(exports),
        CONNECTIONS_MAXIMUM,
        ended.clone(),
    ));
    let converted = tokio::select! {
        () = stop.cancelled() => Err(interrupted()),
        converted = convert(&socket, partial.path(), volume.size(), done) => converted,
    };
    ended.cancel();
    serving.await.context("the private export has died")?;
    match (converted, witnessed.failure()) {
        (Err(_), Some(failure)) if !stop.is_cancelled() => Err(CliError::Failed {
            message: failure,
            reason: "damaged".to_owned(),
        }),
        (converted, _) => converted,
    }
}

async fn convert(socket: &Path, image: &Path, size: u64, done: &Done) -> Result<(), CliError> {
    let mut child = start(socket, image)?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (_, words, ended) = tokio::join!(follow(output, size, done), words(errors), child.wait());
    let ended = ended.with_context(|| format!("{CONVERTER} cannot be waited for"))?;
    if ended.success() {
        return Ok(());
    }
    Err(CliError::Failed {
        message: format!("{CONVERTER} ended with {ended}: {}", words.trim()),
        reason: "converter-failed".to_owned(),
    })
}

fn start(socket: &Path, image: &Path) -> Result<Child, CliError> {
    // Named, not probed: what the guest wrote must not choose a format.
    let source = serde_json::json!({
        "driver": "raw",
        "file": {"driver": "nbd", "server": {"type": "unix", "path": socket}, "export": EXPORT},
    });
    // An absolute path is taken neither for an option nor for an address (`-x.qcow2`, `nbd:x`).
    let image = std::path::absolute(image).context("cannot find the current directory")?;
    let mut command = Command::new(CONVERTER);
    command
        .args(["convert", "-p", "-m", READS_UNDER_WAY, "-O", "qcow2"])
        .arg(format!("json:{source}"))
        .arg(image)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A terminal's interrupt is for us, who end it.
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return CliError::Failed {
                message: format!(
                    "{CONVERTER} is needed for qcow2 and is not in PATH: install it (package qemu-utils), or export \
                     with --format raw, which needs nothing"
                ),
                reason: "converter-missing".to_owned(),
            };
        }
        CliError::Part(anyhow::Error::new(error).context(format!("{CONVERTER} cannot be run")))
    })
}

/// Reads `    (12.34/100%)`, again and again, parted by carriage returns.
async fn follow(output: Option<impl AsyncRead + Unpin>, size: u64, done: &Done) {
    let Some(mut output) = output else { return };
    let (mut line, mut counted, mut buffer) = (Vec::new(), 0, [0; 256]);
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        for &byte in buffer.iter().take(length) {
            if byte != b'\r' && byte != b'\n' {
                line.push(byte);
                continue;
            }
            let percent = hundredths(&String::from_utf8_lossy(&line));
            line.clear();
            let bytes = u128::from(size) * u128::from(percent.unwrap_or(0)) / 10_000;
            let bytes = u64::try_from(bytes).unwrap_or(size);
            done.add(bytes.saturating_sub(counted));
            counted = counted.max(bytes);
        }
    }
    done.add(size.saturating_sub(counted));
}

/// The hundredths of a percent in a line of progress.
fn hundredths(line: &str) -> Option<u64> {
    let (percent, _) = line.trim().strip_prefix('(')?.split_once('/')?;
    let (whole, fraction) = percent.split_once('.')?;
    let (whole, fraction): (u64, u64) = (whole.parse().ok()?, fraction.parse().ok()?);
    Some(whole.saturating_mul(100).saturating_add(fraction).min(10_000))
}

async fn words(errors: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut errors) = errors {
        // What could be read is all there is to say.
        let _ = errors.read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_converters_lines() {
        for (line, expected) in [
            ("    (0.00/100%)", Some(0)),
            ("    (12.34/100%)", Some(1234)),
            ("    (100.00/100%)", Some(10_000)),
            ("", None),
            ("qemu-img: error", None),
        ] {
            assert_eq!(hundredths(line), expected, "{line}");
        }
    }
}

//! Where a point is served: a socket in the file system or a port of this machine, taken from nobody.

use std::{
    fmt::{self, Write},
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use clap::Args;
use farshore_nbd::Listener;
use rustix::fs::{FlockOperation, flock};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::{exit::CliError, output::talk};

/// Where to listen.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Address {
    /// Listen on this socket; one that a dead process left is replaced
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Listen on this port of the loopback interface; port 0 takes a free one
    #[arg(long, value_name = "127.0.0.1:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// Where it listens.
#[derive(Debug)]
pub(crate) enum Bound {
    /// On a socket, which is removed when this is dropped.
    Socket(BoundSocket),
    /// On a port.
    Port(SocketAddr),
}

/// A socket of ours in the file system.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    path: PathBuf,
    /// Device and inode, so that a socket that took its place is not removed.
    identity: (u64, u64),
}

impl Address {
    /// Binds it.
    pub(super) async fn bind(&self) -> Result<(Listener, Bound), CliError> {
        match (&self.socket, self.listen) {
            (Some(path), _) => bind_socket(path).await,
            (None, Some(address)) => bind_port(address).await,
            (None, None) => Err(CliError::Usage(
                "either --socket or --listen is needed".to_owned(),
            )),
        }
    }
}

async fn bind_port(address: SocketAddr) -> Result<(Listener, Bound), CliError> {
    if !address.ip().is_loopback() {
        return Err(CliError::Usage(format!(
            "--listen {address} is refused: NBD is neither encrypted nor authenticated, so only loopback addresses are accepted"
        )));
    }
    let in_use = |error: io::Error| CliError::Refused {
        message: format!("cannot listen on {address}: {error}"),
        reason: "address-in-use".to_owned(),
    };
    let listener = TcpListener::bind(address).await.map_err(in_use)?;
    let address = listener.local_addr().map_err(in_use)?;
    Ok((Listener::Tcp(listener), Bound::Port(address)))
}

async fn bind_socket(path: &Path) -> Result<(Listener, Bound), CliError> {
    let failed = |source| CliError::File {
        action: "listen on",
        path: path.to_owned(),
        source,
    };
    // Two that find the same stale socket must not remove each other's fresh one.
    let _directory = lock_directory(path).map_err(failed)?;
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let socket = BoundSocket {
        path: path.to_owned(),
        identity: identity(path).map_err(failed)?,
    };
    Ok((Listener::Unix(listener), Bound::Socket(socket)))
}

fn lock_directory(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new(".")))?;
    flock(&directory, FlockOperation::LockExclusive)?;
    Ok(directory)
}

/// Removes a socket on which nobody listens any more.
async fn remove_stale(path: &Path) -> Result<(), CliError> {
    let refused = |message: String| CliError::Refused {
        message,
        reason: "address-in-use".to_owned(),
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| file_error("look at", path, source))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(refused(format!("{} exists and is no socket", path.display())));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| file_error("remove", path, source))
        }
        Ok(_) => Err(refused(format!("somebody listens on {} already", path.display()))),
        Err(error) => Err(refused(format!(
            "cannot tell whether {} is in use: {error}",
            path.display()
        ))),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> CliError {
    CliError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

impl Bound {
    /// How NBD clients name an export of it.
    pub(super) fn export_uri(&self, export: &str) -> String {
        let export = percent_encoded(export);
        match self {
            Self::Socket(socket) => {
                let path = percent_encoded(&socket.path.to_string_lossy());
                format!("nbd+unix:///{export}?socket={path}")
            }
            Self::Port(address) => format!("nbd://{address}/{export}"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => write!(out, "{}", socket.path.display()),
            Self::Port(address) => write!(out, "{address}"),
        }
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if identity(&self.path).ok() != Some(self.identity) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            talk(&format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

/// Everything but unreserved characters and `/` escaped, as RFC 3986 wants it in paths and queries.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

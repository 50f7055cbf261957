//! Why something asked of an NBD server was not had.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ConnectionLoss, HandshakeError};
use crate::wire::error_code::ErrorCode;

/// Why something asked of an NBD server was not had.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no connection to the NBD socket {}", path.display())]
    Dial {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Dialling and the handshake took too long.
    #[error("the NBD server did not finish its handshake within {limit:?}")]
    ConnectTimeout {
        /// How long it had.
        limit: Duration,
    },
    /// The handshake failed.
    #[error("the NBD handshake for the export {export:?} failed")]
    Handshake {
        /// The export.
        export: String,
        /// Why.
        source: HandshakeError,
    },
    /// The server has no such metadata context, or none at all.
    #[error("the NBD server does not grant the metadata context {context:?}")]
    ContextNotGranted {
        /// The context.
        context: String,
    },
    /// The range is not within the export. Nothing was sent.
    #[error("{length} bytes at {offset} are not within an export of {size} bytes")]
    OutOfRange {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// The export's size in bytes.
        size: u64,
    },
    /// The server answered this request with an error; the connection goes on.
    #[error("the NBD server answered {code}: {message}")]
    Refused {
        /// Its error number.
        code: ErrorCode,
        /// Its reason, which may be empty.
        message: String,
    },
    /// The connection is gone.
    #[error("the NBD connection is gone")]
    Lost(#[source] Arc<ConnectionLoss>),
}

//! Serves one connection: the handshake under a deadline, then requests until the client leaves.

mod admission;
mod answers;
mod buffers;
mod handshake;
mod lanes;
mod listener;
mod negotiation;
mod pieces;
mod sending;
mod transmission;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::time::timeout;

pub use listener::{Listener, serve_connections};

use buffers::Buffers;

use crate::export::Exports;
use crate::wire::WireError;
use crate::wire::handshake::OptionCode;

/// How long a client may take to agree on an export: enough for a slow link, and no slot is held for ever.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// Why a connection ended otherwise than by the client's leave. None of these concerns other connections.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The stream failed, or ended inside of a message.
    #[error("the connection failed")]
    Stream(#[from] io::Error),
    /// The client sent something that is not NBD.
    #[error("the client does not speak NBD")]
    Wire(#[from] WireError),
    /// The client does not know the fixed newstyle, or sent flags that nobody knows.
    #[error("the client's handshake flags {flags:#x} are not those of the fixed newstyle")]
    ClientFlags {
        /// What it sent.
        flags: u32,
    },
    /// An option's data is longer than any that is understood.
    #[error("{option} has {data_bytes} bytes of data, which is too long")]
    OptionTooLong {
        /// The option.
        option: OptionCode,
        /// How long.
        data_bytes: u32,
    },
    /// A write, which is refused here, has a payload too long even to be read past.
    #[error("the client writes {length_bytes} bytes at once, which is too long")]
    WriteTooLong {
        /// How long.
        length_bytes: u32,
    },
    /// The client took an export that is not there by the one option that has no refusal.
    #[error("the client took an export which does not exist")]
    UnknownExport,
    /// The client did not agree on an export in time.
    #[error("the client did not finish its handshake within {limit:?}")]
    HandshakeTimeout {
        /// How long it had.
        limit: Duration,
    },
    /// The client left, and did not take the answers that it had asked for.
    #[error("the client does not take the answers to what it asked for")]
    AnswersNotTaken,
}

/// Serves one connection until the client leaves. Dropping the future ends the connection at once.
///
/// Reads run on tokio's blocking threads, several at a time, and are answered in the order in which they finish.
///
/// # Errors
/// When the stream fails or the client breaks the protocol; what it did right before has been answered.
pub async fn serve<S>(stream: S, exports: Arc<Exports>) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    Service::new(exports).serve(reader, writer).await
}

/// What all connections share.
#[derive(Clone)]
struct Service {
    exports: Arc<Exports>,
    buffers: Buffers,
    handshake_limit: Duration,
}

impl Service {
    fn new(exports: Arc<Exports>) -> Self {
        Self {
            exports,
            buffers: Buffers::default(),
            handshake_limit: HANDSHAKE_LIMIT,
        }
    }

    async fn serve<R, W>(self, reader: R, mut writer: W) -> Result<(), ServeError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let limit = self.handshake_limit;
        let mut reader = BufReader::new(reader);
        let shaking = handshake::shake_hands(&mut reader, &mut writer, &self.exports);
        let agreement = timeout(limit, shaking)
            .await
            .map_err(|_| ServeError::HandshakeTimeout { limit })??;
        match agreement {
            Some(agreement) => transmission::transmit(reader, writer, agreement, self.buffers).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

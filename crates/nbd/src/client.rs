//! A client that reads an export and asks for its block status, many requests at a time on one connection.
//!
//! One task owns the sending half of the stream and one the receiving half. Requests in flight are bounded in number
//! and in bytes. A peer that goes away, breaks the protocol, or leaves a request unanswered for too long ends the
//! connection, and every request in flight gets that reason: none waits for ever.

mod assembly;
mod connection;
mod error;
mod handshake;
mod in_flight;
mod receiving;

use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use assembly::Violation;
pub use error::ClientError;
pub use handshake::HandshakeError;
pub use in_flight::ConnectionLoss;

use connection::Connection;
use handshake::ExportTerms;

/// The longest range for which block status is asked at a time: as long as 32 bits tell, and a multiple of any block size.
const STATUS_BYTES_MAXIMUM: u64 = (1 << 32) - (1 << 26);
/// For how many such ranges it is asked at once: of a huge disk the way there and back would be most of the time.
const STATUSES_AT_ONCE: usize = 8;

/// How long to wait for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For dialling and the handshake together.
    pub connect: Duration,
    /// For the answer to one request, from when it is sent.
    pub request: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(30),
        }
    }
}

/// A run of one state, as a metadata context defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusDescriptor {
    /// How long, in bytes.
    pub length: u64,
    /// The state: for `base:allocation` bit 0 is a hole and bit 1 zeroes, for `qemu:dirty-bitmap:*` bit 0 is dirty.
    pub flags: u32,
}

/// A connection to one export.
pub struct Client {
    connection: Connection,
    terms: ExportTerms,
}

impl Client {
    /// Connects to the export at a Unix socket, with the default timeouts.
    ///
    /// # Errors
    /// When nobody answers in time, or the export or one of the contexts is not there.
    pub async fn connect_unix(path: &Path, export: &str, contexts: &[&str]) -> Result<Self, ClientError> {
        Self::connect_unix_within(path, export, contexts, ClientTimeouts::default()).await
    }

    /// Connects to the export at a Unix socket.
    ///
    /// # Errors
    /// When nobody answers in time, or the export or one of the contexts is not there.
    pub async fn connect_unix_within(
        path: &Path,
        export: &str,
        contexts: &[&str],
        timeouts: ClientTimeouts,
    ) -> Result<Self, ClientError> {
        let stream = timeout(timeouts.connect, UnixStream::connect(path))
            .await
            .map_err(|_| ClientError::ConnectTimeout {
                limit: timeouts.connect,
            })?
            .map_err(|source| ClientError::Dial {
                path: path.to_owned(),
                source,
            })?;
        Self::connect_over(stream, export, contexts, timeouts).await
    }

    /// Shakes hands over a stream.
    ///
    /// # Errors
    /// When the peer does not answer in time, or the export or one of the contexts is not there.
    pub async fn connect_over<S>(
        stream: S,
        export: &str,
        contexts: &[&str],
        timeouts: ClientTimeouts,
    ) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let shaking = handshake::shake_hands(&mut reader, &mut writer, export, contexts);
        let terms = timeout(timeouts.connect, shaking)
            .await
            .map_err(|_| ClientError::ConnectTimeout {
                limit: timeouts.connect,
            })?
            .map_err(|source| ClientError::Handshake {
                export: export.to_owned(),
                source,
            })?;
        for context in contexts {
            if !terms.contexts.iter().any(|grant| grant.name == *context) {
                return Err(ClientError::ContextNotGranted {
                    context: (*context).to_owned(),
                });
            }
        }
        let connection = Connection::start(reader, writer, terms.form, timeouts.request);
        Ok(Self { connection, terms })
    }

    /// The export's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.terms.size_bytes
    }

    /// The names of the metadata contexts that the server granted.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.terms.contexts.iter().map(|grant| grant.name.as_str())
    }

    /// Reads; holes come back as zeroes. A read longer than the server takes at once is sent in parts.
    ///
    /// # Errors
    /// When the range is not within the export, the server refuses, or the connection is lost.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ClientError> {
        let wanted = self.checked_range(offset, u64::from(length))?;
        let asked = self.aligned(&wanted);
        let mut parts = Vec::new();
        let mut position = asked.start;
        while position < asked.end {
            let part = u32::try_from(asked.end - position)
                .unwrap_or(u32::MAX)
                .min(self.terms.read_bytes_maximum);
            parts.push(self.connection.read(position, part).await?);
            position += u64::from(part);
        }
        let head = usize::try_from(wanted.start - asked.start).unwrap_or(usize::MAX);
        let wanted_bytes = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
        let mut whole = joined(parts);
        // The parts cover `asked`, of which `wanted` is a part, so that neither of these can be beyond the end.
        let mut content = whole.split_off(head.min(whole.len()));
        content.truncate(wanted_bytes);
        Ok(content)
    }

    /// The states of the whole range in order, without gaps, each run as long as it is.
    ///
    /// # Errors
    /// When the context was not granted, the range is not within the export, the server refuses, or the connection
    /// is lost.
    pub async fn block_status(
        &self,
        context: &str,
        offset: u64,
        length: u64,
    ) -> Result<Vec<StatusDescriptor>, ClientError> {
        let context_id = self
            .terms
            .contexts
            .iter()
            .find(|grant| grant.name == context)
            .map(|grant| grant.id)
            .ok_or_else(|| ClientError::ContextNotGranted {
                context: context.to_owned(),
            })?;
        let wanted = self.checked_range(offset, length)?;
        let asked = self.aligned(&wanted);
        let starts =
            (asked.start..asked.end).step_by(usize::try_from(STATUS_BYTES_MAXIMUM).unwrap_or(usize::MAX));
        let parts = starts.map(|start| {
            let end = start.saturating_add(STATUS_BYTES_MAXIMUM).min(asked.end);
            self.status_of(context_id, start..end)
        });
        let mut parts = pin!(stream::iter(parts).buffered(STATUSES_AT_ONCE));
        let mut runs: Vec<StatusDescriptor> = Vec::new();
        let mut position = asked.start;
        while let Some(part) = parts.next().await {
            for descriptor in part? {
                let next = position.saturating_add(descriptor.length);
                let length = next.min(wanted.end).saturating_sub(position.max(wanted.start));
                let flags = descriptor.flags;
                append_run(&mut runs, StatusDescriptor { length, flags });
                position = next;
            }
        }
        Ok(runs)
    }

    /// The states of a range of which 32 bits tell the length; a server may tell of less at a time.
    async fn status_of(
        &self,
        context_id: u32,
        range: Range<u64>,
    ) -> Result<Vec<StatusDescriptor>, ClientError> {
        let mut runs = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let rest = u32::try_from(range.end - position).unwrap_or(u32::MAX);
            for descriptor in self.connection.status(context_id, position, rest).await? {
                // The last one may tell of more than was asked for, which the next range tells again.
                let length = u64::from(descriptor.length).min(range.end.saturating_sub(position));
                let flags = descriptor.flags;
                append_run(&mut runs, StatusDescriptor { length, flags });
                position = position.saturating_add(length);
            }
        }
        Ok(runs)
    }

    /// Says goodbye and waits until the server has closed the connection, for no longer than a request may take.
    pub async fn disconnect(self) {
        self.connection.disconnect().await;
    }

    fn checked_range(&self, offset: u64, length: u64) -> Result<Range<u64>, ClientError> {
        let size = self.terms.size_bytes;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(offset..end),
            Some(_) | None => Err(ClientError::OutOfRange { offset, length, size }),
        }
    }

    /// The range widened to what the server takes.
    fn aligned(&self, wanted: &Range<u64>) -> Range<u64> {
        let unit = u64::from(self.terms.block_bytes_minimum);
        let start = wanted.start - wanted.start % unit;
        let end = wanted
            .end
            .checked_next_multiple_of(unit)
            .unwrap_or(self.terms.size_bytes);
        start..end.min(self.terms.size_bytes)
    }
}

fn joined(parts: Vec<Bytes>) -> Bytes {
    let mut parts = parts.into_iter();
    match (parts.next(), parts.len()) {
        (None, _) => Bytes::new(),
        (Some(only), 0) => only,
        (Some(first), _) => {
            let mut whole = BytesMut::from(first);
            for part in parts {
                whole.extend_from_slice(&part);
            }
            whole.freeze()
        }
    }
}

fn append_run(runs: &mut Vec<StatusDescriptor>, run: StatusDescriptor) {
    match runs.last_mut() {
        Some(last) if last.flags == run.flags => last.length += run.length,
        Some(_) | None if run.length == 0 => {}
        Some(_) | None => runs.push(run),
    }
}

#[cfg(test)]
mod tests;

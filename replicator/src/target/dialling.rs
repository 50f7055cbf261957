//! Sources that this target dials, because nobody can dial its site: it keeps one connection offered to each, and serves
//! replication on those that are taken.
//!
//! What is to be dialled is on disk, so that it is dialled without an orchestrator, too. A source that went away is dialled
//! again for ever, with pauses.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use farshore_blocks::{ChainId, Epoch};
use farshore_proto::v1::{self, offer_answer::Body};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Uri;

use crate::{
    chain_files::{ChainFileError, ChainFiles},
    configuration::{Plaintext, is_loopback},
    convert,
    listening::Served,
    offering,
    pauses::Pauses,
};

const DIAL_LIMIT: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The sources that are dialled, by chain; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Dialling {
    /// In `<state directory>/dialled/`.
    files: ChainFiles<DialledSource>,
    plaintext: Plaintext,
    served: Served,
    under_way: Arc<Mutex<BTreeMap<ChainId, UnderWay>>>,
    work: TaskTracker,
    stop: CancellationToken,
}

/// A source to be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DialledSource {
    /// Of its replicator, like `http://10.0.0.1:7201`.
    pub(crate) endpoint: String,
    /// With which the source writes; by it the source knows this target.
    pub(crate) epoch: Epoch,
}

#[derive(Debug)]
struct UnderWay {
    source: DialledSource,
    stop: CancellationToken,
}

/// Why a source is not dialled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiallingError {
    #[error(transparent)]
    State(#[from] ChainFileError),
    #[error("the source {0} cannot be dialled: `http://HOST:PORT` is accepted")]
    Address(String),
    #[error(
        "the source {0} is beyond loopback and traffic is not encrypted: say `insecure: true` in this \
         replicator's configuration if that is what you want"
    )]
    PlaintextBeyondLoopback(String),
}

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
enum OfferError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the source refused: {message} ({})", reason.as_str_name())]
    Refused {
        reason: v1::RefusalReason,
        message: String,
    },
    #[error("the source's answer cannot be understood")]
    Malformed,
}

impl Dialling {
    /// Takes up what is on disk. Connections that are taken are put into `served`.
    pub(crate) fn open(
        state_directory: &Path,
        plaintext: Plaintext,
        served: Served,
        stop: CancellationToken,
    ) -> Result<Self, DiallingError> {
        let dialling = Self {
            files: ChainFiles::open(state_directory.join("dialled"))?,
            plaintext,
            served,
            under_way: Arc::default(),
            work: TaskTracker::new(),
            stop,
        };
        for (chain, source) in dialling.files.load()? {
            dialling.start(chain, source);
        }
        Ok(dialling)
    }

    /// Dials this source from now on, also after a restart. Again with the same words changes nothing.
    pub(crate) fn dial(&self, chain: ChainId, source: DialledSource) -> Result<(), DiallingError> {
        if address(&source.endpoint).is_none() {
            return Err(DiallingError::Address(source.endpoint));
        }
        if self.plaintext == Plaintext::LoopbackOnly && !is_loopback(&source.endpoint) {
            return Err(DiallingError::PlaintextBeyondLoopback(source.endpoint));
        }
        if self
            .under_way()
            .get(&chain)
            .is_some_and(|before| before.source == source)
        {
            return Ok(());
        }
        self.files.keep(chain, &source)?;
        self.start(chain, source);
        Ok(())
    }

    /// Does not dial the source of this chain any more. What runs on connections that it took goes on.
    pub(crate) fn forget(&self, chain: ChainId) -> Result<(), DiallingError> {
        self.files.forget(chain)?;
        if let Some(before) = self.under_way().remove(&chain) {
            before.stop.cancel();
        }
        Ok(())
    }

    /// Waits until nothing is dialled any more, which is when it was told to stop.
    pub(crate) async fn ended(&self) {
        self.work.close();
        self.work.wait().await;
    }

    fn start(&self, chain: ChainId, source: DialledSource) {
        let stop = self.stop.child_token();
        let began = UnderWay {
            source: source.clone(),
            stop: stop.clone(),
        };
        if let Some(before) = self.under_way().insert(chain, began) {
            before.stop.cancel();
        }
        let served = self.served.clone();
        self.work.spawn(async move {
            stop.run_until_cancelled(offer_for_ever(chain, source, served))
                .await;
        });
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<ChainId, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn offer_for_ever(chain: ChainId, source: DialledSource, served: Served) {
    let mut pauses = Pauses::between(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut told = String::new();
    loop {
        match offer(chain, &source).await {
            Ok(stream) => {
                pauses.start_over();
                told.clear();
                // The server takes what comes until this process stops.
                if served.send(Ok(stream)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let shown = crate::source::chain(&error);
                // Once, and not with every attempt.
                if shown != told {
                    tracing::warn!(%chain, source.endpoint, error = shown, "a source takes no connection");
                    told = shown;
                }
                tokio::time::sleep(pauses.next()).await;
            }
        }
    }
}

/// Dials, and waits until the connection is taken.
async fn offer(chain: ChainId, source: &DialledSource) -> Result<TcpStream, OfferError> {
    let address = address(&source.endpoint).unwrap_or_default();
    let dialled = timeout(DIAL_LIMIT, TcpStream::connect(address)).await;
    let mut stream = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    offering::say_magic(&mut stream).await?;
    let offer = v1::Offer {
        version: offering::VERSION,
        chain: chain.as_bytes().to_vec().into(),
        epoch: Some(convert::epoch_out(source.epoch)),
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    offering::say(&mut stream, &offer).await?;
    loop {
        let answer: v1::OfferAnswer = offering::hear(&mut stream).await?;
        match answer.body {
            Some(Body::Kept(_)) => {}
            Some(Body::Taken(_)) => return Ok(stream),
            Some(Body::Refused(refused)) => {
                return Err(OfferError::Refused {
                    reason: refused.reason(),
                    message: refused.message,
                });
            }
            None => return Err(OfferError::Malformed),
        }
    }
}

/// Host and port of `http://HOST:PORT`.
fn address(endpoint: &str) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let port = uri.port_u16()?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"))?;
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests;

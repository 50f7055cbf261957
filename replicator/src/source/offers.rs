//! Connections that targets dialled and offer, where nobody can dial their site: each is kept until a source has use for it.
//!
//! Whoever offers one says which chain it is for and with which epoch the source writes it. Nobody but that chain's target knows
//! this, and so nobody else is sent what is on a VM's disks.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use farshore_blocks::{ChainId, Epoch};
use farshore_proto::v1::{self, RefusalReason, offer_answer::Body};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
    time::{interval, timeout},
};

use crate::{
    convert::{self, Malformed},
    offering::{self, KEPT_INTERVAL, VERSION},
};

/// How many are kept for a chain: a target that lost one offers another before the loss of the first is noticed here.
const KEPT: usize = 2;

/// What may be offered to this replicator, and what has been; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offers {
    chains: Arc<Mutex<BTreeMap<ChainId, Chain>>>,
}

#[derive(Debug)]
struct Chain {
    epoch: Epoch,
    /// The oldest first.
    kept: VecDeque<Kept>,
    arrived: Arc<Notify>,
}

/// A connection that is kept: it is given to whom this is told.
type Kept = oneshot::Sender<oneshot::Sender<TcpStream>>;

/// Tells when it is.
type Asked = oneshot::Receiver<oneshot::Sender<TcpStream>>;

impl Offers {
    /// The target of this chain will offer connections, as the one who granted this epoch.
    pub(crate) fn expect(&self, chain: ChainId, epoch: Epoch) {
        let expected = Chain {
            epoch,
            kept: VecDeque::new(),
            arrived: Arc::new(Notify::new()),
        };
        let before = self.chains().insert(chain, expected);
        wake(before);
    }

    /// Nothing is taken from this chain's target any more.
    pub(crate) fn forget(&self, chain: ChainId) {
        let before = self.chains().remove(&chain);
        wake(before);
    }

    /// A connection to this chain's target, which it offered or offers within the limit.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn take(&self, chain: ChainId, limit: Duration) -> io::Result<TcpStream> {
        let taken = timeout(limit, async {
            loop {
                let Some((kept, arrived)) = self.newest(chain) else {
                    return Err(io::Error::other("nothing is to be offered for this chain"));
                };
                let Some(kept) = kept else {
                    arrived.notified().await;
                    continue;
                };
                let (give, given) = oneshot::channel();
                // One that broke meanwhile is not given.
                if kept.send(give).is_ok()
                    && let Ok(stream) = given.await
                {
                    return Ok(stream);
                }
            }
        });
        let missing = || {
            let why = format!("the target has offered no connection within {limit:?}");
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        taken.await.map_err(|_| missing())?
    }

    /// Hears an offer, and keeps the connection until it is taken, replaced or lost.
    pub(crate) async fn receive(&self, stream: TcpStream) {
        if let Err(error) = self.try_receive(stream).await {
            tracing::info!(%error, "an offered connection is closed");
        }
    }

    async fn try_receive(&self, mut stream: TcpStream) -> io::Result<()> {
        offering::hear_magic(&mut stream).await?;
        let offer: v1::Offer = offering::hear(&mut stream).await?;
        match self.admit(&offer) {
            Ok(asked) => keep(stream, asked).await,
            Err(refused) => {
                let v1::Refused { message, .. } = &refused;
                tracing::warn!(
                    reason = refused.reason().as_str_name(),
                    message,
                    "an offer was refused"
                );
                say(&mut stream, Body::Refused(refused)).await
            }
        }
    }

    fn admit(&self, offer: &v1::Offer) -> Result<Asked, v1::Refused> {
        if offer.version != VERSION {
            let why = format!(
                "offers of version {} are refused; accepted here: {VERSION}",
                offer.version
            );
            return Err(refused(RefusalReason::Version, why));
        }
        let chain = convert::chain_in(&offer.chain).map_err(|error| malformed(&error))?;
        let epoch = convert::epoch_in(offer.epoch.as_ref()).map_err(|error| malformed(&error))?;
        let mut chains = self.chains();
        let Some(expected) = chains.get_mut(&chain) else {
            let why = format!("no connection is wanted here for chain {chain}");
            return Err(refused(RefusalReason::UnknownChain, why));
        };
        if expected.epoch != epoch {
            let why = format!("chain {chain} is written here with another epoch than {epoch}");
            return Err(refused(RefusalReason::Fenced, why));
        }
        let (kept, asked) = oneshot::channel();
        expected.kept.push_back(kept);
        if expected.kept.len() > KEPT {
            expected.kept.pop_front();
        }
        expected.arrived.notify_one();
        Ok(asked)
    }

    /// The connection that was offered last: the others may be dead.
    fn newest(&self, chain: ChainId) -> Option<(Option<Kept>, Arc<Notify>)> {
        let mut chains = self.chains();
        let expected = chains.get_mut(&chain)?;
        Some((expected.kept.pop_back(), Arc::clone(&expected.arrived)))
    }

    fn chains(&self) -> MutexGuard<'_, BTreeMap<ChainId, Chain>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says now and then that the connection is kept, until it is asked for or lost.
async fn keep(mut stream: TcpStream, mut asked: Asked) -> io::Result<()> {
    let mut ticks = interval(KEPT_INTERVAL);
    let mut nothing = [0];
    loop {
        tokio::select! {
            biased;
            asked = &mut asked => {
                // A newer one has taken its place, or none is wanted any more.
                let Ok(give) = asked else { return Ok(()) };
                say(&mut stream, Body::Taken(v1::OfferTaken {})).await?;
                // Whoever asked may have gone meanwhile.
                let _ = give.send(stream);
                return Ok(());
            }
            spoken = stream.peek(&mut nothing) => {
                return match spoken? {
                    0 => Ok(()),
                    _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the target spoke before it was asked")),
                };
            }
            _ = ticks.tick() => say(&mut stream, Body::Kept(v1::OfferKept {})).await?,
        }
    }
}

async fn say(stream: &mut TcpStream, body: Body) -> io::Result<()> {
    offering::say(stream, &v1::OfferAnswer { body: Some(body) }).await
}

fn refused(reason: RefusalReason, message: String) -> v1::Refused {
    v1::Refused {
        reason: reason.into(),
        message,
        current_epoch: None,
    }
}

fn malformed(error: &Malformed) -> v1::Refused {
    refused(RefusalReason::Malformed, error.to_string())
}

/// Whoever waits for a connection looks anew.
fn wake(chain: Option<Chain>) {
    if let Some(chain) = chain {
        chain.arrived.notify_waiters();
    }
}

#[cfg(test)]
mod tests;

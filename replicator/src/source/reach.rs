//! How a source comes to a connection to its target: it dials, or takes one that the target dialled and offers.

use std::{fmt, io};

use farshore_blocks::ChainId;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Error};

use super::{link::CONNECT_LIMIT, offers::Offers};
use crate::{
    assignment::{Assignment, Dialler},
    wire,
};

/// What HTTP/2 calls a target that has no address here.
const OFFERING_TARGET: &str = "http://target";

/// Of one chain's target; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    /// The source dials this endpoint.
    Dial(String),
    /// The target dials.
    Take(Offers, ChainId),
}

impl Reach {
    /// As the assignment says.
    pub(crate) fn of(assignment: &Assignment, offers: &Offers) -> Self {
        match assignment.dialler() {
            Dialler::Source => Self::Dial(assignment.target_endpoint.clone()),
            Dialler::Target => Self::Take(offers.clone(), assignment.chain),
        }
    }

    /// A connection.
    ///
    /// # Errors
    /// When there is none within [`CONNECT_LIMIT`].
    pub(crate) async fn connect(&self) -> Result<Channel, Error> {
        match self {
            Self::Dial(endpoint) => dialling(endpoint)?.connect().await,
            Self::Take(offers, chain) => {
                let connector = taking(offers.clone(), *chain);
                offered().connect_with_connector(connector).await
            }
        }
    }

    /// A connection that is made when it is needed, and made anew when it broke.
    ///
    /// # Errors
    /// When the target's address cannot be one.
    pub(crate) fn connect_when_needed(&self) -> Result<Channel, Error> {
        match self {
            Self::Dial(endpoint) => Ok(dialling(endpoint)?.connect_lazy()),
            Self::Take(offers, chain) => {
                let connector = taking(offers.clone(), *chain);
                Ok(offered().connect_with_connector_lazy(connector))
            }
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(endpoint) => out.write_str(endpoint),
            Self::Take(..) => out.write_str("that dials this site"),
        }
    }
}

fn dialling(endpoint: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
    Ok(wire::client_endpoint(endpoint).connect_timeout(CONNECT_LIMIT))
}

fn offered() -> Endpoint {
    wire::client_endpoint(Endpoint::from_static(OFFERING_TARGET))
}

/// What gives tonic a connection that was offered, whatever it wants to dial.
fn taking<Dialled>(
    offers: Offers,
    chain: ChainId,
) -> impl tower::Service<Dialled, Response = TokioIo<tokio::net::TcpStream>, Error = io::Error, Future: Send>
+ Send
+ 'static {
    tower::service_fn(move |_: Dialled| {
        let offers = offers.clone();
        async move { offers.take(chain, CONNECT_LIMIT).await.map(TokioIo::new) }
    })
}

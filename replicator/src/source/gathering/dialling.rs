//! How a replicator that leads is reached by the others of its site.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use farshore_proto::v1::gathering_client::GatheringClient;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use super::messages::{self, FromLeader, FromMember, Numbered};
use crate::{
    configuration::{Plaintext, is_loopback},
    source::delivery::chain,
    wire,
};

/// A member says one thing at a time.
const OUTGOING_MESSAGES: usize = 8;
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// A stream to where a group gathers.
pub(super) struct Line {
    pub(super) outgoing: mpsc::Sender<Numbered<FromMember>>,
    pub(super) incoming: Pin<Box<dyn Stream<Item = Result<Numbered<FromLeader>, String>> + Send>>,
}

/// A line, or why there is none.
pub(super) type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Line, String>> + Send + 'a>>;

/// What makes lines. Tests have one without a network.
pub(super) trait Dial: fmt::Debug + Send + Sync {
    fn dial<'a>(&'a self, endpoint: &'a str) -> Dialling<'a>;
}

/// By gRPC.
#[derive(Debug, Clone, Copy)]
pub(super) struct GrpcDial {
    pub(super) plaintext: Plaintext,
}

impl Dial for GrpcDial {
    fn dial<'a>(&'a self, endpoint: &'a str) -> Dialling<'a> {
        Box::pin(async move {
            if self.plaintext == Plaintext::LoopbackOnly && !is_loopback(endpoint) {
                return Err(format!(
                    "{endpoint} is beyond loopback and traffic is not encrypted: say `insecure: true` in this replicator's \
                     configuration if that is what you want"
                ));
            }
            let endpoint = Endpoint::from_shared(endpoint.to_owned()).map_err(|error| chain(&error))?;
            let channel = wire::client_endpoint(endpoint)
                .connect_timeout(DIAL_LIMIT)
                .connect()
                .await
                .map_err(|error| chain(&error))?;
            let (outgoing, messages) = mpsc::channel(OUTGOING_MESSAGES);
            let messages = ReceiverStream::new(messages).map(messages::member_out);
            let answers = GatheringClient::new(channel)
                .attend(messages)
                .await
                .map_err(|status| status.message().to_owned())?;
            let incoming = answers.into_inner().map(|message| {
                let message = message.map_err(|status| status.message().to_owned())?;
                messages::leader_in(message).map_err(|malformed| malformed.to_string())
            });
            Ok(Line {
                outgoing,
                incoming: Box::pin(incoming),
            })
        })
    }
}

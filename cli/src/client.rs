//! The connection to the orchestrator: where it is, how long it is waited for, and what its errors mean here.

use std::{env, future::Future, time::Duration};

use clap::Args;
use farshore_proto::v1::{
    declarations_client::DeclarationsClient, failovers_client::FailoversClient, jobs_client::JobsClient,
    protection_client::ProtectionClient,
};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::exit::CliError;

const SERVER_VARIABLE: &str = "FARSHORE_SERVER";
const DEFAULT_SERVER: &str = "http://127.0.0.1:7100";
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long one request may take where `--timeout` does not say otherwise.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a verb waits for an outcome (`--wait`, `job watch`) where `--timeout` does not say otherwise.
const OUTCOME_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// The orchestrator gets this much more than the client waits, so that it is the client who speaks of time.
const SERVER_GRACE: Duration = Duration::from_secs(1);
/// A peer that is gone without a word is noticed within the sum of these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of points or events may be larger than the 4 MiB that are usual.
const LARGEST_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where the orchestrator is and how long to wait for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerOptions {
    /// Where the orchestrator listens (default: FARSHORE_SERVER of the environment, else http://127.0.0.1:7100)
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// How long the verb may take, like 30s or 2h (default: 30s for an answer, 24h with --wait)
    #[arg(long, global = true, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
}

impl ServerOptions {
    /// An orchestrator whose address is known.
    pub(crate) fn at(server: String) -> Self {
        Self {
            server: Some(server),
            timeout: None,
        }
    }

    /// Where the orchestrator is: as ordered, as the environment says, or on this machine.
    fn server(&self) -> String {
        let ordered = self.server.clone().or_else(|| env::var(SERVER_VARIABLE).ok());
        ordered.unwrap_or_else(|| DEFAULT_SERVER.to_owned())
    }

    /// How long one request may take.
    pub(crate) fn call_limit(&self) -> Duration {
        self.timeout.unwrap_or(CALL_LIMIT)
    }

    /// How long an outcome is waited for.
    pub(crate) fn outcome_limit(&self) -> Duration {
        self.timeout.unwrap_or(OUTCOME_LIMIT)
    }
}

/// A connection to the orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    server: String,
    options: ServerOptions,
    channel: Channel,
}

impl Client {
    /// Connects, or says why that cannot be.
    pub(crate) async fn connect(options: &ServerOptions) -> Result<Self, CliError> {
        let server = options.server();
        let endpoint = Endpoint::from_shared(server.clone())
            .ok()
            .filter(|endpoint| endpoint.uri().scheme_str() == Some("http"))
            .ok_or_else(|| {
                CliError::Usage(format!(
                    "`{server}` is not the address of an orchestrator; one like http://127.0.0.1:7100 is accepted"
                ))
            })?;
        let endpoint = endpoint
            .user_agent(concat!("farshore/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| CliError::Usage(error.to_string()))?
            .connect_timeout(CONNECT_LIMIT.min(options.call_limit()))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| CliError::Unreachable {
            server: server.clone(),
            why: innermost(&error),
        })?;
        Ok(Self {
            server,
            options: options.clone(),
            channel,
        })
    }

    /// How long an outcome is waited for.
    pub(crate) fn outcome_limit(&self) -> Duration {
        self.options.outcome_limit()
    }

    /// What is declared.
    pub(crate) fn declarations(&self) -> DeclarationsClient<Channel> {
        DeclarationsClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER_BYTES)
    }

    /// What is observed of protection.
    pub(crate) fn protection(&self) -> ProtectionClient<Channel> {
        ProtectionClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER_BYTES)
    }

    /// Failovers and their tests.
    pub(crate) fn failovers(&self) -> FailoversClient<Channel> {
        FailoversClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER_BYTES)
    }

    /// Jobs.
    pub(crate) fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER_BYTES)
    }

    /// A request with the deadline that the server shall honour.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.options.call_limit().saturating_add(SERVER_GRACE));
        request
    }

    /// Awaits one answer within the limit; `what` names it in errors.
    pub(crate) async fn answer<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        let limit = self.options.call_limit();
        let outcome = timeout(limit, call).await;
        let outcome = outcome.map_err(|_| CliError::TimedOut {
            what: what.to_owned(),
            limit,
        })?;
        outcome
            .map(Response::into_inner)
            .map_err(|status| self.error(what, &status))
    }

    /// What a status of the server means.
    pub(crate) fn error(&self, what: &str, status: &Status) -> CliError {
        CliError::from_status(&self.server, what, self.options.call_limit(), status)
    }
}

/// A key under which the orchestrator does a thing once, however often it is asked.
pub(crate) fn idempotency_key() -> String {
    Uuid::new_v4().to_string()
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

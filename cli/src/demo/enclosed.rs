//! Talking to a guest from inside a network namespace: this executable is started in it for one HTTP exchange.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use farshore_guest::{
    HostTool,
    probe::{Exchange, GUEST_PATIENCE, exchange as http_exchange},
    status::Status,
};
use tokio::process::Command;

use crate::{exit::CliError, output};

/// A guest that probes for another needs this long before it can say that nobody answered.
const PROBE_PATIENCE: Duration = GUEST_PATIENCE.saturating_mul(4);

/// One HTTP exchange.
#[derive(Debug, Args)]
pub(crate) struct ExchangeArguments {
    /// With whom
    to: SocketAddr,
    /// For what
    path: String,
    /// Patience in milliseconds
    patience_milliseconds: u64,
}

/// Makes the exchange from wherever this process is, and prints it as JSON.
pub(crate) fn run(arguments: &ExchangeArguments) -> Result<(), CliError> {
    let patience = Duration::from_millis(arguments.patience_milliseconds);
    output::answer(&output::json_line(&http_exchange(
        arguments.to,
        &arguments.path,
        patience,
    ))?)
}

/// Whether a guest reached somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reached {
    /// This much was received from them.
    Answered { bytes: u64 },
    /// Nothing was received; why.
    Nothing { why: String },
}

/// What a guest says of itself, asked from inside `namespace`; nothing if it does not answer.
pub(super) async fn status(namespace: &str, guest: SocketAddr) -> anyhow::Result<Option<Status>> {
    let answer = within(namespace, guest, "/status", GUEST_PATIENCE).await?;
    Ok(serde_json::from_str(&answer.text).ok())
}

/// Lets the guest, which is asked from inside `namespace`, try to reach `to`.
pub(super) async fn probe(namespace: &str, guest: SocketAddr, to: SocketAddr) -> anyhow::Result<Reached> {
    let answer = within(namespace, guest, &format!("/probe?to={to}"), PROBE_PATIENCE).await?;
    let probed: Exchange = serde_json::from_str(&answer.text).with_context(|| {
        format!(
            "{guest} was asked to reach {to} and did not say how that went: {}",
            answer.text
        )
    })?;
    if probed.received > 0 {
        return Ok(Reached::Answered {
            bytes: probed.received,
        });
    }
    Ok(Reached::Nothing { why: probed.text })
}

async fn within(namespace: &str, to: SocketAddr, path: &str, patience: Duration) -> anyhow::Result<Exchange> {
    let executable = std::env::current_exe().context("this executable has no path")?;
    let output = Command::new(HostTool::Nsenter.find()?)
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .arg(executable)
        .args([
            "demo-exchange",
            &to.to_string(),
            path,
            &patience.as_millis().to_string(),
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run nsenter")?;
    if !output.status.success() {
        bail!(
            "no exchange in {namespace}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("an exchange in {namespace} gave no answer"))
}

//! The data plane's shell: sessions, cycles, the vault service, recovered VMs and metrics.
//!
//! Start reading at [`run`]; `source` is the side that captures and ships, `target` the side that owns a vault,
//! `recovery` the recovered VMs, `fleet` the stream to the orchestrator.

mod assignment;
mod chain_files;
mod configuration;
mod convert;
pub mod fence_request;
mod fleet;
mod http;
mod listening;
mod metrics;
mod offering;
mod pauses;
pub mod recovery;
mod source;
mod sources;
mod target;
mod wire;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use farshore_vault::{Opened, Vault, VaultError};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

pub use chain_files::ChainFileError;
pub use configuration::{BytesPerSecond, ConfigurationError, ReplicatorConfiguration, VaultUpkeep};

use fleet::Member;
use listening::Port;
use metrics::Metrics;
use recovery::Recovery;
use source::{Groups, Offers, Own, serve_gathering};
use sources::{Peers, Sources};
use target::{Targets, Upkeep};

/// Where a replicator that started can be reached.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// For replicators of other sites, if they may dial it.
    pub replication: Option<SocketAddr>,
    /// For Prometheus.
    pub http: SocketAddr,
}

/// Runs a replicator until `stop` is cancelled; says through `ready` where it listens. `executable` is the
/// `farshore` binary, which is started again for exports.
///
/// # Errors
/// When something that it needs at its start cannot be had. Later troubles are retried and reported.
pub async fn run(
    configuration: ReplicatorConfiguration,
    executable: PathBuf,
    ready: oneshot::Sender<Listening>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Metrics::new().context("metrics cannot be registered")?;
    let http = TcpListener::bind(configuration.http_listen)
        .await
        .with_context(|| format!("cannot listen on {}", configuration.http_listen))?;
    let http_address = http.local_addr()?;
    let targets = open_targets(&configuration)?;
    let recovery = open_recovery(&configuration, executable.clone())?;
    if let Some(recovery) = &recovery {
        recovery.keep_exports().await?;
    }
    let keeping = recovery
        .clone()
        .map(|recovery| tokio::spawn(recovery.go_on_keeping_exports(stop.clone())));
    let groups = groups_of(&configuration);
    let (gathering, site_address) = listen(configuration.site_listen).await?.unzip();
    let gathering =
        gathering.map(|listener| tokio::spawn(serve_gathering(listener, groups.clone(), stop.clone())));
    let offers = Offers::default();
    let peers = Peers {
        plaintext: configuration.plaintext(),
        offers: offers.clone(),
        groups,
    };
    let sources = open_sources(&configuration, executable, &metrics, peers).await?;
    let port = Port::open(&configuration, targets.as_ref(), offers, &stop).await?;
    let address = port.address;
    let fencing = targets
        .clone()
        .map(|targets| tokio::spawn(target::answer_fence_requests(targets, stop.clone())));
    let upkeep = start_upkeep(&configuration, targets.as_ref(), &metrics)?;
    let member = Member {
        name: configuration.name.clone(),
        site: configuration.site.clone(),
        instance: uuid::Uuid::now_v7().to_string(),
        orchestrator: configuration.orchestrator.clone(),
        replication_endpoint: dialled(configuration.advertise.as_ref(), address),
        site_endpoint: dialled(configuration.site_advertise.as_ref(), site_address),
        sources: sources.clone(),
        targets,
        dialling: port.dialling.clone(),
        recovery,
        own_directories: configuration.own_directories(),
    };
    let attached = tokio::spawn(fleet::stay_attached(member, stop.clone()));
    let scraped = tokio::spawn(http::serve(http, metrics, stop.clone()));
    // Nobody may want to know.
    let _ = ready.send(Listening {
        replication: address,
        http: http_address,
    });
    stop.cancelled().await;
    if let Some(upkeep) = upkeep {
        upkeep.stop().await;
    }
    if let Some(sources) = &sources {
        sources.shut_down().await;
    }
    attached.await?;
    port.closed().await?;
    if let Some(gathering) = gathering {
        gathering.await??;
    }
    for task in [fencing, keeping].into_iter().flatten() {
        task.await?;
    }
    scraped.await??;
    Ok(())
}

async fn listen(address: Option<SocketAddr>) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok(Some((listener, address)))
}

/// What others dial to reach what listens at `address`; empty if nothing does.
fn dialled(advertised: Option<&String>, address: Option<SocketAddr>) -> String {
    let listening = || address.map(|address| format!("http://{address}"));
    advertised.cloned().or_else(listening).unwrap_or_default()
}

fn groups_of(configuration: &ReplicatorConfiguration) -> Groups {
    let own = Own {
        name: configuration.name.clone(),
        site: configuration.site.clone(),
    };
    Groups::new(own, configuration.plaintext())
}

fn start_upkeep(
    configuration: &ReplicatorConfiguration,
    targets: Option<&Targets>,
    metrics: &Metrics,
) -> anyhow::Result<Option<Upkeep>> {
    let rates = configuration.vault_upkeep.unwrap_or_default();
    let started = targets.map(|targets| Upkeep::start(targets.clone(), rates, metrics.vault().clone()));
    Ok(started.transpose()?)
}

fn open_targets(configuration: &ReplicatorConfiguration) -> anyhow::Result<Option<Targets>> {
    let Some(directory) = &configuration.vault_directory else {
        return Ok(None);
    };
    let vault = match Vault::open(directory) {
        Err(VaultError::NotAVault { .. }) => Vault::create(directory),
        opened => opened,
    };
    let vault = vault.with_context(|| format!("the vault {} cannot be opened", directory.display()))?;
    if let Opened::AsACopy { of } = vault.opened() {
        tracing::warn!(
            vault = %directory.display(),
            incarnation = %vault.incarnation(),
            copy_of = %of,
            "this vault is a copy and took a new incarnation: every source will compare its disks anew"
        );
    }
    Ok(Some(Targets::open(vault, &configuration.state_directory)?))
}

async fn open_sources(
    configuration: &ReplicatorConfiguration,
    executable: PathBuf,
    metrics: &Metrics,
    peers: Peers,
) -> anyhow::Result<Option<Sources>> {
    let Some(scratch) = &configuration.scratch_directory else {
        return Ok(None);
    };
    let places = (scratch.clone(), executable);
    let state = &configuration.state_directory;
    let sources = Sources::open(state, places, peers, metrics.clone()).await?;
    Ok(Some(sources))
}

fn open_recovery(
    configuration: &ReplicatorConfiguration,
    executable: PathBuf,
) -> anyhow::Result<Option<Recovery>> {
    let Some(directory) = &configuration.recovery_directory else {
        return Ok(None);
    };
    Ok(Some(Recovery::open(
        directory,
        executable,
        configuration.accelerator,
    )?))
}

//! What the control plane needs of its fleet: to order and to see. The fleet is one implementation; tests have
//! a scripted one.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use farshore_blocks::ChainId;
use farshore_domain::declaration::ProtectedVm;
use farshore_proto::v1::{self, command, command_result};
use tokio::sync::watch;

use crate::{
    fleet::{Fleet, FleetError, FleetView, ReplicatorView},
    records::VmRecord,
};

/// A command under way.
pub type Commanding<'a> =
    Pin<Box<dyn Future<Output = Result<command_result::Outcome, FleetError>> + Send + 'a>>;

/// For what a site's replicator is asked: there may be several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// For what is in the site's vault, which one of them has.
    Vault,
    /// For a VM that runs there: the one of this name, or else the only one that captures.
    Source(Option<String>),
}

/// A command to a replicator of a site.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whose replicator.
    pub site: String,
    /// Which of them.
    pub duty: Duty,
    /// The same identifier gets the same result.
    pub id: String,
    /// What it is to do.
    pub body: command::Body,
    /// How long to wait for the replicator and its answer.
    pub deadline: Duration,
}

/// The replicators of all sites.
pub trait Replicators: Send + Sync + 'static {
    /// Has a command carried out, at least once.
    fn command(&self, order: Order) -> Commanding<'_>;

    /// What they report.
    fn reports(&self) -> watch::Receiver<Arc<FleetView>>;
}

impl Replicators for Fleet {
    fn command(&self, order: Order) -> Commanding<'_> {
        Box::pin(async move {
            let Order {
                site,
                duty,
                id,
                body,
                deadline,
            } = order;
            Fleet::command(self, (&site, duty), id, body, deadline).await
        })
    }

    fn reports(&self) -> watch::Receiver<Arc<FleetView>> {
        self.views()
    }
}

/// The replicators of a site, those that are attached and were seen last first.
fn of_site<'a>(view: &'a FleetView, site: &str) -> Vec<&'a ReplicatorView> {
    let mut found: Vec<_> = view
        .replicators
        .values()
        .filter(|replicator| replicator.register.site == site)
        .collect();
    found.sort_by_key(|replicator| std::cmp::Reverse((replicator.up, replicator.last_seen)));
    found
}

/// Where sources dial the vault of this site, if a replicator with one that can be dialled was ever seen there.
#[must_use]
pub fn vault_endpoint(view: &FleetView, site: &str) -> Option<String> {
    of_site(view, site)
        .into_iter()
        .filter(|replicator| has_vault(replicator))
        .find_map(dialled)
}

/// Where targets dial the sources of this replicator, if it can be dialled.
#[must_use]
pub fn endpoint_of(view: &FleetView, name: &str) -> Option<String> {
    dialled(view.replicators.get(name)?)
}

fn dialled(replicator: &ReplicatorView) -> Option<String> {
    Some(replicator.register.replication_endpoint.clone()).filter(|endpoint| !endpoint.is_empty())
}

fn has_vault(replicator: &ReplicatorView) -> bool {
    !replicator.register.vault_incarnation.is_empty()
}

/// Whether the replicator with the vault of this site is attached; as long as none was seen, whether any is.
#[must_use]
pub fn has_vault_attached(view: &FleetView, site: &str) -> bool {
    let of_site = of_site(view, site);
    let with_vault: Vec<_> = of_site
        .iter()
        .filter(|replicator| has_vault(replicator))
        .collect();
    match with_vault.is_empty() {
        true => of_site.iter().any(|replicator| replicator.up),
        false => with_vault.iter().any(|replicator| replicator.up),
    }
}

/// The name of the replicator that replicates this VM: the one that reports it, or else the one that is written down or declared.
/// Absent where there is neither.
#[must_use]
pub fn source_replicator(view: &FleetView, declared: &ProtectedVm, vm: &VmRecord) -> Option<String> {
    let reports = source_status(view, declared.source().site.as_str(), vm.chain);
    let reporting = reports.map(|(replicator, _)| replicator.register.name.clone());
    let declared = || declared.source().replicator.as_ref().map(ToString::to_string);
    reporting
        .or_else(|| vm.source_replicator.clone())
        .or_else(declared)
}

/// The name of the one attached replicator of this site that can be a source; absent if there is none, or more.
#[must_use]
pub fn only_capturing(view: &FleetView, site: &str) -> Option<String> {
    let mut capturing = of_site(view, site)
        .into_iter()
        .filter(|replicator| replicator.up && replicator.register.captures != Some(false));
    let first = capturing.next()?;
    match capturing.next() {
        None => Some(first.register.name.clone()),
        Some(_) => None,
    }
}

/// Whether the replicator that replicates this VM is attached; as long as it is open which one that is, whether any of its site is.
#[must_use]
pub fn has_source_attached(view: &FleetView, declared: &ProtectedVm, vm: &VmRecord) -> bool {
    match source_replicator(view, declared, vm) {
        Some(name) => view
            .replicators
            .get(&name)
            .is_some_and(|replicator| replicator.up),
        None => of_site(view, declared.source().site.as_str())
            .iter()
            .any(|replicator| replicator.up),
    }
}

/// What the site's replicator last said of the chain as its source.
#[must_use]
pub fn source_status<'a>(
    view: &'a FleetView,
    site: &str,
    chain: ChainId,
) -> Option<(&'a ReplicatorView, &'a v1::SourceStatus)> {
    of_site(view, site).into_iter().find_map(|replicator| {
        let report = replicator.report.as_ref()?;
        let status = report
            .sources
            .iter()
            .find(|status| status.chain.as_ref() == chain.as_bytes())?;
        Some((replicator, status))
    })
}

/// What the site's replicator last said of the chain as its target.
#[must_use]
pub fn target_status<'a>(
    view: &'a FleetView,
    site: &str,
    chain: ChainId,
) -> Option<(&'a ReplicatorView, &'a v1::TargetStatus)> {
    of_site(view, site).into_iter().find_map(|replicator| {
        let report = replicator.report.as_ref()?;
        let status = report
            .targets
            .iter()
            .find(|status| status.chain.as_ref() == chain.as_bytes())?;
        Some((replicator, status))
    })
}

/// What the site's replicator last said of a recovered VM.
#[must_use]
pub fn recovered_condition(view: &FleetView, site: &str, recovery: &str) -> Option<v1::RecoveredVmCondition> {
    of_site(view, site).into_iter().find_map(|replicator| {
        let report = replicator.report.as_ref()?;
        let status = report
            .recovered
            .iter()
            .find(|status| status.recovery_id == recovery)?;
        Some(status.condition())
    })
}

#[cfg(test)]
pub(crate) mod scripted;

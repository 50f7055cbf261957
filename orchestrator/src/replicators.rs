//! What the control plane needs of its fleet: to order and to see. The fleet is one implementation; tests have
//! a scripted one.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use farshore_blocks::ChainId;
use farshore_proto::v1::{self, command, command_result};
use tokio::sync::watch;

use crate::fleet::{Fleet, FleetError, FleetView, ReplicatorView};

/// A command under way.
pub type Commanding<'a> =
    Pin<Box<dyn Future<Output = Result<command_result::Outcome, FleetError>> + Send + 'a>>;

/// A command to the replicator of a site.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whose replicator.
    pub site: String,
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
                id,
                body,
                deadline,
            } = order;
            Fleet::command(self, &site, id, body, deadline).await
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

/// Where sources dial the vault of this site, if a replicator with one was ever seen there.
#[must_use]
pub fn replication_endpoint(view: &FleetView, site: &str) -> Option<String> {
    of_site(view, site)
        .into_iter()
        .map(|replicator| &replicator.register.replication_endpoint)
        .find(|endpoint| !endpoint.is_empty())
        .cloned()
}

/// Whether a replicator of this site is attached.
#[must_use]
pub fn is_attached(view: &FleetView, site: &str) -> bool {
    of_site(view, site).iter().any(|replicator| replicator.up)
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

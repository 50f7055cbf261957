//! A VM that runs from a vault, and how it is reached, as shown.

use std::path::Path;

use farshore_provider::NetworkAttachment;
use farshore_replicator::recovery::Recovered;
use serde::Serialize;

use super::{fence::FencedBy, record::FailoverRecord};
use crate::output::{format, table::sheet};

/// A VM that runs from a recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailoverView {
    vm: String,
    chain: String,
    recovery_id: String,
    point: u64,
    /// By the source's clock.
    captured_at: String,
    /// Whoever has an older one is refused.
    epoch: u64,
    fenced_by: FencedBy,
    pid: u32,
    monitor: String,
    console: String,
    /// `null`: it is in a network of its own.
    bridge: Option<String>,
    /// `null`: it is on a bridge.
    namespace: Option<String>,
    /// Empty: isolated, or on a bridge.
    ways_out: Vec<String>,
    order_to_running_seconds: f64,
}

/// What is shown beside what is written down.
pub(super) struct Running<'a> {
    pub(super) recovered: &'a Recovered,
    pub(super) captured_at: String,
    pub(super) fenced_by: FencedBy,
    pub(super) console: &'a Path,
}

impl FailoverView {
    /// Of a failover that has its tenure.
    pub(super) fn of(record: &FailoverRecord, running: Running<'_>) -> Self {
        let vm = &running.recovered.vm;
        let tenure = record.tenure.as_ref();
        let bridge = tenure.and_then(|tenure| match &tenure.network {
            NetworkAttachment::Bridge { bridge } => Some(bridge.clone()),
            NetworkAttachment::Bubble { .. } => None,
        });
        let isolation = running.recovered.isolation.as_ref();
        Self {
            vm: record.vm.clone(),
            chain: record.chain.to_string(),
            recovery_id: vm.id.to_string(),
            point: tenure.map_or(0, |tenure| tenure.sequence.0),
            captured_at: running.captured_at,
            epoch: tenure.map_or(0, |tenure| tenure.epoch.number),
            fenced_by: running.fenced_by,
            pid: vm.pid,
            monitor: vm.monitor.display().to_string(),
            console: running.console.display().to_string(),
            bridge,
            namespace: vm.namespace.clone(),
            ways_out: isolation.map(|proof| proof.ways_out.clone()).unwrap_or_default(),
            order_to_running_seconds: running.recovered.order_to_running.as_secs_f64(),
        }
    }

    pub(super) fn as_text(&self) -> String {
        let fenced = match self.fenced_by {
            FencedBy::ThisCommand => "written by this command",
            FencedBy::Holder => "written by the process that has the vault open",
            FencedBy::EarlierRun => "written by an earlier run",
        };
        let network = match (&self.bridge, &self.namespace) {
            (Some(bridge), _) => format!("bridge {bridge}"),
            (None, Some(namespace)) if self.ways_out.is_empty() => {
                format!("isolated, in namespace {namespace}")
            }
            (None, Some(namespace)) => {
                format!(
                    "namespace {namespace}, NOT isolated: {}",
                    self.ways_out.join(", ")
                )
            }
            (None, None) => format::NOTHING.to_owned(),
        };
        sheet(vec![
            ("vm", format!("{} (chain {})", self.vm, self.chain)),
            ("point", format!("{}, captured {}", self.point, self.captured_at)),
            (
                "epoch",
                format!("{}, {fenced}: the old source is refused", self.epoch),
            ),
            ("running", format!("process {}", self.pid)),
            ("started in", format::seconds(self.order_to_running_seconds)),
            ("network", network),
            ("monitor (QMP)", self.monitor.clone()),
            ("console", self.console.clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use farshore_blocks::{ChainId, Epoch, HolderNonce, Sequence};
    use farshore_provider::{IsolationProof, RecoveredVm, RecoveryId};

    use super::*;
    use crate::vault::failover::record::Tenure;

    fn view(network: NetworkAttachment, ways_out: Option<Vec<String>>) -> FailoverView {
        let holder = HolderNonce::from_bytes([2; 16]);
        let record = FailoverRecord {
            vault: "/v".into(),
            chain: ChainId::from_bytes([1; 16]),
            vm: "db".to_owned(),
            holder,
            tenure: Some(Tenure {
                epoch: Epoch { number: 3, holder },
                sequence: Sequence(42),
                network,
            }),
        };
        let namespace = "fs-db-01010101".to_owned();
        let isolation = ways_out.map(|ways_out| IsolationProof {
            namespace: namespace.clone(),
            interfaces: Vec::new(),
            ways_out,
        });
        let recovered = Recovered {
            vm: RecoveredVm {
                id: RecoveryId::new("db-01010101").unwrap(),
                pid: 77,
                monitor: "/f/monitor.sock".into(),
                namespace: isolation.is_some().then_some(namespace),
            },
            isolation,
            order_to_running: Duration::from_millis(300),
        };
        let running = Running {
            recovered: &recovered,
            captured_at: "2026-01-31T03:00:00.000Z".to_owned(),
            fenced_by: FencedBy::Holder,
            console: Path::new("/f/console.log"),
        };
        FailoverView::of(&record, running)
    }

    #[test]
    fn it_says_what_runs_from_where_and_how_it_is_reached() {
        let bridge = NetworkAttachment::Bridge {
            bridge: "br0".to_owned(),
        };
        let text = view(bridge, None).as_text();
        for expected in [
            "42, captured 2026-01-31T03:00:00.000Z",
            "3, written by the process that has the vault open: the old source is refused",
            "process 77",
            "bridge br0",
            "/f/monitor.sock",
            "/f/console.log",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn a_network_that_leads_somewhere_is_not_called_isolated() {
        let bubble = || NetworkAttachment::Bubble {
            name: RecoveryId::new("db-01010101").unwrap(),
        };
        let text = view(bubble(), Some(Vec::new())).as_text();
        assert!(text.contains("isolated, in namespace fs-db-01010101"), "{text}");
        let text = view(bubble(), Some(vec!["eth0".to_owned()])).as_text();
        assert!(text.contains("NOT isolated: eth0"), "{text}");
    }
}

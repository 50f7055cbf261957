//! A replicator, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, time};
use crate::output::format;

/// A node process at a site.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplicatorView {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) up: bool,
    pub(crate) software_version: String,
    pub(crate) last_seen: Option<String>,
    /// `null`: it has no vault.
    pub(crate) replication_endpoint: Option<String>,
    pub(crate) vault: Option<VaultView>,
}

/// Its vault's room.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VaultView {
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
}

impl From<v1::Replicator> for ReplicatorView {
    fn from(replicator: v1::Replicator) -> Self {
        Self {
            name: replicator.name,
            site: replicator.site,
            up: replicator.up,
            software_version: replicator.software_version,
            last_seen: time(replicator.last_seen),
            replication_endpoint: Some(replicator.replication_endpoint)
                .filter(|endpoint| !endpoint.is_empty()),
            vault: replicator.vault.map(|vault| VaultView {
                used_bytes: vault.used_bytes,
                free_bytes: vault.free_bytes,
            }),
        }
    }
}

impl Listed for ReplicatorView {
    const HEADINGS: &'static [&'static str] =
        &["name", "site", "up", "last seen", "vault used", "vault free"];
    const WIDE_HEADINGS: &'static [&'static str] = &["endpoint", "version"];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: WallTime) -> Vec<String> {
        let room = |part: fn(&VaultView) -> u64| {
            self.vault
                .as_ref()
                .map_or_else(|| format::NOTHING.to_owned(), |vault| format::size(part(vault)))
        };
        vec![
            self.name.clone(),
            self.site.clone(),
            if self.up { "yes" } else { "no" }.to_owned(),
            format::age(self.last_seen.as_deref(), now),
            room(|vault| vault.used_bytes),
            room(|vault| vault.free_bytes),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            format::or_nothing(self.replication_endpoint.as_deref().unwrap_or_default()),
            self.software_version.clone(),
        ]
    }
}

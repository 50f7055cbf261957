//! A site, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::Listed;
use crate::output::format::or_nothing;

/// A place where VMs run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SiteView {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) networks: Vec<NetworkView>,
}

/// A network that recovered VMs may be plugged into.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkView {
    pub(crate) name: String,
    pub(crate) bridge: String,
}

impl From<v1::Site> for SiteView {
    fn from(site: v1::Site) -> Self {
        let networks = site.networks.into_iter();
        Self {
            name: site.name,
            provider: site.provider,
            networks: networks
                .map(|network| NetworkView {
                    name: network.name,
                    bridge: network.bridge,
                })
                .collect(),
        }
    }
}

impl Listed for SiteView {
    const HEADINGS: &'static [&'static str] = &["name", "provider", "networks"];
    const WIDE_HEADINGS: &'static [&'static str] = &["bridges"];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now: WallTime) -> Vec<String> {
        let names: Vec<&str> = self
            .networks
            .iter()
            .map(|network| network.name.as_str())
            .collect();
        vec![
            self.name.clone(),
            self.provider.clone(),
            or_nothing(&names.join(",")),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        let bridges: Vec<&str> = self
            .networks
            .iter()
            .map(|network| network.bridge.as_str())
            .collect();
        vec![or_nothing(&bridges.join(","))]
    }
}

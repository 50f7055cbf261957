//! A site: a place where VMs run, by which provider, and the networks that recovered VMs may be plugged into.

use serde::Serialize;

use super::{
    cursor::Cursor,
    fields::Fields,
    problems::Problems,
    text::{BridgeName, Name},
};

const MAX_NETWORKS: usize = 256;

/// A declared site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    #[serde(skip)]
    name: Name,
    provider: Provider,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Network>,
}

/// What runs a site's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    /// QEMU processes on the site's hosts.
    Qemu,
}

/// A network of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// What VMs call it; unique in the site.
    pub name: Name,
    /// The bridge of the site's hosts.
    pub bridge: BridgeName,
}

impl Site {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What runs its VMs.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Its networks, in the order of the document.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The network of this name.
    #[must_use]
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == *name)
    }

    pub(super) fn read(name: Option<Name>, spec: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(spec, &["provider", "networks"], problems)?;
        let provider = fields.required("provider", problems, |provider, problems| {
            provider.choice("a provider", &[("qemu", Provider::Qemu)], problems)
        });
        let networks = fields.optional("networks", problems, |networks, problems| {
            let read = networks.list(MAX_NETWORKS, problems, Network::read)?;
            let names = read.iter().map(|network| network.name.as_str());
            networks.refuse_repeated("name", names, problems)?;
            Some(read)
        });
        Some(Self {
            name: name?,
            provider: provider?,
            networks: networks?.unwrap_or_default(),
        })
    }
}

impl Provider {
    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
        }
    }
}

impl Network {
    fn read(network: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(network, &["name", "bridge"], problems)?;
        let name = fields.required("name", problems, Cursor::parsed);
        let bridge = fields.required("bridge", problems, Cursor::parsed);
        Some(Self {
            name: name?,
            bridge: bridge?,
        })
    }
}

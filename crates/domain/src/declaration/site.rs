//! A site: a place where VMs run, by which provider, the networks that recovered VMs may be plugged into, and its links to
//! other sites.

use serde::Serialize;

use super::{
    cursor::Cursor,
    fields::Fields,
    link::Link,
    problems::Problems,
    text::{BridgeName, Name},
};

const MAX_NETWORKS: usize = 256;
const MAX_LINKS: usize = 256;

/// A declared site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    #[serde(skip)]
    name: Name,
    provider: Provider,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Network>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
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

    /// Its limited links, in the order of the document.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The link to this site, if it is limited.
    #[must_use]
    pub fn link(&self, to: &Name) -> Option<&Link> {
        self.links.iter().find(|link| link.to() == to)
    }

    pub(super) fn read(name: Option<Name>, spec: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(spec, &["provider", "networks", "links"], problems)?;
        let provider = fields.required("provider", problems, |provider, problems| {
            provider.choice("a provider", &[("qemu", Provider::Qemu)], problems)
        });
        let networks = fields.optional("networks", problems, |networks, problems| {
            let read = networks.list(MAX_NETWORKS, problems, Network::read)?;
            let names = read.iter().map(|network| network.name.as_str());
            networks.refuse_repeated("name", names, problems)?;
            Some(read)
        });
        let links = fields.optional("links", problems, |links, problems| {
            let read = links.list(MAX_LINKS, problems, Link::read)?;
            let ends = read.iter().map(|link| link.to().as_str());
            links.refuse_repeated("to", ends, problems)?;
            Some(read)
        });
        Some(Self {
            name: name?,
            provider: provider?,
            networks: networks?.unwrap_or_default(),
            links: links?.unwrap_or_default(),
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

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
    #[serde(skip_serializing_if = "Inbound::is_open")]
    inbound: Inbound,
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

/// Whether replicators of other sites can dial those of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Inbound {
    /// They can.
    Open,
    /// They cannot: this site's replicators dial them.
    Closed,
}

/// Which replicator opens the connections between a protected VM's two sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialler {
    /// That of the source site.
    Source,
    /// That of the target site.
    Target,
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

    /// Whether replicators of other sites can dial its own.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        self.inbound
    }

    /// Who dials where VMs go from this site to `target`: the source, unless the target cannot be dialled. `None` if neither can be.
    #[must_use]
    pub fn dialler(&self, target: &Self) -> Option<Dialler> {
        match (self.inbound, target.inbound) {
            (_, Inbound::Open) => Some(Dialler::Source),
            (Inbound::Open, Inbound::Closed) => Some(Dialler::Target),
            (Inbound::Closed, Inbound::Closed) => None,
        }
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
        let fields = Fields::open(spec, &["provider", "inbound", "networks", "links"], problems)?;
        let provider = fields.required("provider", problems, |provider, problems| {
            provider.choice("a provider", &[("qemu", Provider::Qemu)], problems)
        });
        let inbound = fields.optional("inbound", problems, |inbound, problems| {
            inbound.choice("what `inbound` can be", &Inbound::NAMES, problems)
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
            inbound: inbound?.unwrap_or(Inbound::Open),
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

impl Inbound {
    const NAMES: [(&'static str, Self); 2] = [("open", Self::Open), ("closed", Self::Closed)];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_open(&self) -> bool {
        *self == Self::Open
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

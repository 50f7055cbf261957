//! What `ip -j` says of interfaces and routes, as far as it is judged here.

use serde::{Deserialize, de::DeserializeOwned};

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Link {
    #[serde(rename = "ifname")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    #[serde(default)]
    pub(crate) mtu: u32,
    #[serde(default)]
    pub(crate) address: Option<String>,
    /// The bridge (or bond, …) that it is a port of.
    #[serde(default)]
    pub(crate) master: Option<String>,
    /// The interface that it lies on, or is paired with.
    #[serde(default)]
    pub(crate) link: Option<String>,
    /// The namespace of its peer, if that is another one.
    #[serde(default)]
    pub(crate) link_netnsid: Option<i64>,
    #[serde(default)]
    pub(crate) link_type: Option<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct LinkInfo {
    #[serde(default)]
    info_kind: Option<String>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Route {
    #[serde(rename = "dst")]
    pub(crate) destination: String,
    /// Left out for ordinary ones.
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) gateway: Option<String>,
    #[serde(default, rename = "dev")]
    pub(crate) device: Option<String>,
}

impl Link {
    /// Of which kind it is: `bridge`, `tun`, `veth`, …; none for hardware and loopback.
    pub(crate) fn kind(&self) -> Option<&str> {
        self.linkinfo.info_kind.as_deref()
    }

    pub(crate) fn is_bridge(&self) -> bool {
        self.kind() == Some("bridge")
    }

    pub(crate) fn is_tap(&self) -> bool {
        self.kind() == Some("tun")
    }

    pub(crate) fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }
}

/// The interfaces of a listing.
pub(crate) fn parse_links(listing: &[u8]) -> Result<Vec<Link>, serde_json::Error> {
    parse(listing)
}

/// The routes of a listing.
pub(crate) fn parse_routes(listing: &[u8]) -> Result<Vec<Route>, serde_json::Error> {
    parse(listing)
}

/// An empty listing is sometimes printed as nothing at all, and a filtered entry as `{}`.
fn parse<T: DeserializeOwned>(listing: &[u8]) -> Result<Vec<T>, serde_json::Error> {
    if listing.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<serde_json::Value> = serde_json::from_slice(listing)?;
    entries
        .into_iter()
        .filter(|entry| entry.as_object().is_none_or(|fields| !fields.is_empty()))
        .map(serde_json::from_value)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_prints_is_understood() {
        let links = parse_links(
            br#"[{},{"ifindex":3,"ifname":"fsabc","flags":["NO-CARRIER","UP"],"mtu":1500,"master":"br0",
                "link_type":"ether","linkinfo":{"info_kind":"tun","info_data":{"type":"tap"}}}]"#,
        )
        .unwrap();
        assert_eq!(links.len(), 1);
        assert!(links[0].is_tap() && links[0].is_up() && !links[0].is_bridge());
        assert_eq!((links[0].master.as_deref(), links[0].mtu), (Some("br0"), 1500));
    }

    #[test]
    fn nothing_printed_is_nothing_there_and_nonsense_is_an_error() {
        assert_eq!(parse_routes(b"\n").unwrap(), []);
        assert!(parse_links(b"Error: no").is_err());
        assert!(parse_links(br#"[{"flags":[]}]"#).is_err());
    }
}

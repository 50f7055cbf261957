//! The networks of two sites: a namespace each with a production bridge of the same addresses, and what joins them.

use std::{net::Ipv4Addr, process::Command};

use serde_json::Value;

use crate::{
    namespace::{Namespace, ip},
    wan::{End, Wan, WanOptions},
};

const EAST: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 1);
const WEST: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 2);
/// What both sites call their end of the line.
const LINE: &str = "wan";

/// Both sites.
#[derive(Debug)]
pub(super) struct Sites {
    /// Goes before the namespaces that it joins.
    pub(super) wan: Option<Wan>,
    pub(super) east: Namespace,
    pub(super) west: Namespace,
}

impl Sites {
    /// Without options, a wire that has no round trip joins them.
    pub(super) fn create(id: &str, wan: Option<&WanOptions>) -> Self {
        let east = Namespace::create(&format!("{id}e"));
        let west = Namespace::create(&format!("{id}w"));
        for site in [&east, &west] {
            site.ip(&["link", "add", "prod0", "type", "bridge"]);
            site.ip(&["addr", "add", "10.77.0.254/24", "dev", "prod0"]);
            site.ip(&["link", "set", "prod0", "up"]);
        }
        let [first, second] = [(&east, EAST), (&west, WEST)].map(|(site, address)| End {
            namespace: site.name(),
            address,
        });
        let wan = wan.map(|options| Wan::join(LINE, first, second, options));
        if wan.is_none() {
            join_by_wire(&east, &west);
        }
        Self { wan, east, west }
    }

    /// What the east has put on the line so far, all protocols included.
    pub(super) fn sent_by_the_east(&self) -> u64 {
        let output = Command::new("ip")
            .args(["-n", self.east.name(), "-s", "-j", "link", "show", LINE])
            .output()
            .unwrap();
        let links: Value = serde_json::from_slice(&output.stdout).unwrap();
        links[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
    }
}

fn join_by_wire(east: &Namespace, west: &Namespace) {
    let near = ["link", "add", LINE, "netns", east.name(), "type", "veth"];
    let far = ["peer", "name", LINE, "netns", west.name()];
    ip(&[near.as_slice(), &far].concat());
    for (site, address) in [(east, EAST), (west, WEST)] {
        site.ip(&["addr", "add", &format!("{address}/24"), "dev", LINE]);
        site.ip(&["link", "set", LINE, "up"]);
    }
}

//! Which `ip` commands bring a network from what is there to what is wanted: pure.

use std::fmt;

use super::{BUBBLE_BRIDGE, links::Link};

/// Why taps cannot be put on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoBridge {
    /// There is no such interface.
    Missing { bridge: String, bridges: Vec<String> },
    /// It is something else.
    NotABridge { bridge: String, bridges: Vec<String> },
}

impl fmt::Display for NoBridge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bridges = match self {
            Self::Missing { bridge, bridges } => {
                write!(out, "there is no bridge `{bridge}`")?;
                bridges
            }
            Self::NotABridge { bridge, bridges } => {
                write!(out, "the interface `{bridge}` is no bridge")?;
                bridges
            }
        };
        match bridges.as_slice() {
            [] => write!(out, "; this site has none"),
            _ => write!(out, "; this site has: {}", bridges.join(", ")),
        }
    }
}

/// The bridge of that name.
pub(crate) fn bridge_among<'a>(links: &'a [Link], bridge: &str) -> Result<&'a Link, NoBridge> {
    let bridges = || {
        let names = links.iter().filter(|link| link.is_bridge());
        names.map(|link| link.name.clone()).collect()
    };
    match links.iter().find(|link| link.name == bridge) {
        Some(link) if link.is_bridge() => Ok(link),
        Some(_) => Err(NoBridge::NotABridge {
            bridge: bridge.to_owned(),
            bridges: bridges(),
        }),
        None => Err(NoBridge::Missing {
            bridge: bridge.to_owned(),
            bridges: bridges(),
        }),
    }
}

/// What a bubble lacks whose bridge has this address.
pub(super) fn in_bubble(links: &[Link], address: &str, taps: &[String]) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let there = |name: &str| links.iter().find(|link| link.name == name);
    if !there("lo").is_some_and(Link::is_up) {
        commands.push(words("link set lo up"));
    }
    if there(BUBBLE_BRIDGE).is_none() {
        // No snooping: a bubble has nobody who asks for group memberships.
        commands.push(words(&format!(
            "link add {BUBBLE_BRIDGE} address {address} type bridge stp_state 0 mcast_snooping 0"
        )));
    }
    if !there(BUBBLE_BRIDGE).is_some_and(Link::is_up) {
        // `addrgenmode none`: the host takes no address, not even a link-local one, among the guests.
        commands.push(words(&format!("link set {BUBBLE_BRIDGE} addrgenmode none up")));
    }
    for tap in taps {
        commands.extend(tap_commands(there(tap), tap, BUBBLE_BRIDGE, None));
    }
    commands
}

/// What a bridge of the site lacks.
pub(super) fn on_bridge(links: &[Link], bridge: &str, taps: &[String]) -> Result<Vec<Vec<String>>, NoBridge> {
    let mtu = bridge_among(links, bridge)?.mtu;
    let there = |name: &str| links.iter().find(|link| link.name == name);
    Ok(taps
        .iter()
        .flat_map(|tap| tap_commands(there(tap), tap, bridge, Some(mtu)))
        .collect())
}

/// `mtu`: a port with a smaller one would make the whole bridge's smaller.
fn tap_commands(there: Option<&Link>, tap: &str, bridge: &str, mtu: Option<u32>) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    if there.is_none() {
        commands.push(words(&format!("tuntap add dev {tap} mode tap")));
    }
    let set = there.is_some_and(|link| link.is_up() && link.master.as_deref() == Some(bridge));
    if !set {
        let mtu = mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        commands.push(words(&format!(
            "link set {tap}{mtu} master {bridge} addrgenmode none up"
        )));
    }
    commands
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::network::links::parse_links;

    fn links(json: &str) -> Vec<Link> {
        parse_links(json.as_bytes()).unwrap()
    }

    fn lines(commands: &[Vec<String>]) -> Vec<String> {
        commands.iter().map(|command| command.join(" ")).collect()
    }

    const WHOLE: &str = r#"[{"ifname":"lo","flags":["UP"]},
        {"ifname":"br0","flags":["UP"],"mtu":9000,"linkinfo":{"info_kind":"bridge"}},
        {"ifname":"tap0","flags":["UP"],"master":"br0","linkinfo":{"info_kind":"tun"}}]"#;

    #[test]
    fn an_empty_namespace_becomes_a_bubble() {
        let commands = in_bubble(
            &links(r#"[{"ifname":"lo"}]"#),
            "02:00:00:00:00:07",
            &["tap0".to_owned()],
        );
        assert_eq!(
            lines(&commands),
            [
                "link set lo up",
                "link add br0 address 02:00:00:00:00:07 type bridge stp_state 0 mcast_snooping 0",
                "link set br0 addrgenmode none up",
                "tuntap add dev tap0 mode tap",
                "link set tap0 master br0 addrgenmode none up",
            ]
        );
    }

    #[test]
    fn a_whole_bubble_lacks_nothing() {
        assert_eq!(
            in_bubble(&links(WHOLE), "", &["tap0".to_owned()]),
            Vec::<Vec<String>>::new()
        );
    }

    #[test]
    fn a_tap_that_a_crash_left_without_its_bridge_is_plugged_in() {
        let left = WHOLE.replace(r#""master":"br0","#, "");
        assert_eq!(
            lines(&in_bubble(&links(&left), "", &["tap0".to_owned()])),
            ["link set tap0 master br0 addrgenmode none up"]
        );
    }

    #[test]
    fn a_tap_on_a_bridge_takes_its_mtu() {
        let commands = on_bridge(&links(WHOLE), "br0", &["tap1".to_owned()]).unwrap();
        assert_eq!(
            lines(&commands),
            [
                "tuntap add dev tap1 mode tap",
                "link set tap1 mtu 9000 master br0 addrgenmode none up"
            ]
        );
    }

    #[test]
    fn a_wrong_bridge_is_refused_with_the_right_ones() {
        let missing = on_bridge(&links(WHOLE), "br7", &[]).unwrap_err().to_string();
        assert_eq!(missing, "there is no bridge `br7`; this site has: br0");
        let wrong = on_bridge(&links(WHOLE), "lo", &[]).unwrap_err().to_string();
        assert_eq!(wrong, "the interface `lo` is no bridge; this site has: br0");
    }
}

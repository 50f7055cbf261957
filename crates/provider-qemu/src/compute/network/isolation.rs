//! Whether anything in a bubble could lead out: pure.
//!
//! What is not known to be harmless is a way out: a link of any other kind, a tap of nobody's, a peer in another
//! namespace, a bridge with a port that is not ours, a route that goes through somebody.

use super::{
    BUBBLE_BRIDGE,
    links::{Link, Route},
};

/// Devices that the kernel puts into every new namespace once the module of their protocol is loaded (`net.core.
/// fb_tunnels_only_for_init_net`). They are harmless as long as they are down.
const FALLBACK_DEVICES: [&str; 9] = [
    "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0",
];

/// Everything that could lead out of a bubble with these links and routes, whose VMs have these taps.
pub(crate) fn ways_out(links: &[Link], routes: &[Route], taps: &[String]) -> Vec<String> {
    let by_links = links.iter().filter_map(|link| way_by_link(link, taps));
    let by_routes = routes.iter().filter_map(way_by_route);
    by_links.chain(by_routes).collect()
}

/// Whether everything in a bubble that is there already belongs to it: a tap of ours that a crash left beside the bridge
/// does, and is plugged in later.
pub(crate) fn strangers(links: &[Link], taps: &[String]) -> Vec<String> {
    let ours = |link: &&Link| !(link.is_tap() && link.master.is_none() && taps.contains(&link.name));
    let others = links.iter().filter(ours);
    others.filter_map(|link| way_by_link(link, taps)).collect()
}

fn way_by_link(link: &Link, taps: &[String]) -> Option<String> {
    let name = &link.name;
    if let Some(peer) = link.link_netnsid {
        return Some(format!(
            "interface {name} has a peer in another namespace ({peer})"
        ));
    }
    if let Some(below) = &link.link {
        return Some(format!("interface {name} lies on {below}"));
    }
    let is_ours = match link.kind() {
        None => name == "lo" && link.link_type.as_deref() == Some("loopback"),
        Some("bridge") => name == BUBBLE_BRIDGE && link.master.is_none(),
        Some("tun") => taps.contains(name) && link.master.as_deref() == Some(BUBBLE_BRIDGE),
        Some(_) => false,
    };
    let is_fallback = FALLBACK_DEVICES.contains(&name.as_str()) && !link.is_up() && link.master.is_none();
    if is_ours || is_fallback {
        return None;
    }
    let kind = link.kind().unwrap_or("hardware");
    let port = match &link.master {
        Some(master) => format!(", a port of {master}"),
        None => String::new(),
    };
    Some(format!(
        "interface {name} of kind {kind}{port} belongs to no VM of this bubble"
    ))
}

fn way_by_route(route: &Route) -> Option<String> {
    let refuses = matches!(
        route.kind.as_deref(),
        Some("unreachable" | "blackhole" | "prohibit")
    );
    let leads = route.destination == "default" || route.gateway.is_some();
    (leads && !refuses).then(|| {
        format!(
            "route to {} via {}",
            route.destination,
            route
                .gateway
                .as_deref()
                .or(route.device.as_deref())
                .unwrap_or("?")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::network::links::{parse_links, parse_routes};

    const LOOPBACK: &str = r#"{"ifname":"lo","flags":["UP"],"link_type":"loopback"}"#;
    const BRIDGE: &str = r#"{"ifname":"br0","flags":["UP"],"linkinfo":{"info_kind":"bridge"}}"#;
    const TAP: &str = r#"{"ifname":"tap0","flags":["UP"],"master":"br0","linkinfo":{"info_kind":"tun"}}"#;

    fn ways(further_link: &str, routes: &str) -> Vec<String> {
        let further = if further_link.is_empty() {
            String::new()
        } else {
            format!(",{further_link}")
        };
        let links = parse_links(format!("[{LOOPBACK},{BRIDGE},{TAP}{further}]").as_bytes()).unwrap();
        let routes = parse_routes(routes.as_bytes()).unwrap();
        ways_out(&links, &routes, &["tap0".to_owned()])
    }

    #[test]
    fn a_bubble_with_its_bridge_and_taps_leads_nowhere() {
        let routes = r#"[{"type":"local","dst":"127.0.0.1","dev":"lo"},{"dst":"fe80::/64","dev":"br0"},
            {"type":"multicast","dst":"ff00::/8","dev":"br0"},{"type":"unreachable","dst":"default","dev":"lo"}]"#;
        assert_eq!(ways("", routes), Vec::<String>::new());
    }

    #[test]
    fn every_other_link_is_a_way_out() {
        for link in [
            r#"{"ifname":"eth0","flags":["UP"],"link_type":"ether"}"#,
            r#"{"ifname":"eth0","link_type":"ether"}"#,
            r#"{"ifname":"v0","link_netnsid":0,"master":"br0","linkinfo":{"info_kind":"veth"}}"#,
            r#"{"ifname":"v0","link":"v1","linkinfo":{"info_kind":"veth"}}"#,
            r#"{"ifname":"vx0","linkinfo":{"info_kind":"vxlan"}}"#,
            r#"{"ifname":"wg0","linkinfo":{"info_kind":"wireguard"}}"#,
            r#"{"ifname":"br1","linkinfo":{"info_kind":"bridge"}}"#,
            r#"{"ifname":"vpn","master":"br0","linkinfo":{"info_kind":"tun"}}"#,
            r#"{"ifname":"tunl0","flags":["UP"],"linkinfo":{"info_kind":"ipip"}}"#,
            r#"{"ifname":"lo2","link_type":"loopback"}"#,
        ] {
            assert_eq!(ways(link, "[]").len(), 1, "{link}");
        }
    }

    #[test]
    fn a_fallback_device_that_is_down_is_none() {
        let link = r#"{"ifname":"sit0","flags":["NOARP"],"linkinfo":{"info_kind":"sit"}}"#;
        assert_eq!(ways(link, "[]"), Vec::<String>::new());
    }

    #[test]
    fn a_tap_beside_the_bridge_is_a_way_out() {
        let links =
            parse_links(format!("[{BRIDGE},{}]", TAP.replace(r#""master":"br0","#, "")).as_bytes()).unwrap();
        let taps = ["tap0".to_owned()];
        assert_eq!(ways_out(&links, &[], &taps).len(), 1);
        assert_eq!(
            strangers(&links, &taps),
            Vec::<String>::new(),
            "it is ours all the same"
        );
        assert_eq!(strangers(&links, &[]).len(), 1);
    }

    #[test]
    fn a_route_through_somebody_is_a_way_out() {
        assert_eq!(
            ways("", r#"[{"dst":"default","gateway":"10.0.0.1","dev":"br0"}]"#).len(),
            1
        );
        assert_eq!(ways("", r#"[{"dst":"default","dev":"br0"}]"#).len(), 1);
        assert_eq!(
            ways("", r#"[{"dst":"10.1.0.0/16","gateway":"10.0.0.1"}]"#).len(),
            1
        );
    }
}

//! Whose a bubble is that is there already: pure.
//!
//! Names of bubbles are chosen by people, and two replicators on one host know nothing of each other. So the bridge in a
//! bubble carries an address that is derived from the directory of its VMs: it is set as the bridge is made, in one step.

use farshore_blocks::Digest;

use super::{BUBBLE_BRIDGE, isolation, links::Link};

/// The address of the bridges in the bubbles of the VMs below `root`: locally administered, of one card.
pub(crate) fn bridge_address(root: &str) -> String {
    let digest = Digest::of(root.as_bytes());
    let bytes = digest.as_bytes().iter().take(5);
    bytes.fold("02".to_owned(), |address, byte| format!("{address}:{byte:02x}"))
}

/// Whether a bubble with these links is ours: one that has no bridge yet is whoever's takes it.
pub(crate) fn is_ours(links: &[Link], root: &str) -> bool {
    let bridge = links.iter().find(|link| link.name == BUBBLE_BRIDGE);
    bridge.is_none_or(|bridge| bridge.address.as_deref() == Some(bridge_address(root).as_str()))
}

/// Why no VM may be put into a bubble with these links, if there is a reason; `known` are the taps of its VMs.
pub(crate) fn hindrance(links: &[Link], root: &str, known: &[String]) -> Option<String> {
    if !is_ours(links, root) {
        return Some(format!(
            "its bridge {BUBBLE_BRIDGE} was made by somebody else; choose another name for the bubble"
        ));
    }
    let strangers = isolation::strangers(links, known);
    (!strangers.is_empty()).then(|| format!("{}; remove it", strangers.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::network::links::parse_links;

    fn bubble(address: &str, further: &str) -> Vec<Link> {
        let listing = format!(
            r#"[{{"ifname":"lo","link_type":"loopback"}},
                {{"ifname":"br0","address":"{address}","linkinfo":{{"info_kind":"bridge"}}}}{further}]"#
        );
        parse_links(listing.as_bytes()).unwrap()
    }

    #[test]
    fn the_address_of_a_bridge_is_one_that_a_bridge_may_have_and_differs_by_directory() {
        let address = bridge_address("/a");
        assert_eq!(address.len(), 17);
        assert!(address.starts_with("02:"), "{address}");
        assert_ne!(address, bridge_address("/b"));
    }

    #[test]
    fn only_an_empty_bubble_or_ours_may_be_entered() {
        let empty = parse_links(br#"[{"ifname":"lo","link_type":"loopback"}]"#).unwrap();
        assert_eq!(hindrance(&empty, "/a", &[]), None);
        let ours = bubble(&bridge_address("/a"), "");
        assert_eq!(hindrance(&ours, "/a", &[]), None);
        let theirs = hindrance(&ours, "/b", &[]).unwrap();
        assert!(theirs.contains("somebody else"), "{theirs}");
    }

    #[test]
    fn a_bubble_of_ours_that_holds_something_else_may_not_be_entered() {
        let cable = r#",{"ifname":"v0","link_netnsid":0,"linkinfo":{"info_kind":"veth"}}"#;
        let ours = bubble(&bridge_address("/a"), cable);
        assert!(is_ours(&ours, "/a"));
        assert!(hindrance(&ours, "/a", &[]).unwrap().contains("v0"));
    }
}

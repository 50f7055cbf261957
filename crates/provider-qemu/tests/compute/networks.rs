//! Bubbles lead nowhere and go with their last VM; bridges of the site are used and left alone.

use std::process::Command;

use farshore_provider::{Compute, ComputeError, NetworkAttachment, RecoveryId, VmCondition};

use crate::site::{Site, output};

/// A bridge in our own namespace, removed with the test.
struct Bridge(String);

impl Bridge {
    fn new(site: &Site) -> Self {
        let name = format!("b{}", site.tag);
        output("ip", &["link", "add", &name, "type", "bridge"]);
        output("ip", &["link", "set", &name, "mtu", "1400", "up"]);
        Self(name)
    }

    fn ports(&self) -> Vec<String> {
        let listing = output("ip", &["-br", "link", "show", "master", &self.0]);
        let names = listing.lines().filter_map(|line| line.split_whitespace().next());
        names.map(str::to_owned).collect()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["link", "delete", &self.0]).status());
    }
}

#[tokio::test]
async fn two_vms_share_a_bubble_and_it_goes_with_the_last() {
    let mut site = Site::new();
    let (one, two) = (site.running("one").await, site.running("two").await);
    let proof = site.compute.prove_isolation(&one.id).await.unwrap();
    assert_eq!(proof.ways_out, [""; 0]);
    assert_eq!(proof.interfaces.len(), 4, "lo, br0 and two taps: {proof:?}");

    assert_eq!(site.compute.discard(&one.id).await.unwrap(), []);
    let proof = site.compute.prove_isolation(&two.id).await.unwrap();
    assert_eq!(proof.interfaces.len(), 3, "{proof:?}");
    assert_eq!(site.compute.discard(&two.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn two_vms_that_leave_a_bubble_at_once_take_it_along() {
    let mut site = Site::new();
    let (one, two) = (site.running("one").await, site.running("two").await);
    let compute = &site.compute;
    let (first, second) = tokio::join!(compute.discard(&one.id), compute.discard(&two.id));
    assert_eq!((first.unwrap(), second.unwrap()), (vec![], vec![]));
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_cable_out_of_a_bubble_is_found() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    let namespace = site.namespace();
    let (outer, inner) = (format!("o{}", site.tag), format!("i{}", site.tag));
    output(
        "ip",
        &[
            "link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &namespace,
        ],
    );
    let proof = site.compute.prove_isolation(&request.id).await.unwrap();
    assert_eq!(proof.ways_out.len(), 1, "{proof:?}");
    assert!(proof.ways_out[0].contains(&inner), "{proof:?}");

    for setting in [
        vec!["link", "set", &inner, "master", "br0", "up"],
        vec!["addr", "add", "10.77.0.2/24", "dev", "br0"],
        vec!["route", "add", "default", "via", "10.77.0.1"],
    ] {
        output("ip", &[&["-n", namespace.as_str()], setting.as_slice()].concat());
    }
    let proof = site.compute.prove_isolation(&request.id).await.unwrap();
    assert_eq!(proof.ways_out.len(), 2, "the route too: {proof:?}");

    output("ip", &["link", "delete", &outer]);
    let gone = "ip -n $0 route delete default; ip -n $0 addr flush dev br0";
    output("sh", &["-c", gone, &namespace]);
    let proof = site.compute.prove_isolation(&request.id).await.unwrap();
    assert_eq!(proof.ways_out, [""; 0]);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn a_tap_of_nobodys_in_a_bubble_is_found() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    let namespace = site.namespace();
    output(
        "ip",
        &["-n", &namespace, "tuntap", "add", "dev", "vpn", "mode", "tap"],
    );
    output("ip", &["-n", &namespace, "link", "set", "vpn", "master", "br0"]);
    let proof = site.compute.prove_isolation(&request.id).await.unwrap();
    assert_eq!(proof.ways_out.len(), 1, "{proof:?}");
    let leaks = site.compute.discard(&request.id).await.unwrap();
    assert_eq!(
        leaks.len(),
        1,
        "a bubble that holds what is not ours stays: {leaks:?}"
    );
    output("ip", &["-n", &namespace, "link", "delete", "vpn"]);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_vm_on_a_bridge_is_plugged_in_and_unplugged_and_proves_no_isolation() {
    let mut site = Site::new();
    let bridge = Bridge::new(&site);
    let mut request = site.request("vm");
    request.network = NetworkAttachment::Bridge {
        bridge: bridge.0.clone(),
    };
    site.compute.prepare(&request).await.unwrap();
    let vm = site.compute.start(&request.id).await.unwrap();
    assert_eq!(vm.namespace, None);
    assert_eq!(bridge.ports().len(), 1, "{:?}", bridge.ports());
    let refused = site.compute.prove_isolation(&request.id).await.unwrap_err();
    assert!(matches!(refused, ComputeError::Unfit { .. }), "{refused}");
    assert!(output("ip", &["link", "show", &bridge.0]).contains("mtu 1400"));

    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    assert_eq!(bridge.ports(), [""; 0]);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_wrong_bridge_is_refused_and_nothing_is_made() {
    let mut site = Site::new();
    let bridge = Bridge::new(&site);
    let mut request = site.request("vm");
    for (name, words) in [("no-such-bridge", "there is no bridge"), ("lo", "is no bridge")] {
        request.network = NetworkAttachment::Bridge {
            bridge: name.to_owned(),
        };
        let refused = site.compute.prepare(&request).await.unwrap_err().to_string();
        assert!(
            refused.contains(words) && refused.contains(&bridge.0),
            "{refused}"
        );
    }
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_bubble_of_somebody_else_is_not_joined() {
    let mut ours = Site::new();
    let mut theirs = Site::new();
    let running = theirs.running("vm").await;
    let mut request = ours.request("vm");
    request.network = running.network.clone();
    let refused = ours.compute.prepare(&request).await.unwrap_err();
    assert!(matches!(refused, ComputeError::Unfit { .. }), "{refused}");
    assert!(refused.to_string().contains("is in use"), "{refused}");
    let proof = theirs.compute.prove_isolation(&running.id).await.unwrap();
    assert_eq!(proof.ways_out, [""; 0]);
    assert_eq!(
        ours.compute.probe(&request.id).await.unwrap(),
        VmCondition::Absent
    );

    // Even where the name was taken after ours was prepared, and ours cannot start any more.
    let mut late = ours.request("late");
    ours.compute.prepare(&late).await.unwrap();
    output("ip", &["netns", "delete", &ours.namespace()]);
    late.id = RecoveryId::new("theirs").unwrap();
    late.disks[0].name = theirs.export("theirs-root").name;
    late.disks[0].export_socket = theirs.exports[1].socket.clone();
    late.machine.disks[0].name = late.disks[0].name.clone();
    theirs.compute.prepare(&late).await.unwrap();
    let id = RecoveryId::new("late").unwrap();
    let refused = ours.compute.start(&id).await.unwrap_err();
    assert!(refused.to_string().contains("somebody else"), "{refused}");
    assert_eq!(
        ours.compute.discard(&id).await.unwrap(),
        [],
        "what is theirs is no leak of ours"
    );
    theirs.compute.start(&late.id).await.unwrap();
    assert_eq!(theirs.compute.discard(&late.id).await.unwrap(), []);
    ours.assert_nothing_is_left();
    assert_eq!(
        theirs.compute.probe(&running.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(theirs.compute.discard(&running.id).await.unwrap(), []);
    theirs.assert_nothing_is_left();
}

#[tokio::test]
async fn a_bubble_that_a_reboot_took_is_made_again() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    site.compute.stop(&request.id).await.unwrap();
    output("ip", &["netns", "delete", &site.namespace()]);
    // As `ip netns add` leaves it when it is killed in the middle.
    std::fs::write(format!("/run/netns/{}", site.namespace()), b"").unwrap();
    site.compute.start(&request.id).await.unwrap();
    let proof = site.compute.prove_isolation(&request.id).await.unwrap();
    assert_eq!((proof.interfaces.len(), proof.ways_out), (3, vec![]));
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

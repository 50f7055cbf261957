//! The demo's networks: two sites and the wide area network between them, made and removed with `ip`.
//!
//! The wide area network's bridge is in a namespace too, where no firewall of the host sees its frames.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use farshore_guest::HostTool;
use tokio_util::task::TaskTracker;

use super::layout::{Layout, Site, production_address};

/// The bridge of the production network, at both sites.
pub(super) const PRODUCTION_BRIDGE: &str = "prod0";
const WAN_BRIDGE: &str = "wan0";
const NAMESPACES: &str = "/run/netns";

/// Runs `ip`, always to its end: whoever cleans up waits for the tracker first, and finds what was made.
#[derive(Debug, Clone, Default)]
pub(super) struct Ip(pub(super) TaskTracker);

/// Makes all of it.
pub(super) async fn make(ip: &Ip, layout: &Layout) -> anyhow::Result<()> {
    for namespace in layout.namespaces() {
        ip.run(format!("netns add {namespace}")).await?;
        ip.run(format!("-n {namespace} link set lo up")).await?;
    }
    let wan = layout.wan_namespace();
    ip.run(format!("-n {wan} link add {WAN_BRIDGE} type bridge"))
        .await?;
    ip.run(format!("-n {wan} link set {WAN_BRIDGE} up")).await?;

    let host = layout.host_interface();
    ip.run(format!("link add {host} type veth peer name host netns {wan}"))
        .await?;
    ip.run(format!("-n {wan} link set host master {WAN_BRIDGE} up"))
        .await?;
    ip.run(format!("addr add {}/24 dev {host}", layout.host_address()))
        .await?;
    ip.run(format!("link set {host} up")).await?;
    for site in Site::BOTH {
        make_site(ip, layout, site).await?;
    }
    Ok(())
}

async fn make_site(ip: &Ip, layout: &Layout, site: Site) -> anyhow::Result<()> {
    let (wan, namespace, name) = (layout.wan_namespace(), layout.namespace(site), site.name());
    ip.run(format!(
        "-n {wan} link add {name} type veth peer name wan netns {namespace}"
    ))
    .await?;
    ip.run(format!("-n {wan} link set {name} master {WAN_BRIDGE} up"))
        .await?;
    ip.run(format!(
        "-n {namespace} addr add {}/24 dev wan",
        layout.site_address(site)
    ))
    .await?;
    ip.run(format!("-n {namespace} link set wan up")).await?;
    ip.run(format!("-n {namespace} link add {PRODUCTION_BRIDGE} type bridge"))
        .await?;
    ip.run(format!(
        "-n {namespace} addr add {}/24 dev {PRODUCTION_BRIDGE}",
        production_address(1)
    ))
    .await?;
    ip.run(format!("-n {namespace} link set {PRODUCTION_BRIDGE} up"))
        .await
}

/// Puts an address of ours on a bubble's bridge, so that we can talk to what is in it.
pub(super) async fn enter_bubble(ip: &Ip, namespace: &str, bridge: &str, host: u8) -> anyhow::Result<()> {
    ip.run(format!(
        "-n {namespace} addr add {}/24 dev {bridge}",
        production_address(host)
    ))
    .await
}

/// Takes it away again.
pub(super) async fn leave_bubble(ip: &Ip, namespace: &str, bridge: &str, host: u8) -> anyhow::Result<()> {
    ip.run(format!(
        "-n {namespace} addr del {}/24 dev {bridge}",
        production_address(host)
    ))
    .await
}

/// Every named network namespace of this machine.
pub(super) fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Whether one of these namespaces is there.
pub(super) fn any_exists(wanted: &[String]) -> bool {
    namespaces().iter().any(|name| wanted.contains(name))
}

/// Removes a namespace with all that is in it.
pub(super) async fn remove_namespace(ip: &Ip, namespace: &str) -> anyhow::Result<()> {
    ip.run(format!("netns delete {namespace}")).await
}

/// Whether the host has this interface.
pub(super) fn interface_exists(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// Removes an interface of the host.
pub(super) async fn remove_interface(ip: &Ip, name: &str) -> anyhow::Result<()> {
    ip.run(format!("link delete {name}")).await
}

/// The first three numbers of every address that the host has, and of every network that it routes to.
pub(super) fn used_networks() -> anyhow::Result<BTreeSet<[u8; 3]>> {
    let told = ip_output("-4 route show table all")?;
    let words = told.split_whitespace().filter_map(|word| word.split('/').next());
    let addresses = words.filter_map(|word| word.parse::<std::net::Ipv4Addr>().ok());
    Ok(addresses
        .map(|address| {
            let [first, second, third, _] = address.octets();
            [first, second, third]
        })
        .collect())
}

impl Ip {
    async fn run(&self, arguments: String) -> anyhow::Result<()> {
        self.0
            .spawn_blocking(move || ip_output(&arguments))
            .await?
            .map(drop)
    }
}

fn ip_output(arguments: &str) -> anyhow::Result<String> {
    let output = Command::new(HostTool::Ip.find()?)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `ip {arguments}`"))?;
    if !output.status.success() {
        bail!(
            "`ip {arguments}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

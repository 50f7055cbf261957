//! Recovered VMs on real QEMU, real namespaces and real NBD servers. Needs root, QEMU and iproute2.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected fails by it"
)]

#[path = "compute/adoption.rs"]
mod adoption;
#[path = "compute/disks.rs"]
mod disks;
#[path = "compute/guests.rs"]
mod guests;
#[path = "compute/lifecycle.rs"]
mod lifecycle;
#[path = "compute/networks.rs"]
mod networks;
#[path = "compute/site.rs"]
mod site;

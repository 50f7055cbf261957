//! Captures of a real QEMU, compared byte for byte with a model of what its disks held at the instant.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its own helpers"
)]

#[path = "capture/changing_disks.rs"]
mod changing_disks;
#[path = "capture/cycles.rs"]
mod cycles;
#[path = "capture/deaths.rs"]
mod deaths;
#[path = "capture/freezing.rs"]
mod freezing;
#[path = "capture/guest.rs"]
mod guest;
#[path = "capture/iothreads.rs"]
mod iothreads;
#[path = "capture/others.rs"]
mod others;
#[path = "capture/proxy.rs"]
mod proxy;
#[path = "capture/replica.rs"]
mod replica;
#[path = "capture/restarts.rs"]
mod restarts;
#[path = "capture/surroundings.rs"]
mod surroundings;
#[path = "capture/together.rs"]
mod together;
#[path = "capture/vm.rs"]
mod vm;
#[path = "capture/watched.rs"]
mod watched;

//! Scenarios on real binaries and VMs: what they share. A [`Lab`] is two sites in network namespaces of their own,
//! with an orchestrator, a replicator each, and the guests of `farshore-guest`; dropping it removes all of it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness fails its test by panicking, with the place where it did"
)]

pub mod bare_vm;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod eventually;
pub mod guests;
pub mod lab;
pub mod monitor_proxy;
pub mod namespace;
pub mod relay;
pub mod replica;
pub mod silence;
pub mod spare_monitor;
pub mod wan;

pub use cli::Answer;
pub use daemon::Daemon;
pub use eventually::eventually;
pub use lab::Lab;

//! The client and the server against the peers that people use: libnbd's tools, nbdkit and QEMU.
//!
//! The peers are not optional: where one is missing, these tests fail.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here fails the test"
)]

mod disk;
mod process;
mod their_clients;
mod their_servers;

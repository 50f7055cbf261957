//! The NBD protocol: a codec without I/O, a client with block status, and a server.
//!
//! What is spoken is the fixed newstyle of the NBD project's `doc/proto.md`
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>) with structured replies and metadata
//! contexts. [`wire`] turns bytes into values and back and does no I/O; [`Client`] and [`serve`] are thin shells
//! around it. Whatever a peer sends, neither side panics, and neither allocates beyond the bounds named in [`wire`].
//!
//! Left out: TLS, writing, 64-bit extended headers.

mod bounds;
mod client;
mod export;
mod server;
pub mod wire;

pub use client::{
    Client, ClientError, ClientTimeouts, ConnectionLoss, HandshakeError, StatusDescriptor, Violation,
};
pub use export::{Export, ExportExtent, Exports, ExportsBuilder, ExtentState, NamingError};
pub use server::{Listener, ServeError, serve, serve_connections};

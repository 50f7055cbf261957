//! A tolerant QMP client: one connection to a monitor's unix socket, commands with deadlines, events; and a client of the
//! agent in a guest.
//!
//! Tolerant means that unknown fields and events are passed over; strict means that nothing the peer does (silence,
//! lines without an end, answers to nobody) can make a caller wait past its deadline or eat unbounded memory.

mod agent;
mod connection;
mod line;
mod message;
mod monitor;

pub use agent::{AgentError, FreezeStatus, GuestAgent};
pub use connection::ConnectionLoss;
pub use line::MAX_LINE_BYTES;
pub use message::{Event, Version};
pub use monitor::{Command, ConnectOptions, DEFAULT_COMMAND_TIMEOUT, Monitor, QmpError};

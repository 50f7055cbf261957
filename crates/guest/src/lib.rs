//! The guest of the demo and of the scenarios: its image, its workload, its witness and its judge.
//!
//! The guest writes numbered records in a fixed order to two disks and tells a *witness* outside the virtual
//! machine what was acknowledged. A copy of its disks can then be *judged* without trusting anyone: it either
//! is an exact prefix of that stream of writes or it is not, and how much of what was acknowledged it lacks is a number.
//!
//! Start reading at [`record`] (what is written), then [`judge`] (what must be true of it), then [`workload`]
//! (who writes), [`image`] (where it runs from) and [`machine`] (what it runs in).

pub mod accelerator;
pub mod disk_layout;
mod host_tool;
pub mod image;
pub mod judge;
pub mod latency;
pub mod machine;
pub mod network;
pub mod probe;
pub mod record;
pub mod region;
pub mod status;
pub mod witness;
pub mod workload;

pub use host_tool::{HostTool, ToolError};

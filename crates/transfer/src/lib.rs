//! The replication protocol without I/O: which messages may follow which, what is sent again after a cut, and what
//! a source does once it has been welcomed. Shells own the streams and the disks; this crate decides.

mod order;
mod outbound;
mod welcome;

pub use order::{Phase, Received, Violation, admit};
pub use outbound::{AcknowledgementError, Message, Outbound, Watermark};
pub use welcome::{HeldCycle, PendingCycle, PointHead, ResumePlan, TargetHead, plan_resume};

/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

//! The replication protocol without I/O: which messages may follow which, what is sent again after a cut, and what
//! a source does once it has been welcomed. Shells own the streams and the disks; this crate decides.

mod change;
mod early;
mod order;
mod outbound;
mod shares;
mod version;
mod welcome;

pub use change::Change;
pub use early::{Early, TooEarly};
pub use order::{Phase, Received, Violation, admit};
pub use outbound::{AcknowledgementError, Message, Outbound, Watermark};
pub use shares::{Bounds, Share, Shares};
pub use version::{NoCommonVersion, PROTOCOL_VERSIONS, Versions};
pub use welcome::{HeldCycle, PendingCycle, PointHead, ResumePlan, TargetHead, plan_resume};

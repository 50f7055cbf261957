//! What users and their scripts talk to: the gRPC services over the records, the orders and the fleet.
//!
//! A request is converted on receipt, decided elsewhere, and its answer made of what is durable.

mod declarations;
mod failovers;
mod jobs;
mod messages;
mod pages;
mod pins;
mod protection;
mod status;
mod vm_view;
mod watching;

pub use declarations::DeclarationsService;
pub use failovers::FailoversService;
pub use jobs::JobsService;
pub(crate) use messages::job_state;
pub use protection::ProtectionService;
pub use vm_view::{VmView, VmViews};

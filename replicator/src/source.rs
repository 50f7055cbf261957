//! The source's side of replication: one engine per protected VM.

mod application;
mod audit;
mod clock;
mod comparison;
mod compression;
mod delivery;
mod engine;
mod flow;
mod gathering;
mod link;
mod link_limit;
mod link_pace;
mod offers;
mod pace;
mod packing;
mod placed;
mod reach;
mod reading;
mod rhythm;
mod seeding;
mod state;
mod tuning;
mod volumes;
mod worklist;

pub(crate) use application::ApplicationPoints;
pub(crate) use audit::{Audit, AuditFiles};
pub(crate) use delivery::chain;
pub(crate) use engine::{Ended, Engine};
pub(crate) use gathering::{Groups, Own, serve as serve_gathering};
pub(crate) use link_limit::{LimitedHours, LinkLimit};
pub(crate) use link_pace::LinkPaces;
pub(crate) use offers::Offers;
pub(crate) use packing::Packers;
pub(crate) use placed::PlacedSource;
pub(crate) use reach::Reach;
pub(crate) use state::{AuditMismatch, CycleTimes, GroupState, SourcePhase, SourceState};

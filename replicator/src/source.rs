//! The source's side of replication: one engine per protected VM.

mod application;
mod audit;
mod clock;
mod comparison;
mod compression;
mod delivery;
mod engine;
mod flow;
mod link;
mod pace;
mod packing;
mod reading;
mod rhythm;
mod state;
mod tuning;
mod worklist;

pub(crate) use application::ApplicationPoints;
pub(crate) use audit::{Audit, AuditFiles};
pub(crate) use delivery::chain;
pub(crate) use engine::{Ended, Engine};
pub(crate) use packing::Packers;
pub(crate) use state::{AuditMismatch, AuditState, CycleTimes, SourcePhase, SourceState};

//! The source's side of replication: one engine per protected VM.

mod clock;
mod comparison;
mod delivery;
mod engine;
mod link;
mod pace;
mod reading;
mod state;
mod worklist;

pub(crate) use delivery::chain;
pub(crate) use engine::{Ended, Engine};
pub(crate) use state::{SourcePhase, SourceState};

//! The control plane: API, durable jobs, reconciler, fleet of replicators, state store and metrics.

pub mod api;
pub mod clock;
pub mod configuration;
pub mod control;
pub mod fleet;
pub mod groups;
pub mod http;
pub mod jobs;
pub mod machine;
pub mod metrics;
pub mod orders;
pub mod plane;
pub mod reconcile;
pub mod records;
pub mod replicators;
mod run;
pub mod server;
pub mod store;
mod telemetry;

pub use run::{Listening, run};

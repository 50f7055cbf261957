//! Many versions of a volume's bytes: what shows at a point, and which versions are still needed.
//!
//! The index is a stack of [`Layer`]s, the newest first. No sequence in an older layer is greater than any in a
//! newer one. One sequence may be split over two layers (a long cycle that was flushed in parts): then the newer
//! layer's bytes override. [`resolve`] rests on this: what a newer layer shows, no older one can override.
//!
//! Runs are merged by a pipeline that holds one chunk at a time: [`Merge`] → [`Chunks`] → [`thin`] → `RunWriter`.

mod chunks;
mod coverage;
mod layer;
mod merge;
mod resolve;
mod shipped;
#[cfg(test)]
mod tests;
mod thin;

pub(crate) use chunks::Chunks;
pub(crate) use layer::Layer;
pub(crate) use merge::Merge;
pub(crate) use resolve::{resolve, resolve_extent};
pub(crate) use shipped::latest_shipped;
pub(crate) use thin::thin;

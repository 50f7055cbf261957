//! All that answers and decisions of the control plane work with; clones share it.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{clock::Clock, fleet::FleetView, replicators::Replicators, store::Store};

/// The control plane's parts.
#[derive(Clone)]
pub struct Control {
    /// What must not be forgotten.
    pub store: Arc<dyn Store>,
    /// Who carries things out.
    pub replicators: Arc<dyn Replicators>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Ends every watch stream.
    pub stop: CancellationToken,
    /// The tasks of watch streams.
    pub watchers: TaskTracker,
}

impl Control {
    /// These parts.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        replicators: Arc<dyn Replicators>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            replicators,
            clock,
            stop,
            watchers: TaskTracker::new(),
        }
    }

    /// What the replicators report now.
    #[must_use]
    pub fn view(&self) -> Arc<FleetView> {
        self.replicators.reports().borrow().clone()
    }
}

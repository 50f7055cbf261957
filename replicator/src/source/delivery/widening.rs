//! More connections for a lane's changes, or fewer, as [`Width`](crate::source::width::Width) decides.

use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, chain};
use crate::source::width::{self, Step};

impl Lane {
    /// A message went on its way after this long a wait for connections and window.
    pub(super) fn widen(&mut self, waited: Duration) {
        let now = Instant::now();
        let vm = &self.assignment.machine.vm;
        let wanted = self.link_pace.as_ref().and_then(|link| link.connections());
        let most = wanted.unwrap_or(width::MOST);
        let carriers = &mut self.link.carriers;
        self.width.at_most(most.min(carriers.most().saturating_add(1)));
        self.width.waited(waited);
        match carriers.opened() {
            Some(Ok(())) => {
                self.width.widened(now);
                tracing::info!(
                    vm,
                    connections = carriers.count() + 1,
                    "changes travel on more connections"
                );
            }
            Some(Err(error)) => {
                self.width.refused(now);
                tracing::info!(vm, error = chain(&error), "another connection cannot be had");
            }
            None => {}
        }
        match self.width.step(now) {
            Step::Keep => {}
            Step::Widen => carriers.widen(self.reach.clone()),
            Step::Narrow => {
                carriers.narrow();
                tracing::info!(
                    vm,
                    connections = carriers.count() + 1,
                    "changes travel on fewer connections"
                );
            }
        }
    }

    /// Everything that was sent is durable.
    pub(super) fn drained(&mut self) {
        self.width.paused(Instant::now());
        self.link.carriers.drained();
    }
}
